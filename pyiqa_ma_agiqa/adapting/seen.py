"""What the shipped model makes of images, and what a change of its experts is linear in."""

from __future__ import annotations

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
def look(model: MAAGIQA, paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """What the networks say of M images: mean branch features (M, 1280) and the tower's summaries (M, 18432).

    Raises:
        InputError: an image cannot be read.
    """
    features = np.empty((len(paths), QualityBranch.width), np.float32)
    summaries = np.empty((len(paths), len(LATE)), np.float32)
    for place, path in enumerate(tqdm(paths, desc="images", disable=None)):
        pixels = read_tensor(path)
        summary, of_patches = model.backbone_passes(encoder_view(pixels), branch_view(pixels))
        features[place] = integers.mean(of_patches, (2, 3))[0].numpy()
        summaries[place] = summary.flatten().numpy()
    return features, summaries


@dataclass
class Seen:
    """M images through the eyes of the shipped model.

    Attributes:
        score: (M,).
        half_width: (M,), half of the shipped interval.
        inputs: (M, 18432), the tower's summary, standardised; what the quality expert alone reads of it is
            times its gate.
    """

    score: np.ndarray
    half_width: np.ndarray
    inputs: np.ndarray

    def kernel(self) -> np.ndarray:
        """(M, M), how alike two images are to the experts; about 1 on the diagonal."""
        return (self.inputs @ self.inputs.T).astype(np.float64)


@torch.inference_mode()
def seen(model: MAAGIQA, features: np.ndarray, summaries: np.ndarray) -> Seen:
    """Images of which the networks say mean branch features (M, 1280) and summaries (M, 18432)."""
    familiarity = model.familiarity
    inputs = summaries - familiarity.centre.numpy()
    inputs *= familiarity.scale.numpy()
    score, half_width = np.empty((2, len(summaries)))
    for first in range(0, len(summaries), AT_ONCE):
        some = slice(first, first + AT_ONCE)
        summary = torch.from_numpy(summaries[some].reshape(-1, *SUMMARY))
        judged = model.judge(summary, torch.from_numpy(features[some]))
        score[some] = judged.score[:, 0].numpy()
        half_width[some] = (judged.interval[:, 1] - judged.score[:, 0]).numpy()
        inputs[some, ~LATE] *= judged.gate[:, 2:].numpy()
    return Seen(score, half_width, inputs)
