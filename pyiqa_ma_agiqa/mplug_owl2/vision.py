"""The vision tower of mPLUG-Owl2: a CLIP ViT-L/14 that keeps every token."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from .config import VisionSettings


def split_heads(x: torch.Tensor, channels: int) -> torch.Tensor:
    """(N, T, heads * channels) to (N, heads, T, channels)."""
    return x.unflatten(-1, (-1, channels)).transpose(1, 2)


def join_heads(x: torch.Tensor) -> torch.Tensor:
    """(N, heads, T, d) to (N, T, heads * d)."""
    return x.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Attention over all tokens, with one matrix for queries, keys and values."""

    def __init__(self, settings: VisionSettings) -> None:
        super().__init__()
        self.head_dim = settings.hidden_size // settings.num_attention_heads
        self.query_key_value = nn.Linear(settings.hidden_size, 3 * settings.hidden_size)
        self.dense = nn.Linear(settings.hidden_size, settings.hidden_size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        # The rows of the matrix are ordered head, then query / key / value, then channel.
        query, key, value = split_heads(self.query_key_value(tokens), 3 * self.head_dim).chunk(3, dim=-1)
        return self.dense(join_heads(F.scaled_dot_product_attention(query, key, value)))


class Mlp(nn.Module):
    def __init__(self, settings: VisionSettings) -> None:
        super().__init__()
        self.fc1 = nn.Linear(settings.hidden_size, settings.intermediate_size)
        self.fc2 = nn.Linear(settings.intermediate_size, settings.hidden_size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.fc1(tokens)
        return self.fc2(hidden * torch.sigmoid(1.702 * hidden))  # quick-GELU


class VisionBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, settings: VisionSettings) -> None:
        super().__init__()
        self.self_attn = SelfAttention(settings)
        self.input_layernorm = nn.LayerNorm(settings.hidden_size, settings.layer_norm_eps)
        self.mlp = Mlp(settings)
        self.post_attention_layernorm = nn.LayerNorm(settings.hidden_size, settings.layer_norm_eps)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens + self.self_attn(self.input_layernorm(tokens))
        return tokens + self.mlp(self.post_attention_layernorm(tokens))


class PatchEmbeddings(nn.Module):
    """Patches and the class token, with learned positions, normalised."""

    def __init__(self, settings: VisionSettings) -> None:
        super().__init__()
        width, patch = settings.hidden_size, settings.patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embedding = nn.Parameter(torch.zeros(1, settings.tokens, width))
        self.patch_embed = nn.Conv2d(3, width, patch, patch, bias=False)
        self.pre_layernorm = nn.LayerNorm(width, settings.layer_norm_eps)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        patches = self.patch_embed(pixel_values).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        return self.pre_layernorm(tokens + self.position_embedding)


class VisionBlocks(nn.Module):
    def __init__(self, settings: VisionSettings) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionBlock(settings) for _ in range(settings.num_hidden_layers))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens


class VisionTower(nn.Module):
    """Pixels (N, 3, S, S), CLIP-normalised, to tokens (N, 1 + (S / patch)², hidden_size)."""

    def __init__(self, settings: VisionSettings) -> None:
        super().__init__()
        self.embeddings = PatchEmbeddings(settings)
        self.encoder = VisionBlocks(settings)
        self.post_layernorm = nn.LayerNorm(settings.hidden_size, settings.layer_norm_eps)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.post_layernorm(self.encoder(self.embeddings(pixel_values)))
