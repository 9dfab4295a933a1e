"""OpenCV's bicubic resize of 8-bit images, on tensors and differentiable.

What ``cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)`` gives for uint8: cubic convolution
with a = -0.75 on the four nearest pixels, pixel centres aligned, the border repeated, no
antialiasing, the result rounded to whole levels.

On x86 OpenCV leaves this to Intel's IPP, in float32. Where the exact value lies halfway between two
levels the order of its float32 operations decides, and one such level moves the score by up to 1e-4
of itself. So that order is kept: the one for AVX-512, which the published scores follow.
"""

from __future__ import annotations

import numpy as np
import torch

A = -0.75
"""Parameter of the cubic kernel (Keys 1981), as OpenCV has it."""
TAPS = 4
LEVELS = 255


def opencv_bicubic(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize as OpenCV does.

    Gradients pass through both roundings as if there were none; the interpolation has its own,
    and where the result overshoots and is cut off the gradient is 0.

    Args:
        pixels: (N, C, H, W) in [0, 1]; rounded to levels of 1/255 first, values outside cut off.
        size: height and width of the result.

    Returns:
        (N, C, *size) in [0, 1], multiples of 1/255. Any build of OpenCV is at most 1/255 away, and
        one with IPP that far only where the exact value lies halfway between two levels.
    """
    if tuple(pixels.shape[-2:]) == tuple(size):
        return _round_to_level(LEVELS * pixels) / LEVELS
    # Of a large image only the rows that count are ever read.
    rows, row_taps = np.unique(_tap_indices(pixels.shape[-2], size[0]), return_inverse=True)
    column_taps = _tap_indices(pixels.shape[-1], size[1])
    values = _round_to_level(LEVELS * _select(pixels, -2, rows))
    across = _tap_weights(pixels.shape[-1], size[1], pixels.device)
    values = _weighted_sum([_select(values, -1, taps) for taps in column_taps], across)
    down = _tap_weights(pixels.shape[-2], size[0], pixels.device)[..., None]
    values = _weighted_sum([_select(values, -2, taps) for taps in row_taps.reshape(TAPS, -1)], down)
    return _round_to_level(values) / LEVELS


def _round_to_level(values: torch.Tensor) -> torch.Tensor:
    values = values.clamp(0, LEVELS)
    return values + (values.round() - values).detach()


def _select(values: torch.Tensor, dim: int, indices: np.ndarray) -> torch.Tensor:
    return values.index_select(dim, torch.from_numpy(indices).to(values.device))


def _weighted_sum(taps: list[torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
    """Sum of taps times weights in float32, rounded where IPP's fused multiply-adds round.

    Products of float32 are exact in float64, which also makes this the same on every device.
    """
    products = [tap.double() * weight for tap, weight in zip(taps, weights.double(), strict=True)]
    return (products[0] + products[1].float()).float() + (products[2] + products[3].float()).float()


def _centres(source: int, target: int) -> np.ndarray:
    """Centres of the new pixels in coordinates of the old ones."""
    return (np.arange(target) + 0.5) * (source / target) - 0.5


def _tap_indices(source: int, target: int) -> np.ndarray:
    """(4, target): the old pixels that make up each new one."""
    first = np.floor(_centres(source, target)).astype(np.int64) - 1
    return (first + np.arange(TAPS)[:, None]).clip(0, source - 1)


def _tap_weights(source: int, target: int, device: torch.device) -> torch.Tensor:
    """(4, target) float32: weights of the old pixels in each new one."""
    centres = _centres(source, target)
    # IPP adds 1 to the distance in float32 first, which costs it the last bits.
    beyond = 1 + (centres - np.floor(centres)).astype(np.float32)
    x = beyond.astype(np.float64) - 1
    weights = np.stack([_outer(1 + x), _inner(x), _inner(1 - x), _outer(2 - x)])
    return torch.from_numpy(weights.astype(np.float32)).to(device)


def _inner(distance: np.ndarray) -> np.ndarray:
    """The kernel up to a distance of 1."""
    return ((A + 2) * distance - (A + 3)) * distance**2 + 1


def _outer(distance: np.ndarray) -> np.ndarray:
    """The kernel between distances of 1 and 2."""
    return ((A * distance - 5 * A) * distance + 8 * A) * distance - 4 * A
