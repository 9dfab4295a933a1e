"""How a tuned quality branch joins experts that were fitted without it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr

from ..compact.arch import MAAGIQA
from ..compact.quality import QualityBranch
from ..compact.semantic import SUMMARY
from .quality_stage import QualityRegressor


@dataclass
class Blend:
    """Weight of the branch's own prediction, and the val figures that chose it."""

    weight: float
    table: list[dict[str, float]]


@torch.inference_mode()
def gated_branch(model: MAAGIQA, everything: np.ndarray, branch: np.ndarray) -> np.ndarray:
    """What the branch predicts (M,), as far from the mean MOS as the gate lets it."""
    features, summaries = np.split(everything, [QualityBranch.width], axis=1)
    judged = model.judge(torch.from_numpy(summaries.reshape(-1, *SUMMARY)), torch.from_numpy(features))
    mean = model.bias.item()
    return mean + judged.gate[:, 2].numpy() * (branch - mean)


def choose_blend(experts: np.ndarray, branch: np.ndarray, mos: np.ndarray) -> Blend:
    """The weight, in steps of 0.05, with the best SRCC + PLCC of val predictions (M,)."""
    table = []
    for weight in np.arange(0, 0.95, 0.05).round(2):
        blended = (1 - weight) * experts + weight * branch
        srcc, plcc = spearmanr(blended, mos)[0], pearsonr(blended, mos)[0]
        table.append({"weight": float(weight), "srcc": float(srcc), "plcc": float(plcc)})
    best = max(table, key=lambda row: row["srcc"] + row["plcc"])
    return Blend(best["weight"], table)


@torch.no_grad()
def join_branch(model: MAAGIQA, branch: QualityRegressor, weight: float) -> None:
    """Let the branch into the quality expert's verdict.

    Afterwards the score is b + (1 - weight) sum_i g_i v_i + weight g_q (q - b): v_i the verdicts
    before, q the branch's own prediction. The model's own branch, in integers, is to be set by the caller.
    """
    for layer in (model.semantic_expert, model.coherence_expert, model.quality_expert):
        layer.weight.mul_(1 - weight)
        layer.bias.mul_(1 - weight)
    model.quality_expert.weight[:, : QualityBranch.width] += weight * branch.head.weight
    model.quality_expert.bias.add_(weight * (branch.head.bias - model.bias))
