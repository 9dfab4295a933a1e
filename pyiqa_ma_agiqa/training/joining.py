"""How a tuned quality branch joins experts that were fitted without it."""

from __future__ import annotations

import torch

from ..compact.arch import MAAGIQA
from ..compact.quality import QualityBranch
from .quality_stage import QualityRegressor


@torch.no_grad()
def join_branch(model: MAAGIQA, branch: QualityRegressor, blend: float) -> None:
    """Let the branch into the quality expert's verdict.

    Afterwards the score is b + (1 - blend) sum_i g_i v_i + blend g_q (q - b): v_i the verdicts before, q the
    branch's own prediction. The model's own branch, in integers, is to be set by the caller.

    Args:
        model: its experts were fitted to what the tower says.
        branch: its head is centred; see `centre_head`.
        blend: weight of the branch, 0 to 1.
    """
    for layer in (model.semantic_expert, model.coherence_expert, model.quality_expert):
        layer.weight.mul_(1 - blend)
        layer.bias.mul_(1 - blend)
    model.quality_expert.weight[:, : QualityBranch.width] += blend * branch.head.weight
    model.quality_expert.bias.add_(blend * (branch.head.bias - model.bias))
