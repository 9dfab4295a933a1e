"""Two sets of scores compared: means, difference and win rate, with bootstrap intervals."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from itertools import takewhile
from pathlib import PurePath
from typing import NamedTuple

import numpy as np

RESAMPLES = 5000
INTERVAL = (0.025, 0.975)
"""Quantiles of the 95 % interval."""
SEED = 0


class Estimate(NamedTuple):
    """A figure with its 95 % bootstrap interval; the ends are NaN where one image alone decides."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """B against A, higher scores being better.

    Attributes:
        mean_a: mean of all scores of A.
        mean_b: mean of all scores of B.
        difference: mean of B minus mean of A; over the pairs where there are some.
        win_rate: share of pairs in which B has the higher score, a tie counting half. Without pairs
            the probability that a random image of B has a higher score than a random one of A.
        leads: (P,) B minus A for each pair; empty if A and B were compared as separate sets.
    """

    mean_a: Estimate
    mean_b: Estimate
    difference: Estimate
    win_rate: Estimate
    leads: np.ndarray

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return len(self.leads)


def compare(a: np.ndarray, b: np.ndarray, pairs: np.ndarray) -> Comparison:
    """Compare two sets of scores.

    Args:
        a: (N,) finite scores, N >= 1.
        b: (M,) finite scores, M >= 1.
        pairs: (P, 2) rows of a and of b that belong together; empty for separate sets.
    """
    leads = b[pairs[:, 1]] - a[pairs[:, 0]]
    if len(leads):
        difference = bootstrap(np.mean, leads)
        win_rate = bootstrap(np.mean, np.heaviside(leads, 0.5))
    else:
        difference = bootstrap(lambda first, second: second.mean() - first.mean(), a, b)
        win_rate = _superiority(a, b)
    return Comparison(bootstrap(np.mean, a), bootstrap(np.mean, b), difference, win_rate, leads)


def bootstrap(statistic: Callable[..., float], *samples: np.ndarray) -> Estimate:
    """Percentile bootstrap, with one seed for all.

    Args:
        statistic: of as many arrays as there are samples.
        samples: (N,) each, of sizes of their own; each is resampled by itself.
    """
    value = float(statistic(*samples))
    if min(map(len, samples)) < 2:
        return Estimate(value, float("nan"), float("nan"))
    random = np.random.default_rng(SEED)
    drawn = [
        statistic(*(sample[random.integers(len(sample), size=len(sample))] for sample in samples))
        for _ in range(RESAMPLES)
    ]
    return Estimate(value, *np.quantile(drawn, INTERVAL).tolist())


def _superiority(a: np.ndarray, b: np.ndarray) -> Estimate:
    """P(B > A) + P(B = A) / 2: Mann and Whitney's U over the number of pairs."""
    # Places in the sorted values stand for the values, so that no resample needs sorting.
    values, places = np.unique(np.concatenate([a, b]), return_inverse=True)

    def statistic(first: np.ndarray, second: np.ndarray) -> float:
        counts = np.bincount(first, minlength=len(values))
        below = np.cumsum(counts) - counts / 2
        return float(below[second].mean() / len(first))

    return bootstrap(statistic, places[: len(a)], places[len(a) :])


def pairs_by_name(a: list[str], b: list[str]) -> np.ndarray:
    """Rows (P, 2) of a and of b whose names match.

    Names match if the paths below the folder that all of a side share are the same, or the names of
    the files; whichever pairs more. A name that a side has twice matches nothing. If less than half
    of the smaller side is matched, the matches count as accidents and there are no pairs.
    """
    found = max((_matches(keys(a), keys(b)) for keys in (_below_the_shared_folder, _file_names)), key=len)
    return found if 2 * len(found) >= min(len(a), len(b)) else found[:0]


def _below_the_shared_folder(paths: list[str]) -> list[str]:
    parts = [PurePath(path).parts for path in paths]
    folders = [part[:-1] for part in parts]
    # What the first and the last in order share, all share.
    ends = zip(min(folders), max(folders), strict=False)
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], ends))
    return ["/".join(part[shared:]) for part in parts]


def _file_names(paths: list[str]) -> list[str]:
    return [PurePath(path).name for path in paths]


def _matches(a: list[str], b: list[str]) -> np.ndarray:
    once_a, once_b = ({name for name, count in Counter(names).items() if count == 1} for names in (a, b))
    row_of = {name: row for row, name in enumerate(b) if name in once_b}
    matched = [(row, row_of[name]) for row, name in enumerate(a) if name in once_a and name in row_of]
    return np.array(matched, dtype=int).reshape(-1, 2)
