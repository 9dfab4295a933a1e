"""What the shipped model makes of images, and what a change of its experts is linear in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ..compact.arch import MAAGIQA
from ..compact.arithmetic import integers
from ..compact.preprocessing import branch_view, encoder_view
from ..compact.quality import QualityBranch
from ..compact.semantic import SUMMARY
from ..input_checks import read_tensor
from ..training.experts_stage import LATE

AT_ONCE = 256
"""Images that are judged at once; bounds the memory."""


@torch.inference_mode()
def look(model: MAAGIQA, paths: list[Path]) -> np.ndarray:
    """What both networks say of M images, (M, 15104): mean branch features, then the tower's summary.

    Raises:
        InputError: an image cannot be read.
    """
    said = np.empty((len(paths), len(LATE)), np.float32)
    for place, path in enumerate(tqdm(paths, desc="images", disable=None)):
        pixels = read_tensor(path)
        summary, features = model.backbone_passes(encoder_view(pixels), branch_view(pixels))
        said[place] = torch.cat([integers.mean(features, (2, 3)), summary.flatten(1)], 1)[0].numpy()
    return said


@dataclass
class Seen:
    """M images through the eyes of the shipped model.

    Attributes:
        score: (M,).
        half_width: (M,), half of the shipped interval.
        inputs: (M, 15104), what the experts read, standardised; what the quality expert alone reads is
            times its gate.
    """

    score: np.ndarray
    half_width: np.ndarray
    inputs: np.ndarray

    def kernel(self) -> np.ndarray:
        """(M, M), how alike two images are to the experts; about 1 on the diagonal."""
        return (self.inputs @ self.inputs.T).astype(np.float64)


@torch.inference_mode()
def seen(model: MAAGIQA, said: np.ndarray) -> Seen:
    """Images of which the networks say (M, 15104)."""
    familiarity = model.familiarity
    inputs = said - familiarity.centre.numpy()
    inputs *= familiarity.scale.numpy()
    score, half_width = np.empty((2, len(said)))
    for first in range(0, len(said), AT_ONCE):
        some = slice(first, first + AT_ONCE)
        features, summaries = torch.from_numpy(said[some]).split([QualityBranch.width, math.prod(SUMMARY)], 1)
        judged = model.judge(summaries.unflatten(1, SUMMARY), features)
        score[some] = judged.score[:, 0].numpy()
        half_width[some] = (judged.interval[:, 1] - judged.score[:, 0]).numpy()
        inputs[some, ~LATE] *= judged.gate[:, 2:].numpy()
    return Seen(score, half_width, inputs)
