"""A score of one's own, written into the experts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..compact.arch import MAAGIQA
from ..compact.quality import QualityBranch
from ..compact.semantic import SUMMARY, late_parts
from ..compact.storage import save_adaptation
from ..errors import InputError
from ..training.checkpoint import write_whole
from ..training.experts_stage import LATE

CHANGED = (
    *(
        f"{expert}_expert.{tensor}"
        for expert in ("semantic", "coherence", "quality")
        for tensor in ("weight", "bias")
    ),
    *("bias", "familiarity.width"),
)
"""The tensors that an adaptation changes."""


@torch.no_grad()
def move_experts(model: MAAGIQA, slope: float, intercept: float, weights: np.ndarray) -> None:
    """Make the score slope * score + intercept + weights . inputs.

    Args:
        weights: (18432,), on the inputs of `Seen`.
    """
    familiarity = model.familiarity
    unscaled = weights * familiarity.scale.double().numpy()
    centre = familiarity.centre.double().numpy()
    content, coherence = late_parts(unscaled.reshape(SUMMARY))
    content_centre, coherence_centre = late_parts(centre.reshape(SUMMARY))
    pixels = np.zeros(QualityBranch.width)
    of_quality = np.concatenate([pixels, np.where(LATE, 0, unscaled)])
    for expert, added, middle in (
        (model.semantic_expert, content, content_centre),
        (model.coherence_expert, coherence, coherence_centre),
        (model.quality_expert, of_quality, np.concatenate([pixels, centre])),
    ):
        _add(expert, slope, added.reshape(-1), middle.reshape(-1))
    model.bias.copy_(slope * model.bias.double() + intercept)


def _add(expert: nn.Linear, slope: float, added: np.ndarray, middle: np.ndarray) -> None:
    expert.weight.copy_(slope * expert.weight.double() + torch.from_numpy(added))
    expert.bias.copy_(slope * expert.bias.double() - added @ middle)


def write_adaptation(model: MAAGIQA, out: Path, **facts: str) -> None:
    """Write what an adaptation changed of the shipped model; the file appears whole or not at all.

    Raises:
        InputError: it cannot be written, or the ratings are too large for float32.
    """
    state = model.state_dict()
    if not all(state[name].isfinite().all() for name in CHANGED):
        raise InputError("the ratings are too large to compute with; give them in another unit")
    write_whole(out, lambda aside: save_adaptation(model, CHANGED, aside, **facts))
