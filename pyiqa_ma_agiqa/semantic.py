"""Semantic encoder: the CLIP ViT-B/16 image tower, read by two learned prompt queries."""

from __future__ import annotations

from typing import Any, NamedTuple

import timm
import torch
from torch import nn

ARCHITECTURE = "vit_base_patch16_clip_quickgelu_224"
EARLY, MIDDLE = 4, 8
"""Blocks after which early and middle tokens are read; blocks past the middle are trained."""


class Tokens(NamedTuple):
    """What the tower hands on.

    Attributes:
        patch_statistics: (N, 3072), mean and standard deviation over the patch tokens after
            block 4, then the same after block 8.
        late: (N, 1 + patches, 768), class and patch tokens after the last block and norm.
    """

    patch_statistics: torch.Tensor
    late: torch.Tensor


class SemanticEncoder(nn.Module):
    """CLIP ViT-B/16 image tower (Radford et al., ICML 2021), without its projection."""

    width = 768
    statistics = 4 * width

    def __init__(self) -> None:
        super().__init__()
        self.tower: Any = timm.create_model(
            ARCHITECTURE, pretrained=False, num_classes=0, dynamic_img_size=True
        )

    def forward(self, view: torch.Tensor) -> Tokens:
        """(N, 3, 16a, 16b), CLIP-normalised, to early, middle and late tokens."""
        tokens, statistics = self.lower(view)
        return Tokens(statistics, self.upper(tokens))

    def lower(self, view: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The frozen part: tokens after block 8 (N, 1 + ab, 768) and patch statistics (N, 3072)."""
        tower = self.tower
        tokens = tower.norm_pre(tower._pos_embed(tower.patch_embed(view)))
        statistics = []
        for depth, block in enumerate(tower.blocks[:MIDDLE], start=1):
            tokens = block(tokens)
            if depth in (EARLY, MIDDLE):
                patches = tokens[:, 1:].float()
                statistics += [patches.mean(1), patches.std(1)]
        return tokens, torch.cat(statistics, dim=1)

    def upper(self, tokens: torch.Tensor) -> torch.Tensor:
        """The fine-tuned part: tokens after block 8 to late tokens, same shape."""
        for block in self.tower.blocks[MIDDLE:]:
            tokens = block(tokens)
        return self.tower.norm(tokens)


class PromptQueries(nn.Module):
    """Two learned queries, semantic content and coherence, that attend over the late tokens.

    They stand where the published system has two text prompts (paper section 3.2).
    """

    def __init__(self, width: int = SemanticEncoder.width, heads: int = 12) -> None:
        super().__init__()
        self.queries = nn.Parameter(0.02 * torch.randn(2, width))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, late: torch.Tensor) -> torch.Tensor:
        """(N, tokens, 768) to semantic vectors (N, 2, 768): semantic content, coherence."""
        queries = self.queries.expand(len(late), -1, -1)
        return self.attention(queries, late, late, need_weights=False)[0]
