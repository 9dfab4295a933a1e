"""The same steps in floats, with the same weights and without any rounding: for gradients alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from .layers import EPSILON, MIDDLE, QuantisedConvolution, QuantisedLinear

dense = F.linear


def mean(values: torch.Tensor, dim: int | tuple[int, ...]) -> torch.Tensor:
    return values.mean(dim)


def total(values: torch.Tensor, dim: int) -> torch.Tensor:
    return values.sum(dim)


def deviation(values: torch.Tensor, average: torch.Tensor, dim: int) -> torch.Tensor:
    return values.std(dim)


def pixels(view: torch.Tensor) -> torch.Tensor:
    return view * 255


def in_pieces(steps: Callable[..., torch.Tensor], *values: torch.Tensor) -> torch.Tensor:
    return steps(*values)


def linear(layer: QuantisedLinear, values: torch.Tensor) -> torch.Tensor:
    return F.linear(values, layer.matrix(), layer.bias)


def project(layer: QuantisedLinear, values: torch.Tensor) -> torch.Tensor:
    return F.linear(values, layer.matrix())


def linear_of_levels(layer: QuantisedLinear, levels: torch.Tensor) -> torch.Tensor:
    return linear(layer, levels - MIDDLE)


def normalise(tokens: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return F.layer_norm(tokens, tokens.shape[-1:], weight, bias, EPSILON)


def silu(values: torch.Tensor) -> torch.Tensor:
    return F.silu(values)


def attend(query_key_value: torch.Tensor) -> torch.Tensor:
    mixed = F.scaled_dot_product_attention(*query_key_value.permute(2, 0, 3, 1, 4))
    return mixed.transpose(1, 2).flatten(2)


def levels(values: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return values * factor.view(-1, 1, 1) + MIDDLE


def image_levels(view: torch.Tensor) -> torch.Tensor:
    return pixels(view).contiguous(memory_format=torch.channels_last)


def convolve(layer: QuantisedConvolution, inputs: torch.Tensor, outside: int = 0) -> torch.Tensor:
    left, right, top, bottom = layer.padding(*inputs.shape[2:])
    padded = F.pad(inputs, (left, right, top, bottom), value=outside)
    result = F.conv2d(padded, layer.matrix(), layer.bias, layer.stride, 0, 1, layer.groups)
    return result.clamp(0, 255) if layer.saturates else result


def features(result: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    return result * step.view(-1, 1, 1)
