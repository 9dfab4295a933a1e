"""Gated mixture of three experts: one design for both families (paper section 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

EXPERTS = ("semantic content", "coherence", "quality")
"""Order of the experts, the gate and the shares."""

LinearMap = Callable[..., torch.Tensor]
"""From values (..., K), a matrix (N, K) and, perhaps, a bias (N,) to (..., N)."""


class Mixture(NamedTuple):
    """Result of a mixture: score (N, 1), gate (N, 3), shares (N, 3) with score = sum of shares."""

    score: torch.Tensor
    gate: torch.Tensor
    shares: torch.Tensor


def gated_mixture(
    experts: torch.Tensor, gating: nn.Linear, output: nn.Linear, linear: LinearMap = F.linear
) -> Mixture:
    r"""Linear gate and linear output over three expert vectors.

    .. math:: s = W (g_1 e_{sem} + g_2 e_{coh} + g_3 e_q) + b = \sum_i g_i (W e_i) + b,
        \quad g = G [e_{sem}; e_{coh}; e_q] + c

    There is no softmax: the gate is linear, as in the released system. As the output is
    linear too, each expert has an exact additive share; b is split evenly among the three.

    Args:
        experts: (N, 3, width), in the order of `EXPERTS`.
        gating: G and c, 3 * width to 3.
        output: W and b, width to 1.
        linear: computes a linear map.
    """
    gate = linear(experts.flatten(1), gating.weight, gating.bias)
    shares = gate * linear(experts, output.weight).squeeze(2) + output.bias / len(EXPERTS)
    content, coherence, quality = shares.split(1, dim=1)
    return Mixture(content + coherence + quality, gate, shares)


class GatedExperts(nn.Module):
    """`gated_mixture` with the gate and the output that it needs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gating = nn.Linear(3 * width, 3)
        self.output = nn.Linear(width, 1)

    def forward(self, experts: torch.Tensor, linear: LinearMap = F.linear) -> Mixture:
        """Expert vectors (N, 3, width) to a Mixture."""
        return gated_mixture(experts, self.gating, self.output, linear)
