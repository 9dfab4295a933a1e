"""Float networks to networks in integers, with what calibration images tell of the values in them.

Values that differ much from channel to channel round badly. So each linear map gets its inputs divided
by a factor for each channel, and its matrix multiplied by it (Xiao et al., *SmoothQuant*, ICML 2023):

.. math:: s_c = \\frac{\\max|x_c|^\\alpha}{\\max|W_c|^{1 - \\alpha}}

The factors go into what is in front of the map wherever that is linear. All of it is done here, when a
weights file is made, and nothing of it when one is used. The tower is rounded by what float64 says of the
calibration images, so that every machine makes the same integers of it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ..compact.arithmetic.layers import MIDDLE
from ..compact.quality import QualityBranch
from ..compact.semantic import WIDTH, Block, SemanticEncoder
from .float_networks import CLIP_MEAN, CLIP_STD, FloatBranch, normalised

ALPHA = 0.7
"""How far the unevenness of values goes into the matrix, 0 to 1."""
GELU = 1.702
"""CLIP's GELU is x sigmoid(1.702 x)."""
LARGEST_ACTIVATION = 6.0
"""Of ReLU6."""
HEADROOM = 1.2
"""How far values of other images may go beyond those of the calibration images."""
SMALLEST = 1e-4
"""Channels and columns that are smaller count as this large."""


class _Extremes:
    """Smallest and largest value of each channel that a module takes in or gives out."""

    def __init__(self, module: nn.Module, channel: int, of_output: bool = False) -> None:
        self.channel = channel
        self.low: Any = None
        self.high: Any = None
        if of_output:
            self.hook = module.register_forward_hook(lambda _, __, output: self._see(output))
        else:
            self.hook = module.register_forward_pre_hook(lambda _, inputs: self._see(inputs[0]))

    def _see(self, values: torch.Tensor) -> None:
        others = [number for number in range(values.dim()) if number != self.channel % values.dim()]
        low, high = values.amin(others), values.amax(others)
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)

    def size(self, centre: torch.Tensor | float = 0.0) -> torch.Tensor:
        return torch.maximum((self.low - centre).abs(), (self.high - centre).abs())


