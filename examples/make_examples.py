"""Draws the example images: a made-up landscape, and the same one blurred and noisy.

python examples/make_examples.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pyiqa_ma_agiqa.training.degradations import DEGRADATIONS

SIDE = 512


def ridge(rng: np.random.Generator, roughness: float) -> np.ndarray:
    """A skyline (SIDE,) in [-1, 1], summed from octaves of interpolated noise."""
    columns = np.arange(SIDE)
    line = np.zeros(SIDE)
    for octave in range(1, 9):
        knots = rng.uniform(-1, 1, 2**octave + 2)
        line += roughness**octave * np.interp(columns / SIDE * 2**octave, np.arange(len(knots)), knots)
    return line / np.abs(line).max()


def texture(rng: np.random.Generator) -> np.ndarray:
    """Fractal noise (SIDE, SIDE) in [0, 1]."""
    total = np.zeros((SIDE, SIDE))
    for octave in range(2, 9):
        grid = Image.fromarray(rng.random((2**octave, 2**octave), dtype=np.float32))
        total += 0.6**octave * np.asarray(grid.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return (total - total.min()) / np.ptp(total)


def landscape(seed: int = 7) -> np.ndarray:
    """Sky with a low sun, five ranges of hills, and a lake that mirrors them; (512, 512, 3) uint8."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    image = (1 - rows[..., None]) * np.array([60, 105, 180]) + rows[..., None] * np.array([255, 190, 130])
    clouds = np.clip(texture(rng) * 2 - 0.9, 0, 1) * np.clip(1 - rows * 1.7, 0, 1)
    image += clouds[..., None] * (np.array([255, 235, 225]) - image)
    distance = np.hypot(rows - 0.36, columns - 0.68)
    glow = np.clip(1.1 - distance / 0.35, 0, 1) ** 2
    image += glow[..., None] * (np.array([255, 225, 150]) - image) * 0.8
    image[distance < 0.045] = [255, 246, 214]
    for depth in range(5):
        near = depth / 4
        height = 0.42 + 0.07 * depth + (0.10 - 0.012 * depth) * ridge(rng, 0.55)
        inside = rows > height[None, :]
        ground = (1 - near) * np.array([150, 130, 150]) + near * np.array([30, 48, 38])
        shade = 0.75 + 0.5 * texture(rng)[..., None]
        image = np.where(inside[..., None], ground * shade, image)
    shore = int(0.76 * SIDE)
    depth_rows = np.arange(SIDE - shore)
    source = np.clip(shore - 1 - (depth_rows * 1.6).astype(int), 0, SIDE - 1)
    mirrored = image[source]
    for row, shift in enumerate(np.rint(3 * np.sin(depth_rows**1.2 / 3) * depth_rows / 60).astype(int)):
        mirrored[row] = np.roll(mirrored[row], shift, axis=0)
    image[shore:] = 0.72 * mirrored + np.array([8, 18, 30])
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def main() -> None:
    folder = Path(__file__).parent
    image = landscape()
    rng = np.random.default_rng(7)
    Image.fromarray(image).save(folder / "landscape.png", optimize=True)
    for kind, strength in (("blur", 0.4), ("jpeg", 0.9)):
        degraded = DEGRADATIONS[kind](image, strength, rng)
        Image.fromarray(degraded).save(folder / f"landscape_{kind}.png", optimize=True)


if __name__ == "__main__":
    main()
