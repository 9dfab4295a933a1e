"""Float sums that do not depend on their order, and so not on the batch, the threads or the machine.

Numbers are first rounded to whole multiples of a common step. Floats add whole numbers without any
rounding as long as no sum has more digits than the format keeps.
"""

from __future__ import annotations

import math

import torch

KEPT = {torch.float32: 2**24, torch.float64: 2**53}
"""Every whole number up to this one is a float of that type."""
AT_ONCE = 16
"""Rows whose products are held at once."""
SMALLEST = 1e-30
"""Step of rows that are zero, in the place of none."""


def doubled(values: torch.Tensor) -> torch.Tensor:
    """As float64, where the device has it."""
    return values if values.device.type == "mps" else values.double()


def largest_size(values: torch.Tensor, dim: int | tuple[int, ...]) -> torch.Tensor:
    """The largest size of any number over dimensions, which are kept as 1."""
    if values.is_cuda:  # one kernel rather than four: their launches are what takes a GPU's time
        return torch.linalg.vector_norm(values, math.inf, dim, keepdim=True)
    # Two passes that only read are quicker than one that writes all sizes and another that reads them.
    return torch.maximum(values.amax(dim, keepdim=True), values.amin(dim, keepdim=True).neg_())


def rounded(
    values: torch.Tensor, largest: int, dim: int | tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers as whole multiples of a step: values ≈ whole * step.

    Args:
        values: of any shape, float.
        largest: the largest whole number, in size.
        dim: the dimensions that share a step; it falls to the largest value among them.

    Returns:
        The whole numbers, as floats of the shape of the values, and the steps, with ``dim`` kept as 1.
    """
    top = largest_size(values, dim).clamp_min_(SMALLEST)
    return (values * (largest / top)).round_(), divided(top, largest)


def divided(values: torch.Tensor, number: int) -> torch.Tensor:
    """Numbers by a whole number, which a GPU would otherwise multiply by its rounded inverse."""
    return values / torch.full_like(values, number)


def exact_sum(values: torch.Tensor, dim: int | tuple[int, ...]) -> torch.Tensor:
    """Sum over dimensions, the same in any order.

    Args:
        values: float32, or float64, which keeps more.
        dim: as of `torch.sum`.
    """
    dims = (dim,) if isinstance(dim, int) else dim
    count = math.prod(values.shape[one] for one in dims)
    whole, step = rounded(values, KEPT[values.dtype] // max(count, 1), dims)
    return whole.sum(dims) * step.squeeze(dims)


def exact_mean(values: torch.Tensor, dim: int | tuple[int, ...]) -> torch.Tensor:
    """Mean over dimensions, the same in any order."""
    dims = (dim,) if isinstance(dim, int) else dim
    return divided(exact_sum(values, dims), math.prod(values.shape[one] for one in dims))


def exact_linear(
    values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """`torch.nn.functional.linear` in float64, the same in any batch.

    Args:
        values: (..., K), float32 or float64.
        weight: (N, K).
        bias: (N,).

    Returns:
        (..., N) float64; float32 on a device that has no float64.
    """
    has_doubles = values.device.type != "mps"
    place = values.device if has_doubles else torch.device("cpu")
    matrix = weight.to(place, torch.float64)
    # Some rows at a time, since all products are held before they are added up.
    pieces = values.to(place, torch.float64).unsqueeze(-2).split(AT_ONCE)
    result = torch.cat([exact_sum(piece * matrix, -1) for piece in pieces])
    if bias is not None:
        result = result + bias.to(place, torch.float64)
    return result if has_doubles else result.float().to(values.device)
