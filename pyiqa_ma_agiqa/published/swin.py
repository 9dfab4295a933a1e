"""The Swin stages of the quality branch."""

from __future__ import annotations

import torch
from timm.layers import DropPath
from torch import nn
from torch.nn import functional as F

from .windows import SHIFT, WINDOW, assemble, partition, relative_position_index, shifted_window_mask

HEADS = 4
LAYERS = 2
BLOCKS = 2
HIDDEN = 768
"""Width of the hidden layer of every MLP."""
RESIDUAL_SCALE = 0.8
DROPOUT = 0.1
STOCHASTIC_DEPTH = 0.1
"""Rate of the last block of a stage; the first has 0."""


class WindowAttention(nn.Module):
    """Self-attention within windows, with a learned bias for each relative position and head."""

    relative_position_index: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, HEADS))
        self.register_buffer("relative_position_index", relative_position_index())
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, windows: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Windows (49 N, 16, C) and mask (49, 16, 16) to the same shape as the windows."""
        queries, keys, values = self.qkv(windows).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(len(windows) // len(mask), 1, 1, 1)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias.to(queries.dtype))
        return self.proj(mixed.transpose(1, 2).flatten(2))


class SwinMLP(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SwinBlock(nn.Module):
    """Window attention and MLP, each behind a LayerNorm and beside a shortcut."""

    attn_mask: torch.Tensor | None

    def __init__(self, width: int, shifted: bool, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = SwinMLP(width)
        self.drop_path = DropPath(drop_path)
        self.register_buffer("attn_mask", shifted_window_mask() if shifted else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 28, 28, C) to the same shape."""
        grid = self.norm1(x)
        if self.attn_mask is None:
            grid = assemble(self.attn(partition(grid), None))
        else:
            grid = grid.roll((-SHIFT, -SHIFT), (1, 2))
            grid = assemble(self.attn(partition(grid), self.attn_mask)).roll((SHIFT, SHIFT), (1, 2))
        x = x + self.drop_path(grid)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class SwinLayer(nn.Module):
    """A plain and a shifted block, then a 3 x 3 convolution and a ReLU."""

    def __init__(self, width: int, drop_paths: list[float]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *[SwinBlock(width, shifted=i % 2 == 1, drop_path=rate) for i, rate in enumerate(drop_paths)]
        )
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, 28, 28) to the same shape, both with the channels last in memory."""
        grid = self.blocks(x.permute(0, 2, 3, 1))
        return F.relu(self.conv(grid.permute(0, 3, 1, 2)))


class SwinStage(nn.Module):
    """Dropout, then two layers, each added to its own input at 0.8 of its size.

    Reference: Liu et al., *Swin Transformer*, ICCV 2021; Yang et al., *MANIQA*, CVPR Workshops
    2022, section 3.3, as released with MA-AGIQA.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(DROPOUT)
        last = LAYERS * BLOCKS - 1
        rates = [STOCHASTIC_DEPTH * i / last for i in range(LAYERS * BLOCKS)]
        self.layers = nn.ModuleList(
            SwinLayer(width, rates[i * BLOCKS : (i + 1) * BLOCKS]) for i in range(LAYERS)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, 28, 28) to the same shape."""
        x = self.dropout(x)
        for layer in self.layers:
            x = RESIDUAL_SCALE * layer(x) + x
        return x
