"""The figures of a comparison: against SciPy, against the plain bootstrap, by hand, and of a million."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import mannwhitneyu

from pyiqa_ma_agiqa.comparing import comparison
from pyiqa_ma_agiqa.comparing.comparison import GROUPS, compare, mean

NO_PAIRS = np.empty((0, 2), int)
RANDOM = np.random.default_rng(3)
OLD, NEW = RANDOM.normal(2.5, 0.5, 40), RANDOM.normal(2.8, 0.6, 60)
MILLION = 1_000_000


def by_scipy(statistic, *samples):
    result = scipy_bootstrap(
        samples, statistic, n_resamples=20_000, method="percentile", vectorized=True, paired=False
    )
    return result.confidence_interval


def side_by_side(count):
    return np.stack([np.arange(count)] * 2, axis=1)


def plain_bootstrap(statistic, *samples, resamples=4000):
    """Interval of resamples that are drawn image by image."""
    random = np.random.default_rng(1)
    drawn = [statistic(*(random.choice(sample, len(sample)) for sample in samples)) for _ in range(resamples)]
    return np.quantile(drawn, comparison.INTERVAL)


def superiority(a, b):
    a = np.sort(a)
    return (np.searchsorted(a, b, "left") + np.searchsorted(a, b, "right")).mean() / (2 * len(a))


def test_intervals_of_means_are_those_of_scipy():
    found = compare(OLD, NEW, NO_PAIRS)
    for estimate, sample in ((found.mean_a, OLD), (found.mean_b, NEW)):
        assert estimate.value == sample.mean()
        assert estimate[1:] == pytest.approx(tuple(by_scipy(np.mean, sample)), abs=0.015)
    interval = by_scipy(lambda a, b, axis: b.mean(axis) - a.mean(axis), OLD, NEW)
    assert found.difference.value == NEW.mean() - OLD.mean()
    assert found.difference[1:] == pytest.approx(tuple(interval), abs=0.02)


def test_the_interval_of_the_superiority_is_that_of_scipy():
    a, b = OLD.round(1), NEW.round(1)  # with ties
    found = compare(a, b, NO_PAIRS).win_rate
    result = scipy_bootstrap((a, b), superiority, n_resamples=3000, method="percentile", vectorized=False)
    assert found[1:] == pytest.approx(tuple(result.confidence_interval), abs=0.02)


@given(*[st.lists(st.integers(0, 6), min_size=1, max_size=9)] * 2)
def test_the_superiority_is_mann_and_whitneys_u(a, b):
    a, b = np.array(a, float), np.array(b, float)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "RESAMPLES", 2)
        found, reverse = (compare(a, b, NO_PAIRS, lower_better=lower) for lower in (False, True))
    by_hand = np.mean([1.0 if y > x else 0.5 if y == x else 0.0 for x in a for y in b])
    assert found.win_rate.value == pytest.approx(by_hand)
    assert found.win_rate.value == pytest.approx(mannwhitneyu(b, a).statistic / (len(a) * len(b)))
    assert found.win_rate.value == pytest.approx(superiority(a, b))
    assert reverse.win_rate.value == pytest.approx(1 - by_hand)
    assert found.pairs == 0


def test_a_bootstrap_by_hand():
    # Of the 27 resamples of 0, 0, 1 the mean is 0 in 8, 1/3 in 12, 2/3 in 6 and 1 in 1: the quantile at
    # 2.5 % is 0, and that at 97.5 % is 1, since up to 2/3 there are 96.3 %.
    assert mean(np.array([0.0, 0.0, 1.0])) == pytest.approx((1 / 3, 0, 1))


SHAPES = {
    "normal": lambda random, count: random.normal(3, 0.5, count),
    "skewed": lambda random, count: random.lognormal(0, 1.5, count),
    "one outlier": lambda random, count: np.append(random.normal(3, 0.5, count - 1), 500.0),
    "two values": lambda random, count: random.integers(0, 2, count).astype(float),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_grouped_values_have_the_interval_of_the_plain_bootstrap(shape):
    values = SHAPES[shape](np.random.default_rng(5), 4 * GROUPS)
    found = mean(values)
    assert found.value == values.mean()
    error = values.std() / np.sqrt(len(values))
    # The ends of two bootstraps of this many resamples differ by about 0.06 standard errors.
    assert found[1:] == pytest.approx(tuple(plain_bootstrap(np.mean, values)), abs=0.25 * error)


def test_what_varies_within_a_bin_counts():
    """One image is so far off that nearly all others are in two bins."""
    random = np.random.default_rng(9)
    values = np.append(random.normal(3, 0.5, MILLION - 1), 503.0)
    often = random.poisson(1, 20_000)  # how often that one is drawn
    drawn = (often - 1) * 500 / MILLION + random.normal(0, 0.5e-3, len(often))
    expected = values.mean() + np.quantile(drawn, comparison.INTERVAL)
    assert mean(values)[1:] == pytest.approx(tuple(expected), abs=0.1e-3)


@pytest.mark.parametrize("sizes", [(700, 800), (6, 1500)])
def test_the_superiority_of_many_has_the_interval_of_the_plain_bootstrap(sizes):
    random = np.random.default_rng(6)
    a, b = (random.normal(centre, 0.5, size) for centre, size in zip((2.5, 2.9), sizes, strict=True))
    found = compare(a, b, NO_PAIRS).win_rate
    assert found.value == pytest.approx(superiority(a, b))
    expected = plain_bootstrap(superiority, a, b, resamples=2000)
    assert found[1:] == pytest.approx(tuple(expected), abs=0.12 * np.ptp(expected))


def test_the_superiority_of_many_stays_a_probability(monkeypatch):
    monkeypatch.setattr(comparison, "RESAMPLES", 500)
    a, b = np.arange(1000.0), np.arange(999.0, 1999.0)  # one tie, else B is higher
    found = compare(a, b, NO_PAIRS).win_rate
    assert 0.99999 < found.low <= found.value <= found.high <= 1


class CountedDraws(np.random.Generator):
    """A generator that adds up how many numbers it was asked for."""

    drawn = 0

    def multinomial(self, n, pvals, size):
        CountedDraws.drawn += size * len(pvals)
        return super().multinomial(n, pvals, size)

    def standard_normal(self, size):
        CountedDraws.drawn += size
        return super().standard_normal(size)


@pytest.mark.parametrize("paired", [True, False])
def test_a_million_images_need_no_more_draws_than_a_thousand(paired, monkeypatch):
    monkeypatch.setattr(np.random, "default_rng", lambda seed: CountedDraws(np.random.PCG64(seed)))
    monkeypatch.setattr(comparison, "RESAMPLES", 200)
    drawn = []
    for count in (2 * GROUPS, MILLION):
        random = np.random.Generator(np.random.PCG64(7))
        a, b = random.normal(2.5, 0.5, count), random.normal(2.8, 0.6, count)
        CountedDraws.drawn = 0
        found = compare(a, b, side_by_side(count) if paired else NO_PAIRS)
        drawn.append(CountedDraws.drawn)
    # A million leaves fewer bins empty.
    assert 0 < drawn[1] < 3 * drawn[0]
    assert drawn[1] < 6 * 200 * (GROUPS + 1)
    # Closed forms: the standard errors of the means, of their difference and of a normal win rate.
    assert (found.mean_a.high - found.mean_a.low) / 2 == pytest.approx(1.96 * 0.5e-3, rel=0.2)
    error = math.hypot(0.5, 0.6) * 1e-3
    assert (found.difference.high - found.difference.low) / 2 == pytest.approx(1.96 * error, rel=0.2)
    assert found.win_rate.value == pytest.approx(0.6496, abs=0.002)
    assert found.win_rate.low < found.win_rate.value < found.win_rate.high


def test_pairs_by_hand():
    a, b = np.array([1.0, 2.0, 3.0, 9.0]), np.array([2.0, 3.5, 2.0, 1.0])
    pairs = np.array([[0, 1], [1, 0], [2, 2]])  # 1 and 3.5, 2 and 2, 3 and 2
    found = compare(a, b, pairs)
    assert found.leads.tolist() == [2.5, 0.0, -1.0]
    assert found.difference.value == pytest.approx(0.5)
    assert found.win_rate.value == pytest.approx(0.5)
    assert found.pairs == 3
    assert found.mean_a.value == 3.75  # of all, paired or not
    assert [estimate.value for estimate in found.paired_means] == [2.0, 2.5]


def test_the_difference_is_that_of_the_means_over_the_pairs():
    """Over all images B is the lower one, over the pairs the higher one."""
    a, b = np.append(OLD, [9.0] * 5), OLD[::-1] + 0.1
    pairs = side_by_side(len(OLD))
    pairs[:, 1] = pairs[::-1, 1]
    found = compare(a, b, pairs)
    assert found.mean_b.value < found.mean_a.value
    assert found.difference.value == found.paired_means[1].value - found.paired_means[0].value > 0
    assert found.difference.low > 0


def test_the_lower_one_wins_where_lower_is_better():
    a, b = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.5, 1.5, 3.0, 4.5])
    found = compare(a, b, side_by_side(4), lower_better=True)
    assert found.win_rate.value == 2.5 / 4
    assert found.difference.value == -0.125


def test_pairing_makes_the_interval_of_the_difference_narrow():
    better = OLD + 0.1 + RANDOM.normal(0, 0.05, len(OLD))
    paired = compare(OLD, better, side_by_side(len(OLD))).difference
    separate = compare(OLD, better, NO_PAIRS).difference
    assert paired.value == pytest.approx(separate.value)
    assert paired.high - paired.low < 0.2 * (separate.high - separate.low)
    assert paired.low > 0 > separate.low


def test_the_same_numbers_come_out_every_time():
    first, second = compare(OLD, NEW, NO_PAIRS), compare(OLD, NEW, NO_PAIRS)
    assert (first.difference, first.win_rate) == (second.difference, second.win_rate)


def test_one_image_has_no_interval():
    found = compare(np.array([1.0]), NEW, NO_PAIRS)
    assert math.isnan(found.mean_a.low) and math.isnan(found.difference.high)
    assert found.mean_b.low < found.mean_b.value < found.mean_b.high


@pytest.mark.parametrize("count", [2, 3, 3 * GROUPS])
def test_ties_leave_nothing_to_vary(count, monkeypatch):
    monkeypatch.setattr(comparison, "RESAMPLES", 200)
    same = np.full(count, 0.1)
    for pairs in (NO_PAIRS, side_by_side(count)):
        found = compare(same, same, pairs)
        assert found.mean_a == pytest.approx((0.1, 0.1, 0.1))
        assert found.difference == (0, 0, 0)
        assert found.win_rate == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("count", [3, 3 * GROUPS])
def test_a_set_against_itself(count, monkeypatch):
    monkeypatch.setattr(comparison, "RESAMPLES", 200)
    values = np.random.default_rng(8).normal(3, 1, count)
    found = compare(values, values, side_by_side(count))
    assert (found.difference, found.win_rate) == ((0, 0, 0), (0.5, 0.5, 0.5))
    apart = compare(values, values, NO_PAIRS)
    assert apart.difference.low < 0 < apart.difference.high
    assert apart.win_rate.low < 0.5 < apart.win_rate.high
