"""Quality branch of the published system: ViT-B/8, transposed attention, two Swin stages."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .resize import opencv_bicubic
from .swin import SwinStage
from .transposed_attention import TransposedAttention
from .windows import GRID

SIDE = 224
"""Every image is resized to this side squared, aspect ratio not kept."""
PATCH = SIDE // GRID
PATCHES = GRID**2
WIDTH = 768
NARROW = 384
"""Channels of the second Swin stage and the heads."""
TAPPED = 4
"""The last so many of the tower's blocks are read."""
DEPTH = 10
"""Blocks of the tower that count; the published file holds 12."""
ATTENTIONS = 2
"""Transposed-attention blocks before each Swin stage."""
DROPOUT = 0.1


class Tower(VisionTransformer):
    """The first ten blocks of ViT-B/8 (Dosovitskiy et al., ICLR 2021), read at the last four."""

    def __init__(self) -> None:
        super().__init__(
            img_size=SIDE, patch_size=PATCH, depth=DEPTH, num_classes=0, global_pool="", final_norm=False
        )

    def forward(self, view: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """(N, 3, 224, 224) in [-1, 1] to the patch tokens of blocks 6 to 9, (N, 3072, 784)."""
        tokens = self._pos_embed(self.patch_embed(view))
        tapped = []
        for i, block in enumerate(self.blocks):
            tokens = block(tokens)
            if i >= DEPTH - TAPPED:
                tapped.append(tokens[:, 1:].transpose(1, 2))
        return torch.cat(tapped, dim=1)


class ChannelMix(nn.Conv2d):
    """A 1 x 1 convolution as one matrix product, whose result has the channels last in memory."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(channels, out_channels, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels, 784) to (N, out_channels, 28, 28)."""
        tokens = nn.functional.linear(x.transpose(1, 2), self.weight.flatten(1), self.bias)
        return tokens.transpose(1, 2).unflatten(2, (GRID, GRID))


def head(last: nn.Module) -> nn.Sequential:
    """One number for each patch, (N, 784, 384) to (N, 784, 1)."""
    return nn.Sequential(
        nn.Linear(NARROW, NARROW), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(NARROW, 1), last
    )


def transposed_attentions() -> nn.Sequential:
    return nn.Sequential(*[TransposedAttention(PATCHES) for _ in range(ATTENTIONS)])


class QualityBranch(nn.Module):
    """Quality of each of the 28 x 28 patches of an image.

    Parameter names are those of the published file. Training drops out 0.1 of the values in the
    attention blocks, before each Swin stage and in the heads, and up to 0.1 of the Swin blocks.

    Reference: Wang et al., ACM MM 2024, section 3.2; the design is that of MANIQA (Yang et al.,
    CVPR Workshops 2022), without its crops.
    """

    def __init__(self) -> None:
        super().__init__()
        self.vit = Tower()
        self.tablock1 = transposed_attentions()
        self.conv1 = ChannelMix(TAPPED * WIDTH, WIDTH)
        self.swintransformer1 = SwinStage(WIDTH)
        self.tablock2 = transposed_attentions()
        self.conv2 = ChannelMix(WIDTH, NARROW)
        self.swintransformer2 = SwinStage(NARROW)
        self.fc_score = head(nn.ReLU())
        self.fc_weight = head(nn.Sigmoid())

    def patch_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Backbone: (N, 3, H, W) in [0, 1] to (N, 784, 384)."""
        view = (opencv_bicubic(pixels, (SIDE, SIDE)) - 0.5) / 0.5
        x = self.conv1(self.tablock1(self.vit(view)))
        x = self.swintransformer1(x)
        x = self.conv2(self.tablock2(x.flatten(2)))
        return self.swintransformer2(x).flatten(2).transpose(1, 2)

    def patch_quality(self, features: torch.Tensor) -> torch.Tensor:
        """Score times weight of each patch, (N, 784, 384) to (N, 784), row by row."""
        return (self.fc_score(features) * self.fc_weight(features)).squeeze(2)
