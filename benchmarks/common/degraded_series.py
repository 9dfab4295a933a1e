"""An image that gets worse step by step: its kinds, its levels, and what a steady fall of scores is."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from pyiqa_ma_agiqa.training.degradations import DEGRADATIONS

LEVELS = 8
STEADY = -0.9
"""A pair of image and degradation is steady at this rank correlation or below."""


def is_steady(correlation: Any) -> Any:
    """Whether scores fall steadily, by their rank correlation with the level; NaN is no."""
    return correlation <= STEADY + 1e-9


def left_small(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Area downscaling by 1.5 to 8, as `degradations.downscale`, but not scaled back."""
    factor = 1.5 + 6.5 * strength
    height, width = image.shape[:2]
    size = (max(16, round(width / factor)), max(16, round(height / factor)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def colour_shift(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """A cast: red up and blue down by 8 to 80 grey levels."""
    levels = 8 + 72 * strength
    shifted = image + np.array([levels, 0, -levels])
    return np.clip(np.rint(shifted), 0, 255).astype(np.uint8)


COLOUR_SHIFT = "colour shift"
KINDS = DEGRADATIONS | {"downscale, left small": left_small, COLOUR_SHIFT: colour_shift}
