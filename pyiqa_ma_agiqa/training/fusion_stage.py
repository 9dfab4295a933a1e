"""Stage 3: let the convolutional branch into the quality expert, at a weight chosen on val."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr
from torch import nn

from ..arch import MAAGIQA
from ..experts import EXPERTS
from ..quality import QualityBranch


@dataclass
class Blend:
    """Weight of the branch's own prediction, and the val figures that chose it."""

    weight: float
    table: list[dict[str, float]]


def choose_blend(semantic: np.ndarray, branch: np.ndarray, mos: np.ndarray) -> Blend:
    """The weight, in steps of 0.05, with the best SRCC + PLCC of val predictions (M,)."""
    table = []
    for weight in np.arange(0, 0.95, 0.05).round(2):
        blended = (1 - weight) * semantic + weight * branch
        srcc, plcc = spearmanr(blended, mos)[0], pearsonr(blended, mos)[0]
        table.append({"weight": float(weight), "srcc": float(srcc), "plcc": float(plcc)})
    best = max(table, key=lambda row: row["srcc"] + row["plcc"])
    return Blend(best["weight"], table)


@torch.no_grad()
def fold_statistics(model: MAAGIQA, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Fold the standardisation of the patch statistics into the quality expert."""
    weight = model.quality_expert.weight[:, QualityBranch.width :]
    weight /= std
    model.quality_expert.bias.sub_(weight @ mean)


@torch.no_grad()
def fuse(model: MAAGIQA, head: nn.Linear, weight: float, mean_gate: float, mean_mos: float) -> None:
    """Join the branch with its MOS head into the quality expert.

    Afterwards the score is (1 - weight) s + weight (g / mean_gate (q - mean_mos) + mean_mos):
    s the score before, q the branch's own prediction, g the gate of the quality expert. The
    branch enters along the part of W that the gate does not read, so the gate stays as trained.
    """
    output, gating = model.experts.output, model.experts.gating
    output.weight *= 1 - weight
    output.bias.copy_((1 - weight) * output.bias + weight * mean_mos)
    width = output.in_features
    read = gating.weight[:, (len(EXPERTS) - 1) * width :]
    basis = torch.linalg.qr(read.T.double())[0]
    direction = output.weight[0].double()
    direction = direction - basis @ (basis.T @ direction)
    direction = (direction / (direction @ output.weight[0].double())).float() * (weight / mean_gate)
    model.quality_expert.weight[:, : QualityBranch.width] = direction[:, None] * head.weight
    model.quality_expert.bias.add_(direction * (head.bias - mean_mos))
