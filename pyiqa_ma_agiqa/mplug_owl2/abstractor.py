"""The visual abstractor of mPLUG-Owl2: learned queries that sum up the vision tokens."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from .config import AbstractorSettings
from .vision import join_heads, split_heads

NORM_EPS = 1e-5
"""Of every norm but the one inside the gated MLP, whose own is in the configuration."""


class QueryAttention(nn.Module):
    """Attention of queries to vision tokens and to themselves; positions go into queries and keys."""

    q_pos_embed: torch.Tensor
    k_pos_embed: torch.Tensor

    def __init__(self, settings: AbstractorSettings) -> None:
        super().__init__()
        width, source = settings.hidden_size, settings.encoder_hidden_size
        self.head_dim = width // settings.num_attention_heads
        self.register_buffer("q_pos_embed", torch.zeros(settings.num_learnable_queries, width))
        self.register_buffer("k_pos_embed", torch.zeros(settings.grid_size**2 + 1, width))
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source, width)
        self.value = nn.Linear(source, width)

    def forward(self, queries: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        positions = torch.cat([self.q_pos_embed, self.k_pos_embed])
        sources = torch.cat([queries, tokens], dim=1)
        attended = F.scaled_dot_product_attention(
            split_heads(self.query(queries + self.q_pos_embed), self.head_dim),
            split_heads(self.key(sources + positions), self.head_dim),
            split_heads(self.value(sources), self.head_dim),
        )
        return join_heads(attended)


class GatedMlp(nn.Module):
    """SwiGLU with a norm before the last matrix."""

    def __init__(self, settings: AbstractorSettings) -> None:
        super().__init__()
        width, inner = settings.hidden_size, settings.intermediate_size
        self.w1 = nn.Linear(width, inner)
        self.w2 = nn.Linear(inner, width)
        self.w3 = nn.Linear(width, inner)
        self.ffn_ln = nn.LayerNorm(inner, settings.layer_norm_eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w2(self.ffn_ln(F.silu(self.w1(x)) * self.w3(x)))


class CrossOutput(nn.Module):
    """What follows the attention: projection and gated MLP, each with a residual."""

    def __init__(self, settings: AbstractorSettings) -> None:
        super().__init__()
        self.out_proj = nn.Linear(settings.hidden_size, settings.hidden_size)
        self.norm2 = nn.LayerNorm(settings.hidden_size, NORM_EPS)
        self.mlp = GatedMlp(settings)

    def forward(self, queries: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        queries = queries + self.out_proj(attended)
        return queries + self.mlp(self.norm2(queries))


class CrossAttention(nn.Module):
    def __init__(self, settings: AbstractorSettings) -> None:
        super().__init__()
        self.attention = QueryAttention(settings)
        self.output = CrossOutput(settings)
        self.norm1 = nn.LayerNorm(settings.hidden_size, NORM_EPS)
        self.normk = nn.LayerNorm(settings.encoder_hidden_size, NORM_EPS)

    def forward(self, queries: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        queries = self.norm1(queries)  # the residual starts after the norm
        return self.output(queries, self.attention(queries, self.normk(tokens)))


class AbstractorLayer(nn.Module):
    def __init__(self, settings: AbstractorSettings) -> None:
        super().__init__()
        self.crossattention = CrossAttention(settings)

    def forward(self, queries: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return self.crossattention(queries, tokens)


class AbstractorLayers(nn.Module):
    def __init__(self, settings: AbstractorSettings) -> None:
        super().__init__()
        self.layers = nn.ModuleList(AbstractorLayer(settings) for _ in range(settings.num_hidden_layers))

    def forward(self, queries: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            queries = layer(queries, tokens)
        return queries


class Abstractor(nn.Module):
    """Vision tokens (N, T, width) to image tokens (N, queries + 1, width of the language model)."""

    def __init__(self, settings: AbstractorSettings, language_width: int) -> None:
        super().__init__()
        self.query_embeds = nn.Parameter(torch.zeros(1, settings.num_learnable_queries, settings.hidden_size))
        self.vit_eos = nn.Parameter(torch.zeros(1, 1, language_width))
        self.encoder = AbstractorLayers(settings)
        self.visual_fc = nn.Linear(settings.hidden_size, language_width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        count = len(tokens)
        queries = self.encoder(self.query_embeds.expand(count, -1, -1), tokens)
        return torch.cat([self.visual_fc(queries), self.vit_eos.expand(count, -1, -1)], dim=1)
