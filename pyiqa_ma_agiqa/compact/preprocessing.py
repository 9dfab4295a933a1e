"""Pixels to network inputs: one view for the semantic encoder, one for the quality branch.

Both views keep the aspect ratio and have a bounded area, so time and memory do not
grow with the image.
"""

from __future__ import annotations

import functools
import math

import torch
from torch.nn import functional as F

from .arithmetic.exact import doubled

PATCH = 16
"""Side of a patch of the semantic encoder, in pixels."""
ENCODER_SIDE = 304
"""The encoder view has about this side squared in area."""
BRANCH_SIDES = (448, 1024)
"""The quality branch sees native pixels between these two sides squared; else the nearer bound."""
DIGITS = 2.0**20
"""Resized pixels are whole multiples of its inverse."""
PIECE = 64
"""Columns of a matrix of weights that are made at once."""
WIDEST = 12.0
"""Aspect ratios beyond this one are squeezed to it."""


def encoder_size(height: int, width: int) -> tuple[int, int]:
    """Size of the encoder view: multiples of 16, area about 304², aspect ratio kept."""
    root = math.sqrt(_aspect(height, width))
    cells = ENCODER_SIDE / PATCH
    return PATCH * round(cells / root), PATCH * round(cells * root)


def branch_size(height: int, width: int) -> tuple[int, int]:
    """Size of the quality view: the image's own where its area lies within 448² to 1024²."""
    aspect = _aspect(height, width)
    side = math.sqrt(height * width)
    low, high = BRANCH_SIDES
    if low <= side <= high and aspect == width / height:
        return height, width
    side = min(max(side, low), high)
    return round(side / math.sqrt(aspect)), round(side * math.sqrt(aspect))


def _aspect(height: int, width: int) -> float:
    return min(max(width / height, 1 / WIDEST), WIDEST)


def resize(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Antialiased bicubic resize of (N, C, H, W) in [0, 1]; unchanged where the size fits."""
    if pixels.shape[-2:] == size:
        return pixels
    # Many a resized pixel lies half-way between two levels. Where it is rounded to must not depend on last
    # digits, which processors differ in: so in float64, and cut to `DIGITS`, of which none is half-way.
    wide = interpolated(pixels, size)
    cut = wide.detach().mul(DIGITS).round_().mul_(1 / DIGITS)
    if wide.requires_grad:
        cut = wide + (cut - wide.detach())
    return cut.clamp_(0, 1).float()


def interpolated(values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Antialiased bicubic interpolation of (N, C, H, W) in float64, on a GPU as on a CPU."""
    return _by_products(values, size) if values.is_cuda else _by_pytorch(doubled(values), size)


def _by_pytorch(values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(values, size, mode="bicubic", antialias=True)


def _by_products(values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The same by the weights of a CPU: those of a GPU differ from them in the tenth digit."""
    height, width = values.shape[-2:]
    down, across = _weights(height, size[0], values.device), _weights(width, size[1], values.device)
    return down @ values.double() @ across.t()


@functools.lru_cache(maxsize=32)
def _weights(length: int, wanted: int, device: torch.device) -> torch.Tensor:
    """(wanted, length) float64: what each of so many values counts for each of those wanted."""
    pieces = torch.eye(length, dtype=torch.float64).split(PIECE, 1)
    parts = [_by_pytorch(one[None, None], (wanted, one.shape[1]))[0, 0] for one in pieces]
    return torch.cat(parts, 1).to(device)


def encoder_view(pixels: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) in [0, 1] to (N, 3, 16a, 16b) in [0, 1], ab about 361."""
    return resize(pixels, encoder_size(*pixels.shape[-2:]))


def branch_view(pixels: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) in [0, 1] to (N, 3, h, w) in [0, 1], hw between 448² and 1024²."""
    return resize(pixels, branch_size(*pixels.shape[-2:]))
