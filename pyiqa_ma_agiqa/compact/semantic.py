"""Semantic encoder: the CLIP ViT-B/16 image tower, summed up at every second block."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

ARCHITECTURE = "vit_base_patch16_clip_quickgelu_224"
DEPTHS = (2, 4, 6, 8, 10, 12)
"""Blocks after which the tokens are summed up."""
EARLY_AND_MIDDLE = 4
"""How many of `DEPTHS` speak of quality; the others, late ones, speak of meaning."""

WIDTH = 768
LATE = len(DEPTHS) - EARLY_AND_MIDDLE
CONTENT, COHERENCE, QUALITY = LATE * WIDTH, LATE * 2 * WIDTH, EARLY_AND_MIDDLE * 3 * WIDTH
"""How many numbers each expert reads of a summary."""


class SemanticEncoder(nn.Module):
    """CLIP ViT-B/16 image tower (Radford et al., ICML 2021), without its projection.

    At each depth the tokens are summed up by three vectors: the class token, which stands for
    the whole content, and the mean and the standard deviation of the patch tokens, which stand
    for what the parts have in common and how far they differ.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tower: Any = timm.create_model(
            ARCHITECTURE, pretrained=False, num_classes=0, dynamic_img_size=True
        )
        self.tower.norm = nn.Identity()

    def forward(self, view: torch.Tensor) -> torch.Tensor:
        """Sum up the tokens.

        Args:
            view: (N, 3, 16a, 16b), CLIP-normalised.

        Returns:
            (N, 6, 3, 768) float32: depth, (class token, patch mean, patch deviation), width.
        """
        tower = self.tower
        tokens = tower.norm_pre(tower._pos_embed(tower.patch_embed(view)))
        summaries = []
        for depth, block in enumerate(tower.blocks, start=1):
            tokens = block(tokens)
            if depth in DEPTHS:
                patches = tokens[:, 1:].float()
                summaries.append(torch.stack([tokens[:, 0].float(), patches.mean(1), patches.std(1)], dim=1))
        return torch.stack(summaries, dim=1)


def split_summary(summary: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What each expert reads.

    Args:
        summary: (N, 6, 3, 768) of `SemanticEncoder`.

    Returns:
        Semantic content (N, 1536): class tokens of the late blocks. Coherence (N, 3072): patch
        mean and deviation of the late blocks. Quality (N, 9216): all of the other blocks.
    """
    late = summary[:, EARLY_AND_MIDDLE:]
    return late[:, :, 0].flatten(1), late[:, :, 1:].flatten(1), summary[:, :EARLY_AND_MIDDLE].flatten(1)
