"""Images to the pixels that mPLUG-Owl2 reads, exactly as Pillow and its image processor make them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import WeightsError

FILE = "preprocessor_config.json"
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
PADDING = tuple(int(255 * mean) for mean in CLIP_MEAN)
"""Colour that makes an image square, in levels of 0 to 255."""

SHARPNESS = -0.5
"""Pillow's parameter a of the bicubic kernel."""
REACH = 2.0
"""How far that kernel reaches, in pixels of the coarser of the two grids."""
FRACTION = 2**22
"""Pillow multiplies levels by integers, in units of one over this."""
LARGEST_GROUP = 2**24
"""Pixels that are resized at once; bounds the memory of batches of large images."""
BLOCK = 32
"""Output columns made by one product; only the input columns that they reach take part."""


@dataclass(frozen=True)
class ProcessorSettings:
    """What is used of a CLIP image processor: the side of its square output, mean and deviation."""

    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], name: str = FILE) -> ProcessorSettings:
        """Read the settings of a CLIPImageProcessor, old or new.

        Args:
            settings: the content of `preprocessor_config.json`.
            name: what an error calls it.

        Raises:
            WeightsError: a setting is missing, or is one that this implementation has no code for.
        """
        wanted = {
            "do_resize": True,
            "do_rescale": True,
            "do_normalize": True,
            "resample": 3,
            "rescale_factor": 1 / 255,
        }
        for key, value in wanted.items():
            if settings.get(key, value) != value:
                raise WeightsError(f"{name}: {key} is {settings[key]!r}, but only {value!r} is supported")
        side = _side(settings.get("size"), "size", name)
        if settings.get("do_center_crop", True) and settings.get("crop_size") is not None:
            crop = _side(settings["crop_size"], "crop_size", name)
            if crop != side:
                raise WeightsError(
                    f"{name}: crop_size is {crop}, not the size {side}; cropping is not supported"
                )
        return cls(side, _colours(settings, "image_mean", name), _colours(settings, "image_std", name))

    @classmethod
    def from_folder(cls, folder: Path) -> ProcessorSettings:
        """Read `preprocessor_config.json` of a model's folder.

        Raises:
            WeightsError: it is missing, no JSON, or not supported.
        """
        path = Path(folder) / FILE
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise WeightsError(f"{path}: not readable ({error}); fetch the model again") from None
        if not isinstance(settings, dict):
            raise WeightsError(f"{path}: not a JSON object; fetch the model again")
        return cls.from_dict(settings, str(path))


def prepare_images(pixels: torch.Tensor, settings: ProcessorSettings) -> torch.Tensor:
    """Images as the model reads them: padded to squares, resized, normalised.

    Each value is that of Pillow's bicubic resize of the 8-bit image, bit for bit. Rounding to 8 bits
    is transparent to gradients.

    Args:
        pixels: (N, 3, H, W) in [0, 1].
        settings: of the model's image processor.

    Returns:
        (N, 3, side, side) float32, with CLIP's mean and deviation taken out.
    """
    longer = max(pixels.shape[-2:])
    groups = pixels.split(max(1, LARGEST_GROUP // longer**2))
    levels = torch.cat([_resize_square(_pad_square(group), settings.side) for group in groups])
    mean, std = (levels.new_tensor(colour).view(3, 1, 1) for colour in (settings.mean, settings.std))
    return (levels / 255 - mean) / std


def _pad_square(images: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) in [0, 1] to levels (N, 3, S, S) of 0 to 255, S = max(H, W), the image in the middle."""
    scaled = images.float().clamp(0, 1) * 255
    levels = _valued(scaled.round(), scaled)
    count, _, height, width = levels.shape
    if height == width:
        return levels
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = levels.new_tensor(PADDING).view(3, 1, 1).repeat(count, 1, side, side)
    square[..., top : top + height, left : left + width] = levels
    return square


def _resize_square(levels: torch.Tensor, side: int) -> torch.Tensor:
    """Levels (N, 3, S, S) to levels (N, 3, side, side): along the rows first, rounded in between."""
    across = _resize_rows(levels, side)
    return _resize_rows(across.transpose(2, 3), side).transpose(2, 3)


def _resize_rows(levels: torch.Tensor, side: int) -> torch.Tensor:
    """(..., S) to (..., side). Sums are whole numbers below 2**53, hence exact in float64 in any order."""
    if levels.shape[-1] == side:
        return levels
    blocks = []
    for first, weights in _weights(levels.shape[-1], side):
        reached = levels[..., first : first + len(weights)].double()
        sums = reached @ torch.from_numpy(weights).to(levels.device)
        rounded = ((sums + FRACTION / 2) / FRACTION).floor().clamp(0, 255)
        blocks.append(_valued(rounded.float(), (sums / FRACTION).float()))
    return torch.cat(blocks, dim=-1)


def _valued(value: torch.Tensor, smooth: torch.Tensor) -> torch.Tensor:
    """Exactly the value, with the gradient of the smooth tensor."""
    return value + (smooth - smooth.detach()) if smooth.requires_grad else value


@lru_cache(maxsize=32)
def _weights(size: int, side: int) -> list[tuple[int, np.ndarray]]:
    """Pillow's bicubic resize of a row as matrix products.

    Returns:
        For each block of output columns the first input column that it reaches, and the weights
        (reached columns, output columns) in units of 1 / `FRACTION`, whole numbers as float64.
    """
    scale = size / side
    stretch = max(scale, 1.0)
    centres = (np.arange(side) + 0.5) * scale
    low = np.maximum((centres - REACH * stretch + 0.5).astype(int), 0)
    high = np.minimum((centres + REACH * stretch + 0.5).astype(int), size)
    blocks = []
    for start in range(0, side, BLOCK):
        part = slice(start, start + BLOCK)
        first, last = int(low[part].min()), int(high[part].max())
        columns = np.arange(first, last)[:, None]
        weights = _bicubic((columns - centres[part] + 0.5) * (1.0 / stretch))
        weights[(columns < low[part]) | (columns >= high[part])] = 0
        weights /= weights.sum(0)
        blocks.append((first, np.trunc(weights * FRACTION + np.copysign(0.5, weights))))
    return blocks


def _bicubic(distance: np.ndarray) -> np.ndarray:
    a, x = SHARPNESS, np.abs(distance)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < REACH, far, 0.0))


def _side(value: Any, key: str, name: str) -> int:
    """One whole number of `448`, `{"shortest_edge": 448}` or `{"height": 448, "width": 448}`."""
    sides = set(value.values()) if isinstance(value, Mapping) else {value}
    known = not isinstance(value, Mapping) or set(value) in ({"shortest_edge"}, {"height", "width"})
    side = sides.pop() if len(sides) == 1 and known else None
    if not isinstance(side, int) or isinstance(side, bool) or side < 1:
        raise WeightsError(f"{name}: {key} is {value!r}; only one whole number for both sides is supported")
    return side


def _colours(settings: Mapping[str, Any], key: str, name: str) -> tuple[float, float, float]:
    value = settings.get(key)
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise WeightsError(f"{name}: {key} is {value!r}, not three numbers")
    red, green, blue = map(float, value)
    return red, green, blue
