"""The language model of mPLUG-Owl2: LLaMA whose norms, keys and values know text from image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
)

from .abstractor import Abstractor
from .config import MPlugOwl2Config
from .vision import VisionTower, join_heads, split_heads

KeysValues = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, each (rows, heads, tokens, head_dim), keys already rotated."""


class Multiway(nn.Module):
    """Two modules of one kind: the first for text tokens, the second for image tokens.

    The image tokens of a sequence are one run, so each module sees its own tokens and no others.
    """

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.multiway = nn.ModuleList([make(), make()])

    def forward(self, tokens: torch.Tensor, image: slice) -> torch.Tensor:
        """Apply them to (rows, T, width), of which the tokens in the slice are image tokens."""
        for_text, for_image = self.multiway
        before, within, after = tokens[:, : image.start], tokens[:, image], tokens[:, image.stop :]
        if within.shape[1] == 0:
            return for_text(tokens)
        # Of tokens that are not contiguous, a Linear on the CPU copies its matrix for every row.
        within = within.contiguous()
        if before.shape[1] == 0:
            parts = [for_image(within), for_text(after.contiguous())]
        else:
            text = for_text(torch.cat([before, after], dim=1))
            parts = [text[:, : image.start], for_image(within), text[:, image.start :]]
        return torch.cat(parts, dim=1)


class MultiwayAttention(LlamaAttention):
    """LLaMA's attention with two matrices each for keys and values."""

    def __init__(self, config: MPlugOwl2Config, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        width = self.k_proj.out_features
        for name in ("k_proj", "v_proj"):
            setattr(self, name, Multiway(lambda: nn.Linear(config.hidden_size, width, bias=False)))

    def forward(  # type: ignore[override]
        self,
        tokens: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor],
        image: slice,
        past: KeysValues | None,
        mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, KeysValues]:
        """Attend; also the keys and values of these tokens. Without a mask, causal and without a past."""
        query, key = apply_rotary_pos_emb(
            split_heads(self.q_proj(tokens), self.head_dim),
            split_heads(self.k_proj(tokens, image), self.head_dim),
            *rotation,
        )
        value = split_heads(self.v_proj(tokens, image), self.head_dim)
        own = key, value
        if past is not None:
            repeats = len(key) // len(past[0])
            key, value = (
                torch.cat([old.repeat(repeats, 1, 1, 1), new], dim=2)
                for old, new in zip(past, own, strict=True)
            )
        attended = F.scaled_dot_product_attention(
            query, key, value, mask, is_causal=mask is None, enable_gqa=self.num_key_value_groups > 1
        )
        return self.o_proj(join_heads(attended)), own


class MultiwayLayer(LlamaDecoderLayer):
    """LLaMA's decoder layer with two norms each before attention and MLP."""

    def __init__(self, config: MPlugOwl2Config, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.self_attn = MultiwayAttention(config, layer_idx)
        for name in ("input_layernorm", "post_attention_layernorm"):
            setattr(self, name, Multiway(lambda: LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)))

    def forward(  # type: ignore[override]
        self,
        tokens: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor],
        image: slice,
        past: KeysValues | None = None,
        mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, KeysValues]:
        attended, own = self.self_attn(self.input_layernorm(tokens, image), rotation, image, past, mask)
        tokens = tokens + attended
        return tokens + self.mlp(self.post_attention_layernorm(tokens, image)), own


class MultiwayLlama(nn.Module):
    """The language model, and with it, as in the published layout, the two visual parts."""

    def __init__(self, config: MPlugOwl2Config) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(MultiwayLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = LlamaRotaryEmbedding(config)
        self.vision_model = VisionTower(config.visual_model)
        self.visual_abstractor = Abstractor(config.visual_abstractor, config.hidden_size)

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        image: slice,
        past: list[KeysValues] | None = None,
        mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, list[KeysValues]]:
        """Run embedded tokens through all layers.

        Args:
            tokens: (rows, T, width).
            positions: (1 or rows, T), the place of each token in its own sequence.
            image: which of the T tokens are image tokens.
            past: for each layer, keys and values of what came before; their rows are repeated to fit.
            mask: (rows, 1, T_past + T), boolean, what each token attends to; ``None`` is causal and
                without a past.

        Returns:
            Hidden states after the final norm (rows, T, width), and each layer's keys and values.
        """
        rotation = self.rotary_emb(tokens, positions)
        kept = []
        for index, layer in enumerate(self.layers):
            tokens, own = layer(tokens, rotation, image, past[index] if past else None, mask)
            kept.append(own)
        return self.norm(tokens), kept
