"""Gated mixture of three experts: one design for both families (paper section 3.3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

EXPERTS = ("semantic content", "coherence", "quality")
"""Order of the experts, the gate and the shares."""


class Mixture(NamedTuple):
    """Result of a mixture: score (N, 1), gate (N, 3), shares (N, 3) with score = sum of shares."""

    score: torch.Tensor
    gate: torch.Tensor
    shares: torch.Tensor


def mixture(verdicts: torch.Tensor, gate: torch.Tensor, bias: torch.Tensor) -> Mixture:
    r"""Verdicts of three experts, weighted by a gate.

    .. math:: s = \sum_i g_i v_i + b

    Args:
        verdicts: v (N, 3), in the order of `EXPERTS`.
        gate: g (N, 3).
        bias: b (1,), split evenly among the shares.
    """
    shares = gate * verdicts + bias / len(EXPERTS)
    content, coherence, quality = shares.split(1, dim=1)
    return Mixture(content + coherence + quality, gate, shares)


def gated_mixture(experts: torch.Tensor, gating: nn.Linear, output: nn.Linear) -> Mixture:
    r"""Linear gate and linear output over three expert vectors, as in the published system.

    .. math:: s = W (g_1 e_{sem} + g_2 e_{coh} + g_3 e_q) + b = \sum_i g_i (W e_i) + b,
        \quad g = G [e_{sem}; e_{coh}; e_q] + c

    There is no softmax: the gate is linear, as in the released system. As the output is
    linear too, each expert has an exact additive share.

    Args:
        experts: (N, 3, width), in the order of `EXPERTS`.
        gating: G and c, 3 * width to 3.
        output: W and b, width to 1.
    """
    gate = F.linear(experts.flatten(1), gating.weight, gating.bias)
    return mixture(F.linear(experts, output.weight).squeeze(2), gate, output.bias)
