"""Does it help? Figures of images that a fit had not seen, before and after, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from .strength import Fitted, parts

FOLDS = 10
"""Parts of the images, each predicted by a fit to the others that chooses its strength anew."""
REPEATS = 1000
"""Resamples of the bootstrap."""
ENDS = (2.5, 97.5)
"""Percentiles of a 95 % interval."""

Statistic = Callable[[np.ndarray, np.ndarray], float]
"""Of scores (M,) and of what some rows of the table say."""


@dataclass
class Figure:
    """A figure with its 95 % interval of the bootstrap."""

    value: float
    low: float
    high: float


@dataclass
class BeforeAndAfter:
    """A figure of the shipped score, of the adapted one, and how much more the second is."""

    before: Figure
    after: Figure
    gain: Figure


def out_of_fold(
    kernel: np.ndarray, score: np.ndarray, fit: Callable[[np.ndarray], Fitted]
) -> tuple[np.ndarray, np.ndarray]:
    """The score (M,) that each image gets of a fit without it, and (M,) the mean of all images by that fit.

    Ranks of images of several fits are of the first less the second: a fit's level is low where the ratings
    that it has not seen are high, which has nothing to do with how it ranks.

    Args:
        kernel: (M, M).
        score: (M,), the shipped one.
        fit: to the images with these numbers.
    """
    found, level = np.empty(len(score)), np.empty(len(score))
    for part in parts(len(score), FOLDS):
        others = np.flatnonzero(~part)
        of_all = fit(others).predict(score, kernel[:, others])
        found[part], level[part] = of_all[part], of_all.mean()
    return found, level


def srcc(scores: np.ndarray, ratings: np.ndarray) -> float:
    """Spearman's rank correlation; 0 where one side is constant."""
    ranks = [rankdata(values) for values in (scores, ratings)]
    deviations = [values - values.mean() for values in ranks]
    size = np.sqrt((deviations[0] @ deviations[0]) * (deviations[1] @ deviations[1]))
    return float(deviations[0] @ deviations[1] / size) if size else 0.0


def rmse(scores: np.ndarray, ratings: np.ndarray) -> float:
    """Root of the mean squared error, in units of the ratings."""
    return float(np.sqrt(np.mean((scores - ratings) ** 2)))


def share_right(leads: np.ndarray, _: np.ndarray) -> float:
    """Part of the choices whose better image leads; half of a tie."""
    return float(((leads > 0) + (leads == 0) / 2).mean())


def resampled(images: int, pairs: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Rows of the bootstrap over images: of these, or of the pairs (P, 2) whose images are both drawn."""
    rng = np.random.default_rng(20)
    for _ in range(REPEATS):
        drawn = rng.integers(images, size=images)
        if pairs is not None:
            times = np.bincount(drawn, minlength=images)
            drawn = np.repeat(np.arange(len(pairs)), times[pairs].prod(1))
        if len(drawn):
            yield drawn


def compared(
    statistic: Statistic,
    before: np.ndarray,
    after: np.ndarray,
    said: np.ndarray,
    drawn: Iterable[np.ndarray],
) -> BeforeAndAfter:
    """A figure of two scores (M,) of the same rows, of which people said (M,).

    Args:
        drawn: see `resampled`.
    """

    def both(rows: np.ndarray | slice) -> tuple[float, float, float]:
        first, second = statistic(before[rows], said[rows]), statistic(after[rows], said[rows])
        return first, second, second - first

    low, high = np.percentile([both(rows) for rows in drawn], ENDS, axis=0)
    whole = both(slice(None))
    return BeforeAndAfter(*(Figure(*map(float, ends)) for ends in zip(whole, low, high, strict=True)))
