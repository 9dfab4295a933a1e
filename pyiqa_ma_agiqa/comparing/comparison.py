"""Two sets of scores compared: means, difference and win rate, with bootstrap intervals.

A resample of N images is drawn as how often each score comes: one multinomial draw, which is what N
draws with replacement amount to. Scores of more than `GROUPS` values are gathered in that many bins of
equal width; what a bin adds to a mean is then its own mean for each draw, and a normal deviate of its
own variance. So the work depends on the number of groups, not on the number of images.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

RESAMPLES = 5000
INTERVAL = (0.025, 0.975)
"""Quantiles of the 95 % interval."""
SEED = 0
GROUPS = 512


class Estimate(NamedTuple):
    """A figure with its 95 % bootstrap interval; the ends are NaN where one image alone decides."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """B against A.

    Attributes:
        mean_a: mean of all scores of A.
        mean_b: mean of all scores of B.
        paired_means: means of A and of B over the pairs; None for separate sets.
        difference: mean of B minus mean of A; over the pairs where there are some.
        win_rate: share of pairs in which B has the better score, a tie counting half. Without pairs
            the probability that a random image of B has a better score than a random one of A.
        leads: (P,) B minus A for each pair; empty if A and B were compared as separate sets.
    """

    mean_a: Estimate
    mean_b: Estimate
    paired_means: tuple[Estimate, Estimate] | None
    difference: Estimate
    win_rate: Estimate
    leads: np.ndarray

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return len(self.leads)


def compare(a: np.ndarray, b: np.ndarray, pairs: np.ndarray, lower_better: bool = False) -> Comparison:
    """Compare two sets of scores.

    Args:
        a: (N,) finite scores, N >= 1.
        b: (M,) finite scores, M >= 1.
        pairs: (P, 2) rows of a and of b that belong together; empty for separate sets.
        lower_better: whether the lower one of two scores wins.
    """
    mean_a, mean_b = mean(a), mean(b)
    sign = -1 if lower_better else 1
    if not len(pairs):
        difference = _difference_of_means(a, b)
        return Comparison(mean_a, mean_b, None, difference, _superiority(sign * a, sign * b), np.empty(0))
    first, second = a[pairs[:, 0]], b[pairs[:, 1]]
    leads = second - first
    paired = mean(first), mean(second)
    # To the last bit the difference of the means that are shown beside it.
    difference = mean(leads)._replace(value=paired[1].value - paired[0].value)
    return Comparison(mean_a, mean_b, paired, difference, mean(np.heaviside(sign * leads, 0.5)), leads)


def mean(values: np.ndarray) -> Estimate:
    """The mean of (N,) values, with the interval of the percentile bootstrap."""
    value = float(values.mean())
    if len(values) < 2:
        return Estimate(value, float("nan"), float("nan"))
    return _estimate(value, value + _deviations(values, np.random.default_rng(SEED)))


def _difference_of_means(a: np.ndarray, b: np.ndarray) -> Estimate:
    value = float(b.mean()) - float(a.mean())
    if min(len(a), len(b)) < 2:
        return Estimate(value, float("nan"), float("nan"))
    random = np.random.default_rng(SEED)
    return _estimate(value, value - _deviations(a, random) + _deviations(b, random))


def _superiority(a: np.ndarray, b: np.ndarray) -> Estimate:
    """P(B > A) + P(B = A) / 2: Mann and Whitney's U over the number of pairs.

    With more than `GROUPS` values, resamples are those of its first-order part: the mean over B of the
    share of A that is lower, plus the mean over A of the share of B that is higher. What that leaves
    out is of the order of 1 / (N M) in the variance (DeLong et al., Biometrics 1988).
    """
    below = _shares_below(b, a)
    value = float(below.mean())
    if min(len(a), len(b)) < 2:
        return Estimate(value, float("nan"), float("nan"))
    random = np.random.default_rng(SEED)
    distinct = np.unique(np.concatenate([a, b]))
    if len(distinct) > GROUPS:
        drawn = value + _deviations(below, random) + _deviations(1 - _shares_below(a, b), random)
        return _estimate(value, np.clip(drawn, 0, 1))
    counts_a, counts_b = (_resampled_counts(side, distinct, random) for side in (a, b))
    lower = np.cumsum(counts_a, axis=1) - counts_a / 2
    return _estimate(value, (lower * counts_b).sum(axis=1) / (len(a) * len(b)))


def _shares_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The share of the others that is lower, a tie counting half, for each of the sorted values."""
    values, others = np.sort(values), np.sort(others)
    ends = np.searchsorted(others, values, "left"), np.searchsorted(others, values, "right")
    return (ends[0] + ends[1]) / (2 * len(others))


def _resampled_counts(side: np.ndarray, distinct: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(RESAMPLES, G): how often each of the distinct values comes in resamples of a side."""
    own, sizes = np.unique(side, return_counts=True)
    counts = np.zeros((RESAMPLES, len(distinct)))
    counts[:, np.searchsorted(distinct, own)] = _multinomial(sizes, random)
    return counts


def _deviations(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(RESAMPLES,): means of resamples minus the mean of the values."""
    sizes, means, variances = _grouped(values)
    counts = _multinomial(sizes, random).astype(float)
    within = np.sqrt(counts @ variances) * random.standard_normal(RESAMPLES)
    return (counts @ (means - values.mean()) + within) / len(values)


def _grouped(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes, means and variances (G,) of groups of like values, G <= GROUPS."""
    distinct, sizes = np.unique(values, return_counts=True)
    if len(distinct) <= GROUPS:
        return sizes, distinct, np.zeros(len(distinct))
    inner_edges = np.linspace(distinct[0], distinct[-1], GROUPS + 1)[1:-1]
    places = np.searchsorted(inner_edges, distinct)
    # Empty bins go.
    places = np.unique(places, return_inverse=True)[1]
    total = np.bincount(places, sizes)
    means = np.bincount(places, sizes * distinct) / total
    variances = np.bincount(places, sizes * (distinct - means[places]) ** 2) / total
    return total.astype(int), means, variances


def _multinomial(sizes: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(RESAMPLES, G): how often each group comes in resamples of all."""
    return random.multinomial(sizes.sum(), sizes / sizes.sum(), size=RESAMPLES)


def _estimate(value: float, drawn: np.ndarray) -> Estimate:
    return Estimate(value, *np.quantile(drawn, INTERVAL).tolist())
