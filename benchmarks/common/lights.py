"""The recipe's settings and parts judged in two lights: on generators that it knows, and on others.

Known: fitted on train of `official`. Unseen: each generator of AGIQA-3K by a fit to all images of the
others, whatever their part of the split.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy.special import expit

from benchmarks.common.features import Seen
from benchmarks.common.statistics_of_scores import pearson, srcc
from pyiqa_ma_agiqa.compact.arch import EVERYTHING
from pyiqa_ma_agiqa.compact.familiarity import CLOSES, QUANTILES, SLOPE
from pyiqa_ma_agiqa.training.closed_form import Rated, ridge
from pyiqa_ma_agiqa.training.experts_stage import LATE, ExpertsStageConfig, fit, held_out, prior

ALL = np.ones(EVERYTHING, bool)
OPEN, CLOSED, BY_FAMILIARITY = "open", "closed", "by familiarity"


@dataclass(frozen=True)
class Variant:
    """A recipe.

    Attributes:
        config: its settings.
        kept: (15104,) what the regressions may read.
        gate: how the quality expert is gated.
    """

    config: ExpertsStageConfig = field(default_factory=ExpertsStageConfig)
    kept: np.ndarray = field(default_factory=lambda: ALL)
    gate: str = BY_FAMILIARITY


@dataclass
class Fold:
    """Rows of the images that are fitted and of those that are asked for.

    Attributes:
        gate: (len(asked),) of the quality expert, as the recipe has it.
    """

    fitted: np.ndarray
    asked: np.ndarray
    gate: np.ndarray

    def with_gate(self, seen: Seen, config: ExpertsStageConfig) -> Fold:
        """The same with the gate that the recipe gives to what the networks say."""
        return Fold(self.fitted, self.asked, gates(seen, self.fitted, self.asked, config))


def folds(seen: Seen, known: Iterable[str], config: ExpertsStageConfig) -> dict[str, Fold]:
    """A fold for each generator, and the one of `official`, named "".

    Args:
        known: the parts that the fit to train is asked for.
    """
    ratings = seen.ratings
    asked = {"": np.flatnonzero(np.isin(ratings.part, list(known)))}
    fitted = {"": ratings.rows("train")}
    for name in np.unique(ratings.generators):
        asked[str(name)] = np.flatnonzero(ratings.generators == name)
        fitted[str(name)] = np.flatnonzero(ratings.generators != name)
    return {name: Fold(fitted[name], asked[name], np.ones(0)).with_gate(seen, config) for name in asked}


def known_folds(rated: Rated, config: ExpertsStageConfig) -> Iterator[np.ndarray]:
    """The folds (M,) by which `calibrate` predicts known images."""
    of_row = np.random.default_rng(config.seed).integers(config.folds, size=len(rated))
    return (of_row == fold for fold in np.unique(of_row))


def gates(seen: Seen, fitted: np.ndarray, asked: np.ndarray, config: ExpertsStageConfig) -> np.ndarray:
    """Gate (len(asked),) of the quality expert by familiarity with the fitted images."""
    inputs, rated = seen.everything[fitted], seen.rated(fitted, config.rater_weight)
    of_known = held_out(inputs, rated, known_folds(rated, config), lambda x, some: fit(x, some, config))
    known = np.percentile(of_known.strangeness, np.linspace(0, 100, QUANTILES))
    _, _, strangeness = fit(inputs, rated, config).predict(seen.everything[asked])
    return expit((known[CLOSES] - strangeness) / (SLOPE * max(known[75] - known[25], 1e-6)))


def regression(seen: Seen, fold: Fold, variance: np.ndarray, config: ExpertsStageConfig) -> np.ndarray:
    """MOS (len(asked),) by one regression.

    Args:
        variance: prior variance (15104,) of each weight, up to a factor.
    """
    read = variance > 0
    inputs, rated = seen.everything[fold.fitted][:, read], seen.rated(fold.fitted, config.rater_weight)
    scale = (np.sqrt(variance[read] / variance.sum()) / (inputs.std(0) + 1e-6)).astype(np.float32)
    centre = inputs.mean(0)
    weights, intercept = ridge((inputs - centre) * scale, rated, config.ridge, config.generator_variance)
    return (seen.everything[fold.asked][:, read] - centre) @ (scale * weights) + intercept


def predicted(seen: Seen, fold: Fold, variant: Variant) -> np.ndarray:
    """Scores (len(asked),) of a variant, the gate left as the fold has it."""
    variance = prior(variant.config) * variant.kept
    alone = together = np.zeros(len(fold.asked))
    if variant.gate != OPEN:
        alone = regression(seen, fold, variance * LATE, variant.config)
    if variant.gate != CLOSED:
        together = regression(seen, fold, variance, variant.config)
    gate = {OPEN: 1.0, CLOSED: 0.0, BY_FAMILIARITY: fold.gate}[variant.gate]
    return alone + gate * (together - alone)


def of_unseen(mos: np.ndarray, generators: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Mean of the SRCC within each generator, and pooled SRCC, of scores by fits without it, (M,)."""
    within = [srcc(scores[generators == name], mos[generators == name]) for name in np.unique(generators)]
    return {"mean_srcc": float(np.mean(within)), "pooled_srcc": float(srcc(scores, mos))}


def of_known(mos: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """SRCC and PLCC of raw scores (M,)."""
    return {"srcc": float(srcc(scores, mos)), "plcc": float(pearson(scores, mos))}


def both_lights(seen: Seen, fold: dict[str, Fold], variant: Variant) -> dict[str, dict[str, float]]:
    """Figures of a variant by part of `official` that is asked for, and "unseen"."""
    known = np.full(len(seen.mos), np.nan)
    known[fold[""].asked] = predicted(seen, fold[""], variant)
    found = {}
    for part in ("val", "test"):
        rows = seen.ratings.rows(part)
        if np.isfinite(known[rows]).all():
            found[part] = of_known(seen.mos[rows], known[rows])
    unseen = np.empty(len(seen.mos))
    for name, one in fold.items():
        if name:
            unseen[one.asked] = predicted(seen, one, variant)
    return found | {"unseen": of_unseen(seen.mos, seen.generators, unseen)}
