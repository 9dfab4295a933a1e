"""Semantic encoder: the CLIP ViT-B/16 image tower in integers, summed up at every second block."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import nn

from .arithmetic import integers, machine
from .arithmetic.layers import QuantisedLinear
from .preprocessing import PATCH, interpolated

DEPTHS = (2, 4, 6, 8, 10, 12)
"""Blocks after which the tokens are summed up."""
EARLY_AND_MIDDLE = 3
"""How many of `DEPTHS` come before the late ones, which speak of meaning."""

WIDTH = 768
HEADS = 12
GRID = 14
"""Patches on a side of the image that the position embeddings were learned with."""
LATE = len(DEPTHS) - EARLY_AND_MIDDLE
CLASS_TOKENS = 2
"""How many of a summary's vectors at a depth are class tokens: of the block before and of its own."""
SUMMARY = (len(DEPTHS), CLASS_TOKENS + 2, WIDTH)
"""Depth, (class token one block before, class token, patch mean, patch deviation), width."""
CONTENT, COHERENCE = LATE * CLASS_TOKENS * WIDTH, LATE * 2 * WIDTH
"""How many numbers the experts on meaning read of a summary."""


class Block(nn.Module):
    """A transformer block. The factors in front of its linear maps make their inputs even over channels.

    What the block's layer normalisation multiplies by and adds is in the linear map behind it; the factors
    of attention's output are in the value rows of ``qkv``, those of CLIP's GELU (x sigmoid(1.702 x)) in
    ``fc1`` and ``fc2``.
    """

    before_qkv: torch.Tensor
    before_fc1: torch.Tensor
    before_fc2: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.qkv = QuantisedLinear(WIDTH, 3 * WIDTH)
        self.proj = QuantisedLinear(WIDTH, WIDTH)
        self.fc1 = QuantisedLinear(WIDTH, 4 * WIDTH)
        self.fc2 = QuantisedLinear(4 * WIDTH, WIDTH)
        self.register_buffer("before_qkv", torch.ones(WIDTH))
        self.register_buffer("before_fc1", torch.ones(WIDTH))
        self.register_buffer("before_fc2", torch.ones(4 * WIDTH))

    def forward(self, tokens: torch.Tensor, steps: ModuleType = integers) -> torch.Tensor:
        """(N, tokens, 768) to the same."""
        normalised = steps.normalise(tokens, self.before_qkv)
        attended = steps.attend(steps.linear(self.qkv, normalised).unflatten(2, (3, HEADS, -1)))

        def after(tokens: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
            tokens = steps.linear(self.proj, attended).add_(tokens)
            normalised = steps.normalise(tokens, self.before_fc1)
            hidden = steps.silu(steps.linear(self.fc1, normalised)).mul_(self.before_fc2)
            return steps.linear(self.fc2, hidden).add_(tokens)

        return steps.in_pieces(after, tokens, attended)


class SemanticEncoder(nn.Module):
    """CLIP ViT-B/16 image tower (Radford et al., ICML 2021), without its projection, in integers of 8 bits.

    At each depth the tokens are summed up by four vectors: the class token, which stands for
    the whole content, as it is and as it was one block before, so that none is left out; and the mean
    and the standard deviation of the patch tokens, which stand for what the parts have in common and how
    far they differ.
    """

    class_token: torch.Tensor
    positions: torch.Tensor
    norm_weight: torch.Tensor
    norm_bias: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.patches = QuantisedLinear(3 * PATCH**2, WIDTH)
        self.register_buffer("class_token", torch.zeros(WIDTH))
        self.register_buffer("positions", torch.randn(WIDTH, GRID, GRID) * 0.02)
        self.register_buffer("norm_weight", torch.ones(WIDTH))
        self.register_buffer("norm_bias", torch.zeros(WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTHS[-1]))

    def forward(
        self, view: torch.Tensor, steps: ModuleType = integers, kept: list[torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Sum up the tokens.

        Args:
            view: (N, 3, 16a, 16b), RGB in [0, 1].
            steps: module `integers`, or `floats` for a gradient.
            kept: takes in the patch tokens (N, ab, 768) of each depth.

        Returns:
            (N, 6, 4, 768) float32: depth, (class token one block before, class token, patch mean, patch
            deviation), width.
        """
        machine.keep_freed_memory()
        tokens = self.embed(view, steps)
        summaries = []
        for depth, block in enumerate(self.blocks, start=1):
            before = tokens[:, 0]
            tokens = block(tokens, steps)
            if depth in DEPTHS:
                patches = tokens[:, 1:]
                average = steps.mean(patches, 1)
                deviation = steps.deviation(patches, average, 1)
                summaries.append(torch.stack([before, tokens[:, 0], average, deviation], dim=1))
                if kept is not None:
                    kept.append(patches)
        return torch.stack(summaries, dim=1)

    def embed(self, view: torch.Tensor, steps: ModuleType = integers) -> torch.Tensor:
        """Pixels (N, 3, 16a, 16b) in [0, 1] to tokens (N, 1 + ab, 768), the class token first."""
        count, _, height, width = view.shape
        rows, columns = height // PATCH, width // PATCH
        # Each patch is a row of levels, in the order colour, row, column.
        cut = steps.pixels(view).reshape(count, 3, rows, PATCH, columns, PATCH).permute(0, 2, 4, 1, 3, 5)
        patches = steps.linear_of_levels(self.patches, cut.reshape(count, rows * columns, -1))
        patches = patches + self.positions_for(rows, columns)
        first = self.class_token.expand(count, 1, -1)
        return steps.normalise(torch.cat([first, patches], 1), self.norm_weight, self.norm_bias)

    def positions_for(self, rows: int, columns: int) -> torch.Tensor:
        """Position embeddings (rows * columns, 768) of a grid of patches."""
        grid = self.positions
        if (rows, columns) != (GRID, GRID):
            grid = interpolated(grid[None], (rows, columns))[0].float()
        return grid.flatten(1).t()


def late_parts(summary: Any) -> tuple[Any, Any]:
    """Views of the late blocks in (..., 6, 4, 768), of PyTorch or NumPy, both (..., 3, 2, 768).

    Returns:
        Class tokens; patch mean and deviation.
    """
    late = summary[..., EARLY_AND_MIDDLE:, :, :]
    return late[..., :CLASS_TOKENS, :], late[..., CLASS_TOKENS:, :]


def late_summary(summary: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the experts on meaning read.

    Args:
        summary: (N, 6, 4, 768) of `SemanticEncoder`.

    Returns:
        Semantic content (N, 4608): class tokens of the late blocks. Coherence (N, 4608): patch
        mean and deviation of every second of them.
    """
    content, coherence = late_parts(summary)
    return content.flatten(1), coherence.flatten(1)
