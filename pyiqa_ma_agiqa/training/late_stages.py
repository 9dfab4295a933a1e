"""The late stages of the quality branch as they are trained: the same in a fraction of a CPU's time."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..compact.arithmetic.machine import processor_has
from .device import DEVICE

SIXTEEN_BITS = DEVICE.type == "cuda" or processor_has("amx_bf16", "avx512_bf16")
"""Whether the machine multiplies bfloat16 faster than float32."""
HIGHEST = 6.0
"""Of ReLU6."""
AT_ONCE = 8
"""Crops whose feature maps stay in a processor's caches."""


def late_stages(network: Any, seen: torch.Tensor, stages: int) -> torch.Tensor:
    """Mean features, as all but the first stages of EfficientNet-Lite0 make them of what those have made.

    Normalisation, which always uses its running statistics, is multiplied into the map before it, so that
    there are few passes over the feature maps. Channels lie last in memory.

    Args:
        network: timm's; its depthwise filters are not trained.
        seen: (N, C, h, w).
        stages: how many have been passed.

    Returns:
        (N, 1280), of the same type; computed in bfloat16 where that is faster.
    """
    if not stages:  # the first is built otherwise
        seen, stages = network.blocks[0](seen), 1
    kind = torch.bfloat16 if SIXTEEN_BITS else seen.dtype
    blocks = [_Folded(block, kind) for stage in network.blocks[stages:] for block in stage]
    head = _affine(network.conv_head, network.bn2, kind)
    means = []
    for piece in seen.split(AT_ONCE):
        features = piece.permute(0, 2, 3, 1).to(kind).contiguous()
        for block in blocks:
            features = block(features)
        means.append(_Pointwise.apply(features, *head).mean((1, 2), dtype=seen.dtype))
    return torch.cat(means)


class _Folded:
    """An inverted residual with its normalisations multiplied into its maps."""

    def __init__(self, block: Any, kind: torch.dtype) -> None:
        self.widen = _affine(block.conv_pw, block.bn1, kind)
        self.spread = (block.conv_dw.weight, *_factor_and_offset(block.bn2), block.conv_dw.stride[0])
        self.narrow = _affine(block.conv_pwl, block.bn3, kind)
        self.has_skip = block.has_skip

    def __call__(self, seen: torch.Tensor) -> torch.Tensor:
        """(N, h, w, C) to the same, or to fewer and other channels."""
        wide = _Pointwise.apply(seen, *self.widen)
        narrow = F.linear(_Depthwise.apply(wide, *self.spread), *self.narrow)
        return narrow + seen if self.has_skip else narrow


def _factor_and_offset(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """What a normalisation multiplies by and adds, (C,) each."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return factor, norm.bias - norm.running_mean * factor


def _affine(
    convolution: nn.Conv2d, norm: nn.BatchNorm2d, kind: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrix and offset of a 1x1 convolution and its normalisation."""
    factor, offset = _factor_and_offset(norm)
    return (convolution.weight.flatten(1) * factor[:, None]).to(kind), offset.to(kind)


def _through_relu6(gradient: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    return torch.ops.aten.hardtanh_backward(gradient.contiguous(), result, 0.0, HIGHEST)


class _Pointwise(torch.autograd.Function):
    """ReLU6 of a linear map of the channels."""

    @staticmethod
    def forward(ctx: Any, seen: torch.Tensor, matrix: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        result = F.linear(seen, matrix, offset).clamp_(0, HIGHEST)
        ctx.save_for_backward(seen, matrix, result)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        seen, matrix, result = ctx.saved_tensors
        gradient = _through_relu6(gradient, result).flatten(0, 2)
        of_matrix = gradient.t() @ seen.flatten(0, 2)
        return (gradient @ matrix).view_as(seen), of_matrix, gradient.sum(0)


class _Depthwise(torch.autograd.Function):
    """ReLU6 of a depthwise convolution, padded as TensorFlow does, and its normalisation.

    The filters have no gradient. So that of the input is a convolution with the mirrored filters, which is
    several times as fast as the library's own.
    """

    @staticmethod
    def forward(
        ctx: Any,
        seen: torch.Tensor,
        filters: torch.Tensor,
        factor: torch.Tensor,
        offset: torch.Tensor,
        stride: int,
    ) -> torch.Tensor:
        filters, factor, offset = (value.to(seen.dtype) for value in (filters, factor, offset))
        ctx.stride, ctx.shape, side = stride, seen.shape, filters.shape[2]
        over = [max((-(-length // stride) - 1) * stride + side - length, 0) for length in seen.shape[1:3]]
        ctx.before = [more // 2 for more in over]
        seen = seen.permute(0, 3, 1, 2)
        if stride == 1:
            padding = ctx.before
        else:
            (top, left), padding = ctx.before, [0, 0]
            seen = F.pad(seen, (left, over[1] - left, top, over[0] - top))
        plain = F.conv2d(seen, filters, None, stride, padding, groups=len(filters))
        plain = plain.permute(0, 2, 3, 1).contiguous()
        result = torch.addcmul(offset, plain, factor).clamp_(0, HIGHEST)
        ctx.save_for_backward(plain, result, filters, factor)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        plain, result, filters, factor = ctx.saved_tensors
        gradient = _through_relu6(gradient, result)
        of_offset = gradient.flatten(0, 2).sum(0)
        of_factor = (gradient * plain).flatten(0, 2).sum(0)
        side, (top, left) = filters.shape[2], ctx.before
        if ctx.stride > 1:
            count, height, width, channels = ctx.shape
            # Each output stands where the first of the pixels stands that it was made of, zeros between.
            spread = gradient.new_zeros(count, height + side - 1, width + side - 1, channels)
            spread[:, side - 1 - top :: ctx.stride, side - 1 - left :: ctx.stride][
                :, : gradient.shape[1], : gradient.shape[2]
            ] = gradient
            gradient, padding = spread, 0
        else:
            padding = side // 2
        mirrored = (filters * factor.view(-1, 1, 1, 1)).flip(2, 3)
        of_input = F.conv2d(gradient.permute(0, 3, 1, 2), mirrored, padding=padding, groups=len(filters))
        return of_input.permute(0, 2, 3, 1), None, of_factor, of_offset, None
