"""How a tuned quality branch joins experts that were fitted without it."""

from __future__ import annotations

import torch

from ..compact.arch import MAAGIQA
from ..compact.quality import QualityBranch
from ..compact.semantic import SUMMARY, late_parts
from .quality_stage import QualityRegressor


@torch.no_grad()
def join_branch(model: MAAGIQA, branch: QualityRegressor, blend: float) -> None:
    r"""Let the branch into the quality expert's verdict.

    .. math:: s = m + g \left((1 - w) v_q + w (q - m)\right), \quad m = v_{sem} + v_{coh} + b

    m is what the experts on meaning say, :math:`v_q` the verdict of the quality expert before, q the branch's
    own prediction, w the blend. So with the gate g closed the score is m, with or without a branch. The
    model's own branch, in integers, is to be set by the caller.

    Args:
        model: its experts were fitted to what the tower says.
        branch: its head is centred; see `centre_head`.
        blend: weight of the branch, 0 to 1.
    """
    content, coherence, quality = model.semantic_expert, model.coherence_expert, model.quality_expert
    quality.weight.mul_(1 - blend)
    pixels, summary = quality.weight.split([QualityBranch.width, model.familiarity.centre.numel()], dim=1)
    pixels += blend * branch.head.weight
    for part, expert in zip(late_parts(summary.view(SUMMARY)), (content, coherence), strict=True):
        part -= blend * expert.weight.view(part.shape)
    meaning = content.bias + coherence.bias + model.bias
    quality.bias.mul_(1 - blend).add_(blend * (branch.head.bias - meaning))
