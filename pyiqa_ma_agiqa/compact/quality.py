"""Quality branch: a small convolutional network on native-resolution pixels."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

ARCHITECTURE = "tf_efficientnet_lite0"


class QualityBranch(nn.Module):
    """EfficientNet-Lite0 without its classifier; keeps its feature map.

    Reference: Liu et al., *Higher accuracy on vision models with EfficientNet-Lite*, 2020.
    Batch normalisation always uses its running statistics, so an image's features do
    not depend on what else is in the batch.
    """

    width = 1280

    def __init__(self) -> None:
        super().__init__()
        self.network: Any = timm.create_model(ARCHITECTURE, pretrained=False, num_classes=0, global_pool="")
        self.network.to(memory_format=torch.channels_last)
        self.train(False)

    def train(self, mode: bool = True) -> QualityBranch:
        super().train(mode)
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features per patch.

        Args:
            pixels: (N, 3, H, W), RGB in [0, 1].

        Returns:
            (N, 1280, ceil(H / 32), ceil(W / 32)).
        """
        return self.network((2 * pixels - 1).contiguous(memory_format=torch.channels_last))
