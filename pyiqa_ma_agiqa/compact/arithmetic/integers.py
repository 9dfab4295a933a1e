"""The networks' steps in integers: how a score is computed.

Sums run over whole numbers alone (see `exact.py`), and what stays float goes element by element or row
by row. So nothing depends on the batch, the order of images or the number of threads. Exponentials and
normalisation are computed in float64 and rounded to float32: processors differ in the last digits of such
functions, and one digit in float32 is enough to round a value to another integer behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch.nn import functional as F

from . import machine
from .exact import doubled, exact_linear, exact_mean, exact_sum, rounded
from .layers import EPSILON, LARGEST, MIDDLE, QuantisedConvolution, QuantisedLinear

QUERY_KEY, VALUE, PROBABILITY = 511, 255, 2**15
"""Largest integers in attention: 64 products of the first, and all probabilities of a row, which sum up to
1, with the second, stay below 2^24."""
SCORES = 2**17
"""Scores of attention at once, for each thread: with what is made of them they fit the processor's caches."""
ROWS = 200
"""Rows that pass a chain of steps at once, about so many for each thread, for the same reason."""
PIECE = 2**15
"""PyTorch divides elements among threads in pieces of at least so many. Multiples of this many are divided
into pieces of this many, which are a multiple of any vector unit's. Left-over elements of a piece would be
computed by another exponential, of other last digits."""

FINE = 2**20
"""Largest integer where float64 sums up products with integers of 8 bits: 2^25 of them stay below 2^53."""

mean = exact_mean
total = exact_sum
dense = exact_linear


def pixels(view: torch.Tensor) -> torch.Tensor:
    """Pixels in [0, 1] as levels, of 8 bits; those beyond, which a loss may get, as the nearest level."""
    return (view * 255).round_().clamp_(0, 255)


def in_pieces(steps: Callable[..., torch.Tensor], *values: torch.Tensor) -> torch.Tensor:
    """What steps that go row by row make of values (..., K), on a CPU some rows at a time."""
    shape, rows = values[0].shape, [value.flatten(0, -2) for value in values]
    count = 1
    if machine.gains_by_pieces(values[0].device):
        count = max(1, round(len(rows[0]) / (ROWS * torch.get_num_threads())))
    pieces = zip(*(value.tensor_split(count) for value in rows), strict=True)
    return torch.cat([steps(*piece) for piece in pieces]).unflatten(0, shape[:-1])


def linear(layer: QuantisedLinear, values: torch.Tensor) -> torch.Tensor:
    """(..., in) to (..., out); each row of inputs is rounded to 8 bits on a step of its own."""
    whole, step = rounded(values.flatten(0, -2), LARGEST, -1)
    result = layer.product(whole).mul_(step).mul_(layer.scale).add_(layer.bias)
    return result.unflatten(0, values.shape[:-1])


def project(layer: QuantisedLinear, values: torch.Tensor) -> torch.Tensor:
    """(N, in) to (N, out) float64, without the bias; inputs are rounded to 20 bits, not to 8."""
    whole, step = rounded(doubled(values), FINE, -1)
    return (whole @ doubled(layer.weight).t()) * step * doubled(layer.scale)


def linear_of_levels(layer: QuantisedLinear, levels: torch.Tensor) -> torch.Tensor:
    """(..., in) levels to (..., out)."""
    result = layer.product(levels.flatten(0, -2) - MIDDLE)
    return result.mul_(layer.scale).add_(layer.bias).unflatten(0, levels.shape[:-1])


def normalise(tokens: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Layer normalisation over the last dimension, times weight, plus bias."""
    shift = None if bias is None else doubled(bias)
    return F.layer_norm(doubled(tokens), tokens.shape[-1:], doubled(weight), shift, EPSILON).float()


def silu(values: torch.Tensor) -> torch.Tensor:
    """x * sigmoid(x), in place."""
    if values.device.type != "cpu":
        return F.silu(doubled(values)).float()
    flat, most = values.view(-1), PIECE * torch.get_num_threads()
    while len(flat):
        size = min(len(flat), most)
        size -= size % PIECE if size > PIECE else 0
        piece, flat = flat[:size], flat[size:]
        piece.copy_(F.silu(piece.double(), inplace=True))
    return values


def attend(query_key_value: torch.Tensor) -> torch.Tensor:
    """Softmax attention of (N, tokens, 3, heads, width) to (N, tokens, heads * width).

    Queries, keys and values of a head are rounded on one step, probabilities to 15 bits.
    """
    count, tokens, _, heads, width = query_key_value.shape
    query_key, value = query_key_value.permute(2, 0, 3, 1, 4).split((2, 1))
    (query, key), (query_step, key_step) = rounded(query_key, QUERY_KEY, (-2, -1))
    value, value_step = rounded(value[0], VALUE, (-2, -1))
    factor = (query_step * key_step * width**-0.5).flatten(0, 1)
    value_step = (value_step / PROBABILITY).flatten(0, 1)
    query, key, value = (whole.flatten(0, 1) for whole in (query, key, value))
    result = torch.empty_like(query)
    on_cpu = query.device.type == "cpu"
    many = SCORES * torch.get_num_threads() if on_cpu else len(query) * tokens**2
    size, rows = max(1, min(len(query), many // tokens**2)), max(1, min(tokens, many // tokens))
    for start, first in product(range(0, len(query), size), range(0, tokens, rows)):
        part, some = slice(start, start + size), slice(first, first + rows)
        scores = machine.whole_product(query[part, some], key[part].transpose(1, 2)).mul_(factor[part])
        weights = _probabilities(scores)
        result[part, some] = machine.whole_product(weights, value[part]).mul_(value_step[part])
    return result.unflatten(0, (count, heads)).transpose(1, 2).flatten(2)


def _probabilities(scores: torch.Tensor) -> torch.Tensor:
    """Softmax over the last dimension, in place, as whole numbers that sum up to about `PROBABILITY`."""
    wide = doubled(scores)
    if scores.device.type == "cpu":  # step by step in one memory, which takes two thirds of the time
        wide.sub_(scores.amax(-1, keepdim=True)).exp_()
        wide.mul_(wide.sum(-1, keepdim=True).reciprocal_().mul_(PROBABILITY))
    else:
        wide = wide.softmax(-1).mul_(PROBABILITY)
    return scores.copy_(wide).round_()


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
