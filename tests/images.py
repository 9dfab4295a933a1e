"""Images that tests make."""

from __future__ import annotations

import numpy as np
import torch


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colours with fine noise, (height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [
        np.sin(rows / (9 + 7 * k) + rng.uniform(0, 6)) + np.cos(columns / (13 + 5 * k)) for k in range(3)
    ]
    image = 128 + 45 * np.stack(waves, -1) + 12 * rng.standard_normal((height, width, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def batch(count: int, height: int, width: int, channels: int = 3) -> torch.Tensor:
    """(count, channels, height, width) in [0, 1]."""
    images = np.stack([picture(height, width, seed) for seed in range(count)])[..., :channels]
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
