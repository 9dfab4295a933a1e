"""Towers that pass one block alone. Fresh processes import this file, so it imports no other of the tests."""

from __future__ import annotations

import copy

from torch import Tensor, nn


class PassedBy(nn.Module):
    """A block of a tower that does nothing."""

    def forward(self, tokens: Tensor, steps: object = None) -> Tensor:
        return tokens


def with_a_short_tower(metric):
    """A copy of `ma_agiqa`, or its network, with the first alone of the tower's twelve blocks, all alike."""
    blocks = getattr(metric, "net", metric).encoder.blocks
    return copy.deepcopy(metric, {id(block): PassedBy() for block in blocks[1:]})
