"""A block of a tower that does nothing. By itself, since pickles of it are read in fresh processes."""

from __future__ import annotations

from torch import Tensor, nn


class PassedBy(nn.Module):
    def forward(self, tokens: Tensor, steps: object = None) -> Tensor:
        return tokens
