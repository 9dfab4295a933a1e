"""Settings and parts of the recipe judged in two lights: on generators that it knows, and on others.

The closed form is fitted again for each setting, without the degraded copies, which would double its time;
gate and branch of each fold are those of the model that was trained for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from benchmarks.common.folds import KNOWN, Fold
from benchmarks.common.statistics_of_scores import pearson, srcc
from pyiqa_ma_agiqa.training.closed_form import Seen, ridge
from pyiqa_ma_agiqa.training.data import Ratings
from pyiqa_ma_agiqa.training.experts_stage import (
    LATE,
    ExpertsStageConfig,
    fit,
    gate_of,
    of_known_images,
    penalties,
    prior,
    rating_noise,
    standardisation,
)

ALL = np.ones(len(LATE), bool)
OPEN, CLOSED, BY_FAMILIARITY = "open", "closed", "by familiarity"


@dataclass(frozen=True)
class Variant:
    """A recipe.

    Attributes:
        config: settings of the closed form.
        blend: weight of the branch.
        kept: (18432,) what the regressions may read of the tower.
        gate: how the quality expert is gated.
    """

    config: ExpertsStageConfig
    blend: float
    kept: np.ndarray = field(default_factory=lambda: ALL)
    gate: str = BY_FAMILIARITY


@dataclass
class Images:
    """Rated images and what the tower says of them, (M, 18432)."""

    ratings: Ratings
    summaries: np.ndarray

    def told(self, rows: np.ndarray, rater_weight: float) -> Seen:
        """What a fit is told of some of them, as `seen_by` of training has it, without degraded copies."""
        ratings = self.ratings
        noise = rating_noise(ratings.deviation[rows], rater_weight)
        none = np.zeros((0, self.summaries.shape[1]), np.float32)
        return Seen(
            self.summaries[rows], ratings.mos[rows], ratings.generators[rows], noise, none, np.zeros(0, int)
        )


def gates(images: Images, fold: Fold, config: ExpertsStageConfig) -> np.ndarray:
    """Gate (len(asked),) of the quality expert, as training would set it for these summaries."""
    seen = images.told(fold.fitted, config.rater_weight)
    _, known = of_known_images(seen, config)
    _, _, strangeness = fit(seen, config).predict(images.summaries[fold.asked])
    return gate_of(strangeness, known)


def regression(images: Images, fold: Fold, variance: np.ndarray, config: ExpertsStageConfig) -> np.ndarray:
    """MOS (len(asked),) by one regression.

    Args:
        variance: prior variance (18432,) of each weight, up to a factor.
    """
    read = variance > 0
    seen = images.told(fold.fitted, config.rater_weight)
    inputs = seen.summaries[:, read]
    centre, scale = standardisation(inputs, variance[read] / variance.sum())
    weights, intercept = ridge((inputs - centre) * scale, seen.falls[:, read], seen, penalties(config))
    return (images.summaries[fold.asked][:, read] - centre) @ (scale * weights) + intercept


def predicted(images: Images, fold: Fold, variant: Variant) -> np.ndarray:
    """Scores (len(asked),) of a variant: the closed form, then joined by the branch."""
    variance = prior(variant.config) * variant.kept
    branch, blend = fold.table["branch"].to_numpy(), variant.blend
    gate = {OPEN: 1.0, CLOSED: 0.0, BY_FAMILIARITY: fold.table["gate"].to_numpy()}[variant.gate]
    alone = together = np.zeros(len(branch))
    if variant.gate != OPEN:
        alone = regression(images, fold, variance * LATE, variant.config)
    if variant.gate != CLOSED and blend < 1:
        together = regression(images, fold, variance, variant.config)
    return joined(alone, together, branch, gate, blend)


def joined(
    alone: np.ndarray, together: np.ndarray, branch: np.ndarray, gate: np.ndarray | float, blend: float
) -> np.ndarray:
    """Scores (M,) of both regressions and the branch behind a gate, as `training/joining.py` joins them."""
    return alone + gate * ((1 - blend) * (together - alone) + blend * (branch - alone))


def of_unseen(mos: np.ndarray, generators: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Mean of the SRCC within each generator, and pooled SRCC, of scores by models without it, (M,)."""
    within = [srcc(scores[generators == name], mos[generators == name]) for name in np.unique(generators)]
    return {"mean_srcc": float(np.mean(within)), "pooled_srcc": float(srcc(scores, mos))}


def of_known(mos: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """SRCC and PLCC of raw scores (M,)."""
    return {"srcc": float(srcc(scores, mos)), "plcc": float(pearson(scores, mos))}


def both_lights(
    ratings: Ratings, fold: dict[str, Fold], scores: Callable[[Fold], np.ndarray]
) -> dict[str, dict[str, float]]:
    """Figures by part of `official` that is asked for, and "unseen".

    Args:
        scores: (len(asked),) of the images that a fold is asked for.
    """
    known, unseen = (np.full(len(ratings.mos), np.nan) for _ in range(2))
    for name, one in fold.items():
        (known if name == KNOWN else unseen)[one.asked] = scores(one)
    found = {}
    for part in ("val", "test"):
        rows = ratings.rows(part)
        if np.isfinite(known[rows]).all():
            found[part] = of_known(ratings.mos[rows], known[rows])
    return found | {"unseen": of_unseen(ratings.mos, ratings.generators, unseen)}
