"""Windows of 4 x 4 patches on the 28 x 28 grid of the Swin stages, and the constants that describe them.

Without the networks, whose libraries take seconds to import: a checkpoint is checked by these alone.
"""

from __future__ import annotations

import torch

GRID = 28
WINDOW = 4
SHIFT = WINDOW // 2
BLOCKED = -100.0
"""Added to the logit of a pair of patches that the shift has brought into one window."""


def relative_position_index() -> torch.Tensor:
    """(16, 16) int64: row of the bias table for each pair of patches of a window."""
    place = torch.stack(torch.meshgrid(torch.arange(WINDOW), torch.arange(WINDOW), indexing="ij"))
    offset = place.flatten(1)[:, :, None] - place.flatten(1)[:, None, :] + WINDOW - 1
    return offset[0] * (2 * WINDOW - 1) + offset[1]


def shifted_window_mask() -> torch.Tensor:
    """(49, 16, 16) float32: 0 for pairs that were neighbours before the shift, else -100."""
    part = torch.zeros(GRID, dtype=torch.int64)
    part[-WINDOW:-SHIFT] = 1
    part[-SHIFT:] = 2
    regions = partition((3 * part[:, None] + part)[None, :, :, None])[:, :, 0]
    return BLOCKED * (regions[:, :, None] != regions[:, None, :]).float()


def partition(grid: torch.Tensor) -> torch.Tensor:
    """(N, 28, 28, C) to windows (49 N, 16, C)."""
    count, channels = grid.shape[0], grid.shape[-1]
    cut = grid.reshape(count, GRID // WINDOW, WINDOW, GRID // WINDOW, WINDOW, channels)
    return cut.transpose(2, 3).reshape(-1, WINDOW**2, channels)


def assemble(windows: torch.Tensor) -> torch.Tensor:
    """Windows (49 N, 16, C) back to (N, 28, 28, C)."""
    across, channels = GRID // WINDOW, windows.shape[-1]
    cut = windows.reshape(-1, across, across, WINDOW, WINDOW, channels)
    return cut.transpose(2, 3).reshape(-1, GRID, GRID, channels)
