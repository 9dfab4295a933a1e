"""Linear maps and convolutions whose weights are integers of 8 bits with a scale for each output."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from . import machine

EPSILON = 1e-5
"""Of layer normalisation."""
LARGEST = 127
"""The largest integer of a weight, in size."""
EXACT = 2**24
"""Every whole number up to this one is a float32."""
UNPACKED = 8
"""Products with a matrix before it is worth packing."""
MIDDLE = 128
"""The level (0 to 255) that stands for zero where values have a sign."""


def quantise(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix as integers and one scale for each row: matrix ≈ integers * scale.

    Args:
        matrix: (rows, ...), float.

    Returns:
        Integers int8 of the matrix's shape, within -127 to 127, and scales (rows,) float32.
    """
    rows = matrix.detach().float().flatten(1)
    scale = rows.abs().amax(1).clamp_min(1e-12) / LARGEST
    return whole(rows, scale).reshape(matrix.shape), scale


def whole(rows: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Rows (rows, n) as integers int8 of scales (rows,)."""
    return (rows / scale[:, None]).round().clamp(-LARGEST, LARGEST).to(torch.int8)


class _Packs(nn.Module):
    """Keeps a weight as the processor's own products want it, packed once."""

    weight: torch.Tensor
    groups = 1

    def __init__(self) -> None:
        super().__init__()
        self._packed: tuple[Any, Any] = (None, None)

    def packed(self) -> torch.Tensor:
        """The weight as the processor wants it."""
        key = (self.weight, -1 if self.weight.is_inference() else self.weight._version)
        if self._packed[0] is None or self._packed[0][0] is not key[0] or self._packed[0][1] != key[1]:
            self._packed = key, machine.pack(self.weight, self.groups)
        return self._packed[1]

    def _load_from_state_dict(self, *arguments: Any) -> None:
        # Tensors of inference mode do not count their changes.
        self._packed = (None, None)
        super()._load_from_state_dict(*arguments)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_packed": (None, None)}


class QuantisedLinear(_Packs):
    r"""Linear map :math:`y = s \odot (W x) + b` with a matrix of integers.

    Without values until they are drawn, set or loaded. Buffers: ``weight`` (out, in) int8, ``scale``
    (out,), ``bias`` (out,).

    Args:
        inputs: a multiple of 8.
    """

    weight: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(outputs, inputs, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(outputs))
        self.register_buffer("bias", torch.empty(outputs))
        self._products = 0

    def draw(self) -> None:
        """Take random values, with which outputs vary as inputs do."""
        # Random bits, eight integers at once, take less time than a bell curve.
        self.weight.view(torch.int64).random_(-(2**63), None)
        self.weight.clamp_(-LARGEST)
        self.scale.fill_(math.sqrt(3 / self.weight.shape[1]) / LARGEST)
        self.bias.zero_()

    def set(self, matrix: torch.Tensor, bias: torch.Tensor) -> None:
        """Take over the nearest integers of a matrix (out, in), and a bias (out,)."""
        self.weight, self.scale = quantise(matrix)
        self.bias = bias.detach().float().clone()

    def product(self, whole: torch.Tensor) -> torch.Tensor:
        """W x for rows x (M, in) of whole numbers from -128 to 127, as floats: (M, out), exact."""
        # Packing takes as long as some products gain by it: too long for one image.
        self._products += 1
        if self._products > UNPACKED and machine.gains_by_packing(whole.device):
            return machine.packed_product(whole, self.packed(), len(self.weight))
        return machine.integer_product(whole, self.weight)

    def matrix(self) -> torch.Tensor:
        """(out, in) float32."""
        return self.weight.float() * self.scale[:, None]


class QuantisedConvolution(_Packs):
    r"""Convolution :math:`y = s \odot (W * x) + b` of levels, whole numbers from 0 to 255.

    Where y is to be levels again, the scales have so few digits, and the biases are whole multiples of
    them, that y is a float without any rounding, in whatever order it is computed. Zero padding is level 0.

    Without values until they are drawn, set or loaded. Buffers: ``weight`` (out, in / groups, k, k) int8,
    ``scale`` (out,), ``bias`` (out,).

    Args:
        saturates: whether y is cut to levels; else it is values.
    """

    weight: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor

    def __init__(
        self, inputs: int, outputs: int, saturates: bool, side: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.saturates, self.side, self.stride, self.groups = saturates, side, stride, groups
        self.register_buffer("weight", torch.empty(outputs, inputs // groups, side, side, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(outputs))
        self.register_buffer("bias", torch.empty(outputs))

    def draw(self) -> None:
        """Take random values, with which outputs vary as inputs do."""
        matrix = torch.randn(self.weight.shape) / math.sqrt(self.weight[0].numel())
        self.set(matrix if self.saturates else matrix / MIDDLE, torch.zeros(len(matrix)))

    def set(self, matrix: torch.Tensor, bias: torch.Tensor) -> None:
        """Take over the nearest integers of a matrix (out, in / groups, k, k), and a bias (out,).

        Raises:
            ValueError: a sum over levels could pass what a float32 holds exactly.
        """
        self.weight, self.scale = quantise(matrix)
        if self.saturates:
            reach = self.weight.float().abs().flatten(1).sum(1) * 255 + bias.abs() / self.scale
            digit = torch.exp2(torch.ceil(torch.log2(self.scale * reach / (EXACT / 2))))
            self.scale = torch.ceil(self.scale / digit) * digit
            self.weight = whole(matrix.detach().float().flatten(1), self.scale).reshape(matrix.shape)
            self.bias = (bias.detach().float() / self.scale).round() * self.scale
            exact = (self.weight.float().abs().flatten(1).sum(1) * 255 * self.scale + self.bias.abs()) / digit
        else:
            self.bias = bias.detach().float().clone()
            exact = self.weight.float().abs().flatten(1).sum(1) * 255
        if (exact >= EXACT).any():
            raise ValueError("the sums of a convolution could pass 2^24, up to which they are exact")

    def matrix(self) -> torch.Tensor:
        """(out, in / groups, k, k) float32."""
        return self.weight.float() * self.scale.view(-1, 1, 1, 1)

    def padding(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Left, right, top and bottom, as TensorFlow's SAME: outputs are ceil(side / stride)."""
        across, down = (
            max((math.ceil(size / self.stride) - 1) * self.stride + self.side - size, 0)
            for size in (width, height)
        )
        return across // 2, across - across // 2, down // 2, down - down // 2
