"""Made-up images as the networks see them, and models that are fitted to some of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.common import features
from benchmarks.common import folds as of_folds
from benchmarks.common.lights import Images
from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.training.data import Ratings
from pyiqa_ma_agiqa.training.experts_stage import LATE, ExpertsStageConfig, fit_experts
from pyiqa_ma_agiqa.training.joining import join_branch

CONFIG = ExpertsStageConfig(folds=2)
BLEND = 0.25


def rated(generators: np.ndarray, mos: np.ndarray, part: np.ndarray) -> Ratings:
    """Ratings of images that are no files."""
    deviation = np.random.default_rng(1).uniform(0.5, 1, len(mos)).astype(np.float32)
    paths = [Path(f"{name}_{row}.png") for row, name in enumerate(generators)]
    return Ratings(paths, mos.astype(np.float32), part, part == "train", generators, deviation)


def informed(ratings: Ratings, where: np.ndarray, strength: float = 0.3) -> np.ndarray:
    """Summaries (M, 18432) that tell the MOS in some places (18432,) and nothing elsewhere."""
    rng = np.random.default_rng(0)
    summaries = rng.standard_normal((len(ratings.mos), len(LATE)), np.float32)
    signs = rng.choice((-1, 1), where.sum()).astype(np.float32)
    summaries[:, where] += strength * (ratings.mos - 2)[:, None] * signs
    return summaries


def pixels_said(ratings: Ratings) -> np.ndarray:
    """Branch features (M, 1280), which tell the MOS a little; of an image they are always the same."""
    rows = [int(path.stem.rsplit("_", 1)[1]) for path in ratings.paths]
    noise = np.random.default_rng(2).standard_normal((1 + max(rows), 1280), np.float32)[rows]
    noise[:, 0] = ratings.mos + 0.5 * noise[:, 0]
    return noise


class Trained:
    """Models as training would make them of some of the images, one at a time; the last is kept.

    Attributes:
        before: state of the last one's experts before the branch joined, by the name of the fold.
    """

    def __init__(self, images: Images) -> None:
        torch.manual_seed(0)
        self.images, self.model = images, MAAGIQA()
        self.before: dict[str, dict[str, torch.Tensor]] = {}
        self.head = nn.Linear(1280, 1)
        nn.init.normal_(self.head.weight, std=0.005)
        nn.init.constant_(self.head.weight[:, 0], 0.8)

    def __call__(self, name: str) -> MAAGIQA:
        ratings = self.images.ratings
        fitted = np.flatnonzero(ratings.generators != name) if name else ratings.rows("train")
        fit_experts(self.model, self.images.told(fitted, CONFIG.rater_weight), CONFIG)
        self.before[name] = {key: value.clone() for key, value in self.model.state_dict().items()}
        predicted = self.predict(pixels_said(features.of_rows(ratings, fitted)))
        with torch.no_grad():
            self.head.bias.add_(float((ratings.mos[fitted] - predicted).mean()))
        join_branch(self.model, SimpleNamespace(head=self.head), BLEND)
        return self.model

    @torch.no_grad()
    def predict(self, said: np.ndarray) -> np.ndarray:
        return self.head(torch.from_numpy(said))[:, 0].numpy()


def folds_of(images: Images, known: tuple[str, ...], trained: Trained | None = None):
    """The folds of models as training would make them."""

    def seen(_, ratings: Ratings, __) -> features.Seen:
        rows = [int(path.stem.rsplit("_", 1)[1]) for path in ratings.paths]
        return features.Seen(ratings, images.summaries[rows], pixels_said(ratings))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_folds, "seen", seen)
        patch.setattr(of_folds, "features_of", lambda _, ratings, __: pixels_said(ratings))
        return of_folds.folds(trained or Trained(images), images.ratings, known, BLEND, Path())
