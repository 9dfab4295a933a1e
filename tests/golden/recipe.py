"""Synthetic weights, images and vectors of the golden files (NumPy's RandomState never changes)."""

from __future__ import annotations

import zlib

import numpy as np


def fill(name: str, shape: tuple[int, ...], gain: float = 0.75) -> np.ndarray:
    """Values of a weight, float32, seeded by the CRC-32 of its name."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    values = random.standard_normal(int(np.prod(shape))).astype(np.float32).reshape(shape)
    last = name.rsplit(".", 1)[-1]
    if last == "weight" and len(shape) >= 2:
        return gain * values / np.float32(np.sqrt(np.prod(shape[1:])))
    if last == "weight" and len(shape) == 1:
        return 1 + np.float32(0.1) * values
    return np.float32(0.05 if last == "bias" else 0.2) * values


def image(seed: int, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8 RGB: coarse colour noise, repeated, and fine noise."""
    random = np.random.RandomState(seed)
    coarse = random.randint(0, 256, size=((height + 31) // 32, (width + 31) // 32, 3)).astype(np.int64)
    pixels = coarse.repeat(32, 0).repeat(32, 1)[:height, :width]
    pixels = pixels + random.randint(-24, 25, size=(height, width, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def semantic(seed: int, width: int = 4096) -> np.ndarray:
    """A semantic vector, float32."""
    return np.random.RandomState(seed).standard_normal(width).astype(np.float32)
