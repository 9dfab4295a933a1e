"""The networks in floats, as they are published and trained, before they are rounded to integers."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

TOWER = "vit_base_patch16_clip_quickgelu_224"
BRANCH = "tf_efficientnet_lite0"
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def float_tower() -> Any:
    """timm's CLIP ViT-B/16 image tower, without its projection, with random weights."""
    tower: Any = timm.create_model(TOWER, pretrained=False, num_classes=0, dynamic_img_size=True)
    tower.norm = nn.Identity()
    return tower.eval()


def normalised(view: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) in [0, 1] as the float tower takes it."""
    mean, deviation = view.new_tensor(CLIP_MEAN), view.new_tensor(CLIP_STD)
    return (view - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)


class FloatBranch(nn.Module):
    """EfficientNet-Lite0 without its classifier; keeps its feature map.

    Batch normalisation always uses its running statistics, so an image's features do
    not depend on what else is in the batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.network: Any = timm.create_model(BRANCH, pretrained=False, num_classes=0, global_pool="")
        self.network.to(memory_format=torch.channels_last)
        self.train(False)

    def train(self, mode: bool = True) -> FloatBranch:
        super().train(mode)
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, view: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W), RGB in [0, 1], to (N, 1280, ceil(H / 32), ceil(W / 32))."""
        return self.rest(self.first(view, 0), 0)

    def first(self, view: torch.Tensor, stages: int) -> torch.Tensor:
        """What the stem and so many stages (of 7) make of (N, 3, H, W), RGB in [0, 1]."""
        result = (2 * view - 1).contiguous(memory_format=torch.channels_last)
        result = self.network.bn1(self.network.conv_stem(result))
        return self.network.blocks[:stages](result)

    def rest(self, features: torch.Tensor, stages: int) -> torch.Tensor:
        """What the other stages make of what the first ones have made."""
        result = self.network.blocks[stages:](features.contiguous(memory_format=torch.channels_last))
        return self.network.bn2(self.network.conv_head(result))

    def layers(self) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        """Convolutions and the normalisations behind them, in the order of the data."""
        modules = list(self.network.modules())
        return list(
            zip(
                (module for module in modules if isinstance(module, nn.Conv2d)),
                (module for module in modules if isinstance(module, nn.BatchNorm2d)),
                strict=True,
            )
        )
