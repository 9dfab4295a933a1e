"""Quality branch: a small convolutional network in integers on native-resolution pixels."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import torch
from torch import nn

from .arithmetic import integers
from .arithmetic.layers import MIDDLE, QuantisedConvolution

STAGES = (
    # channels, blocks, kernel side, stride of the first block
    (16, 1, 3, 1),
    (24, 2, 3, 2),
    (40, 2, 5, 2),
    (80, 3, 3, 2),
    (112, 3, 5, 1),
    (192, 4, 5, 2),
    (320, 1, 3, 1),
)
STEM = 32
EXPANSION = 6


class Layer(NamedTuple):
    """A convolution of the branch, and what its input is multiplied by to become levels, unless it is."""

    convolution: QuantisedConvolution
    factor: torch.Tensor | None


class InvertedResidual(nn.Module):
    """Expand, filter each channel by itself, project; added to the input where the shapes allow it.

    Activations are levels from 0 to 255: what lies outside is cut, which is ReLU6 of the float network.
    """

    factor: torch.Tensor

    def __init__(self, inputs: int, outputs: int, side: int, stride: int) -> None:
        super().__init__()
        wide = EXPANSION * inputs
        self.residual = stride == 1 and inputs == outputs
        self.register_buffer("factor", torch.full((inputs,), 16.0))
        self.expand = QuantisedConvolution(inputs, wide, True)
        self.filter = QuantisedConvolution(wide, wide, True, side, stride, groups=wide)
        self.project = QuantisedConvolution(wide, outputs, False)

    def in_order(self) -> list[Layer]:
        """The convolutions in the order of the data."""
        return [Layer(self.expand, self.factor), Layer(self.filter, None), Layer(self.project, None)]

    def forward(self, values: torch.Tensor, steps: ModuleType = integers) -> torch.Tensor:
        """(N, inputs, H, W) to (N, outputs, ceil(H / stride), ceil(W / stride))."""
        wide = steps.convolve(self.expand, steps.levels(values, self.factor))
        wide = steps.convolve(self.filter, wide)
        projected = steps.convolve(self.project, wide)
        return values + projected if self.residual else projected


class QualityBranch(nn.Module):
    """EfficientNet-Lite0 without its classifier, batch normalisation folded in; keeps its feature map.

    Reference: Liu et al., *Higher accuracy on vision models with EfficientNet-Lite*, 2020.
    """

    width = 1280
    factor: torch.Tensor
    step: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = QuantisedConvolution(3, STEM, True, side=3, stride=2)
        first, *others = STAGES
        self.filter = QuantisedConvolution(STEM, STEM, True, side=first[2], groups=STEM)
        self.project = QuantisedConvolution(STEM, first[0], False)
        blocks, inputs = [], first[0]
        for outputs, count, side, stride in others:
            for number in range(count):
                blocks.append(InvertedResidual(inputs, outputs, side, stride if number == 0 else 1))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.register_buffer("factor", torch.full((inputs,), 16.0))
        self.head = QuantisedConvolution(inputs, self.width, True)
        self.register_buffer("step", torch.full((self.width,), 6 / 255))

    def in_order(self) -> list[Layer]:
        """The convolutions in the order of the data."""
        first = [Layer(self.stem, None), Layer(self.filter, None), Layer(self.project, None)]
        blocks = [layer for block in self.blocks for layer in block.in_order()]  # type: ignore[operator]
        return [*first, *blocks, Layer(self.head, self.factor)]

    def forward(self, view: torch.Tensor, steps: ModuleType = integers) -> torch.Tensor:
        """Features per patch.

        Args:
            view: (N, 3, H, W), RGB in [0, 1].
            steps: module `integers`, or `floats` for a gradient.

        Returns:
            (N, 1280, ceil(H / 32), ceil(W / 32)), at least 0.
        """
        result = steps.convolve(self.stem, steps.image_levels(view), outside=MIDDLE)
        result = steps.convolve(self.filter, result)
        result = steps.convolve(self.project, result)
        for block in self.blocks:
            result = block(result, steps)
        result = steps.convolve(self.head, steps.levels(result, self.factor))
        return steps.features(result, self.step)
