"""Graded degradations of an image: blur, noise, JPEG compression, downscaling.

Training has copies fall by strength with them, and `benchmarks/` measures monotonicity with them.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

from .data import ImageSource

Degradation = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def blur(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur, sigma 0.5 to 5 pixels."""
    return cv2.GaussianBlur(image, (0, 0), 0.5 + 4.5 * strength)


def noise(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """White Gaussian noise, sigma 4 to 60 grey levels."""
    noisy = image + (4 + 56 * strength) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """JPEG compression, quality 60 down to 4."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=round(60 - 56 * strength))
    return np.asarray(Image.open(buffer).convert("RGB"))


def downscale(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Area downscaling by 1.5 to 8, then bicubic upscaling to the first size."""
    height, width = image.shape[:2]
    factor = 1.5 + 6.5 * strength
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    shrunk = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_CUBIC)


DEGRADATIONS: dict[str, Degradation] = {
    "blur": blur,
    "noise": noise,
    "jpeg": jpeg,
    "downscale": downscale,
}
"""By name: ``f(image, strength, rng)``; image (H, W, 3) uint8 RGB, strength in [0, 1]."""
GRADES = (0.1, 0.4, 0.7, 1.0)
"""Strengths of the copies of one image."""


class DegradedCopies:
    """Copies of images, each image in all `GRADES` of one kind, from the mildest on; made when asked for.

    Args:
        images: (H, W, 3) uint8 each.
        rows: which of them.
    """

    def __init__(self, images: ImageSource, rows: np.ndarray) -> None:
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        return len(self.rows) * len(GRADES)

    def __getitem__(self, number: int) -> np.ndarray:
        place, grade = divmod(int(number), len(GRADES))
        image = self.images[self.rows[place]]
        # The image alone says which kind it is; its noise is the same in all grades.
        drawn = int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:8], "big")
        degrade = list(DEGRADATIONS.values())[drawn % len(DEGRADATIONS)]
        return degrade(image, GRADES[grade], np.random.default_rng(drawn))
