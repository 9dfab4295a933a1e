"""The networks' steps in integers: how a score is computed.

Sums run over whole numbers alone (see `exact.py`), and what stays float goes element by element or row
by row. So nothing depends on the batch, the order of images or the number of threads. Exponentials and
normalisation are computed in float64 and rounded to float32: processors differ in the last digits of such
functions, and one digit in float32 is enough to round a value to another integer behind it.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from . import machine
from .exact import doubled, exact_linear, exact_mean, exact_sum, rounded
from .layers import EPSILON, LARGEST, MIDDLE, QuantisedConvolution, QuantisedLinear

QUERY_KEY, VALUE, PROBABILITY = 511, 255, 2**15
"""Largest integers in attention: 64 products of the first, and all probabilities of a row, which sum up to
1, with the second, stay below 2^24."""
PIECE = 2**14
"""Elements of an exponential at once: fewer than PyTorch divides among threads, and a multiple of any
vector unit's. Left-over elements are computed by another exponential, of other last digits."""

FINE = 2**20
"""Largest integer where float64 sums up products with integers of 8 bits: 2^25 of them stay below 2^53."""

mean = exact_mean
total = exact_sum
dense = exact_linear


def pixels(view: torch.Tensor) -> torch.Tensor:
    """Pixels in [0, 1] as levels, of 8 bits."""
    return (view * 255).round_()


def linear(layer: QuantisedLinear, values: torch.Tensor) -> torch.Tensor:
    """(..., in) to (..., out); each row of inputs is rounded to 8 bits on a step of its own."""
    whole, step = rounded(values.flatten(0, -2), LARGEST, -1)
    result = machine.integer_product(whole, layer.weight).mul_(step).mul_(layer.scale).add_(layer.bias)
    return result.unflatten(0, values.shape[:-1])


def project(layer: QuantisedLinear, values: torch.Tensor) -> torch.Tensor:
    """(N, in) to (N, out) float64, without the bias; inputs are rounded to 20 bits, not to 8."""
    whole, step = rounded(doubled(values), FINE, -1)
    return (whole @ doubled(layer.weight).t()) * step * doubled(layer.scale)


def linear_of_levels(layer: QuantisedLinear, levels: torch.Tensor) -> torch.Tensor:
    """(..., in) levels to (..., out)."""
    product = machine.integer_product(levels.flatten(0, -2) - MIDDLE, layer.weight)
    return product.mul_(layer.scale).add_(layer.bias).unflatten(0, levels.shape[:-1])


def normalise(tokens: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Layer normalisation over the last dimension, times weight, plus bias."""
    shift = None if bias is None else doubled(bias)
    return F.layer_norm(doubled(tokens), tokens.shape[-1:], doubled(weight), shift, EPSILON).float()


def silu(values: torch.Tensor) -> torch.Tensor:
    """x * sigmoid(x), in place."""
    if values.device.type != "cpu":
        return F.silu(doubled(values)).float()
    for piece in values.view(-1).split(PIECE):
        piece.copy_(F.silu(piece.double(), inplace=True))
    return values


def attend(query_key_value: torch.Tensor) -> torch.Tensor:
    """Softmax attention of (N, tokens, 3, heads, width) to (N, tokens, heads * width).

    Queries, keys and values of a head are rounded on one step, probabilities to 15 bits.
    """
    query, key, value = query_key_value.permute(2, 0, 3, 1, 4)
    query, query_step = rounded(query, QUERY_KEY, (-2, -1))
    key, key_step = rounded(key, QUERY_KEY, (-2, -1))
    value, value_step = rounded(value, VALUE, (-2, -1))
    factor = query_step * key_step * query.shape[-1] ** -0.5
    weights = doubled((query @ key.transpose(-2, -1)).mul_(factor)).softmax(-1).float()
    mixed = (weights.mul_(PROBABILITY).round_() @ value).mul_(value_step / PROBABILITY)
    return mixed.transpose(1, 2).flatten(2)


def levels(values: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Values (N, C, H, W) with a sign as levels: value * factor (C,) from the middle on."""
    return _held((values * factor.view(-1, 1, 1)).round_().add_(MIDDLE).clamp_(0, 255))


def image_levels(view: torch.Tensor) -> torch.Tensor:
    """Pixels in [0, 1] as levels for a convolution."""
    return _held(pixels(view).contiguous(memory_format=torch.channels_last))


def convolve(layer: QuantisedConvolution, inputs: torch.Tensor, outside: int = 0) -> torch.Tensor:
    """A convolution of levels.

    Args:
        inputs: (N, in, H, W), of `levels`, `image_levels` or another convolution.
        outside: the level around the image.

    Returns:
        (N, out, ceil(H / stride), ceil(W / stride)), levels or values as the layer's outputs are.
    """
    left, right, top, bottom = layer.padding(*inputs.shape[2:])
    around = left
    if outside or not left == right == top == bottom:
        inputs = F.pad(inputs, (left, right, top, bottom), value=outside)
        around = 0
    way = layer.stride, around, layer.groups
    # The scales of values have too many digits for one exact step with the sums.
    scale = layer.scale if layer.saturates else torch.ones_like(layer.scale)
    offset = layer.bias if layer.saturates else torch.zeros_like(layer.bias)
    if inputs.dtype == torch.uint8:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        dtype = torch.uint8 if layer.saturates else torch.float32
        result = machine.convolve_packed(inputs, layer.packed(), layer.side, scale, offset, *way, dtype)
    else:
        result = machine.convolve_floats(inputs, layer.weight, scale, offset, *way)
        result = result.round_().clamp_(0, 255) if layer.saturates else result
    if layer.saturates:
        return result
    return result.mul_(layer.scale.view(-1, 1, 1)).add_(layer.bias.view(-1, 1, 1))


def features(result: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Levels (N, C, H, W) as values on a step for each channel (C,)."""
    return result.float() * step.view(-1, 1, 1)


def deviation(values: torch.Tensor, average: torch.Tensor, dim: int) -> torch.Tensor:
    """Standard deviation over a dimension, from the mean over it, unbiased."""
    squares = (values - average.unsqueeze(dim)).square_()
    count = values.shape[dim]
    return (exact_mean(squares, dim) * (count / (count - 1))).sqrt_()


def _held(levels: torch.Tensor) -> torch.Tensor:
    """Levels in the type that this machine's convolutions take."""
    return levels.to(torch.uint8) if machine.has_fast_convolutions(levels.device) else levels
