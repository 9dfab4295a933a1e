"""The quality map laid over the image, and the colours of shares."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from PIL import Image

from .explanation import Explanation
from .wording import map_of

LESS, NEUTRAL, MORE = "#D55E00", "#F2F2F2", "#0072B2"
"""Orange and blue of Okabe and Ito: of like brightness, and told apart in every kind of colour vision."""
COLOURS = LinearSegmentedColormap.from_list("shares", [LESS, NEUTRAL, MORE])
RAW = "#8A939C"
"""Shares that are held against nothing have no colour of praise."""
OPACITY = 0.6
SMALLEST_LIMIT = 1.0


def colour_limit(shown: np.ndarray) -> float:
    """The figure at which the colours end, on both sides of 0.

    At least one point of the score, so that a map with next to nothing in it does not look dramatic.
    """
    return max(SMALLEST_LIMIT, float(np.abs(shown).max()))


def map_over_image(explanation: Explanation, sides: tuple[int, int]) -> Image.Image:
    """The image in grey under its map.

    Args:
        explanation: of the image.
        sides: bounds of the longer side of the result in pixels.
    """
    grey = Image.fromarray(explanation.image).convert("L")
    longer = max(grey.size)
    scale = min(max(longer, sides[0]), sides[1]) / longer
    size = (max(round(grey.width * scale), 1), max(round(grey.height * scale), 1))
    below = np.asarray(grey.resize(size, Image.Resampling.LANCZOS), np.float32)[:, :, None]
    shown = map_of(explanation)
    colours = COLOURS((shown / colour_limit(shown) + 1) / 2, bytes=True)[:, :, :3]
    above = np.asarray(Image.fromarray(colours).resize(size, Image.Resampling.NEAREST), np.float32)
    return Image.fromarray(np.round((1 - OPACITY) * below + OPACITY * above).astype(np.uint8))