def _factors(largest: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    columns = matrix.abs().amax(0).clamp_min(SMALLEST)
    return largest.clamp_min(SMALLEST) ** ALPHA / columns ** (1 - ALPHA)


@torch.no_grad()
def integer_tower(tower: Any, views: Iterable[torch.Tensor]) -> SemanticEncoder:
    """The semantic encoder that a float tower becomes.

    Args:
        tower: of `float_tower`.
        views: calibration images as `encoder_view` gives them, each (N, 3, 16a, 16b).
    """
    encoder, tower = SemanticEncoder(), copy.deepcopy(tower).double()
    mean, deviation = torch.tensor(CLIP_MEAN).double(), torch.tensor(CLIP_STD).double()
    by_colour = tower.patch_embed.proj.weight / deviation.view(3, 1, 1)
    matrix = by_colour.flatten(1) / 255
    # A level is 255 * pixel; the linear map takes levels less their middle.
    offset = matrix.sum(1) * MIDDLE - (by_colour * mean.view(3, 1, 1)).sum((1, 2, 3))
    encoder.patches.set(matrix, offset)
    positions = tower.pos_embed[0].float()
    encoder.class_token = (tower.cls_token[0, 0].float() + positions[0]).clone()
    encoder.positions = positions[1:].t().reshape(encoder.positions.shape).clone()
    encoder.norm_weight = tower.norm_pre.weight.detach().float()
    encoder.norm_bias = tower.norm_pre.bias.detach().float()

    seen = [
        {
            name: _Extremes(layer, -1)
            for name, layer in (
                *(("qkv", block.attn.qkv), ("proj", block.attn.proj)),
                *(("fc1", block.mlp.fc1), ("fc2", block.mlp.fc2)),
            )
        }
        for block in tower.blocks
    ]
    for view in views:
        patches = tower.patch_embed(normalised(view.double()))  # (N, rows, columns, 768)
        positions = encoder.positions_for(*patches.shape[1:3])  # timm's own resizing is not in float64
        first = encoder.class_token.expand(len(view), 1, -1)
        tokens = torch.cat([first.double(), patches.flatten(1, 2) + positions], 1)
        tower.blocks(tower.norm_pre(tokens))
    for extremes in seen:
        for one in extremes.values():
            one.hook.remove()
    for block, of_float, extremes in zip(encoder.blocks, tower.blocks, seen, strict=True):
        _round_block(block, of_float, extremes)  # type: ignore[arg-type]
    return encoder


def _round_block(block: Block, of_float: Any, seen: dict[str, _Extremes]) -> None:
    qkv, qkv_bias, block.before_qkv = _behind_norm(of_float.norm1, of_float.attn.qkv, seen["qkv"])
    proj = of_float.attn.proj
    factors = _factors(seen["proj"].size(), proj.weight)
    qkv[2 * WIDTH :] /= factors[:, None]
    qkv_bias[2 * WIDTH :] /= factors
    block.qkv.set(qkv, qkv_bias)
    block.proj.set(proj.weight * factors, proj.bias)

    fc1, fc1_bias, block.before_fc1 = _behind_norm(of_float.norm2, of_float.mlp.fc1, seen["fc1"])
    block.fc1.set(fc1 * GELU, fc1_bias * GELU)
    fc2 = of_float.mlp.fc2
    factors = _factors(seen["fc2"].size() * GELU, fc2.weight / GELU)
    block.before_fc2 = (1 / factors).float()
    block.fc2.set(fc2.weight / GELU * factors, fc2.bias)


def _behind_norm(
    norm: nn.LayerNorm, layer: nn.Linear, seen: _Extremes
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Matrix and bias with the norm's own folded in, and what to multiply the normalised values by."""
    matrix = layer.weight * norm.weight
    bias = layer.bias + layer.weight @ norm.bias
    largest = seen.size(norm.bias) / norm.weight.abs().clamp_min(SMALLEST)
    factors = _factors(largest, matrix)
    return matrix * factors, bias.clone(), (1 / factors).float()


@torch.no_grad()
def integer_branch(branch: FloatBranch, views: Iterable[torch.Tensor]) -> QualityBranch:
    """The quality branch that a float one becomes.

    Args:
        branch: trained.
        views: calibration images as `branch_view` gives them, each (N, 3, H, W).
    """
    layers = branch.layers()
    given = [_Extremes(norm, 1, of_output=True) for _, norm in layers]
    taken = [_Extremes(convolution, 1) for convolution, _ in layers]
    for view in views:
        branch(view)
    for one in (*given, *taken):
        one.hook.remove()

    result = QualityBranch()
    folded = [_folded(*layer) for layer in layers]
    step = torch.full((3,), 2 / 255)  # of a level, in the values that the float network takes
    centre = 255 / 2  # the level of the value 0
    for number, (layer, (matrix, bias)) in enumerate(zip(result.in_order(), folded, strict=True)):
        convolution = layer.convolution
        if layer.factor is not None:
            step = (HEADROOM * taken[number].size()).clamp_min(SMALLEST) / (MIDDLE - 1)
            # Half way to one step for all: the columns of small channels would become small integers.
            step = (step * step.max()).sqrt()
            layer.factor.copy_(1 / step)
            centre = MIDDLE
        matrix = matrix * (step.view(-1, 1, 1, 1) if convolution.groups > 1 else step.view(1, -1, 1, 1))
        around = centre
        if convolution.saturates:
            step, centre = torch.full((len(matrix),), LARGEST_ACTIVATION / 255), 0.0
            matrix, bias = matrix / step.view(-1, 1, 1, 1), bias / step
        convolution.set(matrix, bias)
        # The middle counts as often as the rounded matrix says, not as the matrix would.
        convolution.set(matrix, bias - convolution.matrix().sum((1, 2, 3)) * around)
    result.step.copy_(step)
    return result


def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrix and bias of a convolution with the normalisation behind it."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return convolution.weight * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale


@torch.no_grad()
def float_branch(branch: QualityBranch) -> FloatBranch:
    """The float network that a branch in integers stands for, to train it on.

    Each activation's level 255 becomes the 6 of ReLU6.
    """
    result = FloatBranch()
    level = LARGEST_ACTIVATION / 255
    step, centre = torch.full((3,), 2 / 255), 255 / 2
    for (convolution, norm), layer in zip(result.layers(), branch.in_order(), strict=True):
        if layer.factor is not None:
            step, centre = 1 / layer.factor, MIDDLE
        matrix, bias = layer.convolution.matrix(), layer.convolution.bias
        bias = bias + matrix.sum((1, 2, 3)) * centre
        matrix = matrix / (step.view(-1, 1, 1, 1) if convolution.groups > 1 else step.view(1, -1, 1, 1))
        if layer.convolution.saturates:
            matrix, bias = matrix * level, bias * level
            step, centre = torch.full((len(matrix),), level), 0.0
        convolution.weight.copy_(matrix)
        assert norm.running_var is not None
        norm.weight.copy_((norm.running_var + norm.eps).sqrt())
        norm.bias.copy_(bias)
    return result
