"""The statistics of the benchmarks against SciPy and against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import curve_fit
from scipy.stats import kendalltau, pearsonr, spearmanr

from benchmarks.common import statistics_of_scores as statistics
from benchmarks.common.agiqa3k import generator
from pyiqa_ma_agiqa.training.agreement import agreement


def sample(count: int = 80, noise: float = 0.4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    mos = rng.uniform(0.5, 4.5, count)
    return mos + noise * rng.standard_normal(count), mos, np.resize(["a", "b"], count)


def test_figures_are_those_of_scipy():
    scores, mos, generators = sample()
    figures = statistics.figures(scores, mos, generators)

    def logistic(x, b1, b2, b3, b4):
        return b2 + (b1 - b2) / (1 + np.exp(-(x - b3) / np.abs(b4)))

    start = (mos.max(), mos.min(), scores.mean(), 0.5)
    mapped = logistic(scores, *curve_fit(logistic, scores, mos, start, maxfev=10_000)[0])
    assert figures["srcc"] == pytest.approx(spearmanr(scores, mos)[0])
    assert figures["krcc"] == pytest.approx(kendalltau(scores, mos)[0])
    assert figures["plcc"] == pytest.approx(pearsonr(mapped, mos)[0], abs=1e-6)
    assert figures["rmse"] == pytest.approx(np.sqrt(np.mean((mapped - mos) ** 2)), abs=1e-6)
    within = [spearmanr(scores[generators == name], mos[generators == name])[0] for name in "ab"]
    assert figures["within_generator_srcc"] == pytest.approx(np.mean(within))


@pytest.mark.parametrize("scale", [1, 30, -1000])
def test_figures_are_those_of_the_package(scale):
    scores, mos, _ = sample()
    assert statistics.figures(scale * scores, mos) == pytest.approx(agreement(scale * scores, mos))


def test_rank_correlations_by_hand():
    # One neighbouring pair of five swapped: 1 - 6 * 2 / (5 * 24), and 9 of 10 pairs in order less 1.
    figures = statistics.figures(np.array([1, 2, 3, 5, 4.0]), np.arange(1, 6.0))
    assert figures["srcc"] == pytest.approx(0.9)
    assert figures["krcc"] == pytest.approx(0.8)


def test_plcc_and_rmse_by_hand():
    # Five points on the logistic with b1 = 4, b2 = 0, b3 = 0, b4 = 1: 4 / (1 + exp(-x)).
    scores = np.array([-2.0, -1, 0, 1, 2])
    figures = statistics.figures(scores, np.array([0.476812, 1.075766, 2, 2.924234, 3.523188]))
    assert figures["plcc"] == pytest.approx(1, abs=1e-6)
    assert figures["rmse"] == pytest.approx(0, abs=1e-5)
    # Without the logistic: least squares through (0, 1), (1, 5), (2, 5) is 5/3 + 2 x, which leaves
    # -2/3, 4/3, -2/3, so 8/3 of the 32/3 around the mean; the RMSE is the root of 8/9.
    line = statistics.figures(np.array([0, 1, 2.0]), np.array([1, 5, 5.0]), fit=False)
    assert line["rmse"] == pytest.approx(np.sqrt(8 / 9))
    assert line["plcc"] == pytest.approx(np.sqrt(3 / 4))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=5, max_size=30))
def test_srcc_with_ties_is_that_of_scipy(pairs):
    scores, mos = np.array(pairs, float).T
    ours = statistics.srcc(scores, mos)
    if np.ptp(scores) == 0 or np.ptp(mos) == 0:
        assert np.isnan(ours)
    else:
        assert ours == pytest.approx(spearmanr(scores, mos)[0], abs=1e-12)


def test_a_logistic_that_does_not_fit_is_reported():
    scores, mos, generators = sample()
    assert statistics.report(scores, mos, generators, repeats=2)["logistic_converged"]
    assert not statistics.report(-1000 * scores, mos, generators, repeats=2)["logistic_converged"]


def test_within_generators():
    scores, mos = np.array([1, 2, 3, 9, 8, 7.0, 5, 5]), np.array([1, 2, 3, 1, 2, 3.0, 4, 5])
    generators = np.array(["up"] * 3 + ["down"] * 3 + ["constant"] * 2)
    assert statistics.within_generator_srcc(scores, mos, generators) == pytest.approx(0, abs=1e-12)
    assert statistics.within_generator_srcc(scores[:3], mos[:3], generators[:3]) == pytest.approx(1)
    assert np.isnan(statistics.within_generator_srcc(scores[6:], mos[6:], generators[6:]))


def test_report_by_generator_is_the_report_on_its_images():
    scores, mos, generators = sample()
    generators[:3] = "few"
    by_generator = statistics.report_by_generator(scores, mos, generators, 10)
    assert set(by_generator) == {"a", "b"}
    rows = generators == "b"
    assert by_generator["b"] == statistics.report(scores[rows], mos[rows], None, 10)
    assert by_generator["b"]["images"] == rows.sum()


def test_generator_mean():
    assert generator("sd1.5_lowcorr_012.jpg") == "sd1.5_lowcorr"
    means = statistics.generator_mean(
        np.array([1, 2, 4.5]), np.array(["a", "a", "b"]), np.array(["b", "a", "new"])
    )
    assert means.tolist() == [4.5, 1.5, 2.5]


def test_intervals_are_the_quantiles_of_resamples():
    scores, mos, generators = sample(40)
    report = statistics.report(scores, mos, generators, repeats=50)
    rows = np.random.default_rng(0).integers(40, size=(50, 40))
    values = [spearmanr(scores[sample], mos[sample])[0] for sample in rows]
    assert report["srcc"]["low"] == pytest.approx(np.quantile(values, 0.025))
    assert report["srcc"]["high"] == pytest.approx(np.quantile(values, 0.975))


def test_intervals_contain_the_value_repeat_and_shrink_with_more_images():
    few = statistics.report(*sample(40), repeats=100)
    many = statistics.report(*sample(400), repeats=100)
    assert statistics.report(*sample(40), repeats=100) == few
    for name in ("srcc", "plcc", "krcc", "rmse", "within_generator_srcc"):
        assert few[name]["low"] <= few[name]["value"] <= few[name]["high"]
        assert many[name]["high"] - many[name]["low"] < few[name]["high"] - few[name]["low"]


def test_probability_of_better_srcc():
    good, mos, _ = sample(noise=0.2)
    bad = sample(noise=3)[0]
    assert statistics.probability_of_better_srcc(good, bad, mos, 50) == 1
    assert statistics.probability_of_better_srcc(bad, good, mos, 50) == 0
    assert statistics.probability_of_better_srcc(good, 2 * good, mos, 50) == 0.5
    # Close rivals, counted one resample at a time.
    rival = good + 0.2 * np.sin(np.arange(80))
    wins = [
        spearmanr(good[rows], mos[rows])[0] > spearmanr(rival[rows], mos[rows])[0]
        for rows in statistics.resamples(80, 50)
    ]
    assert statistics.probability_of_better_srcc(good, rival, mos, 50) == pytest.approx(np.mean(wins))


def test_rank_agreement_by_hand():
    scores = pd.DataFrame({"up": [1, 2, 3, 4, 5], "down": [5, 4, 3, 2, 1], "swap": [1, 2, 3, 5, 4]})
    table = statistics.rank_agreement(scores)
    assert table.loc["up"].tolist() == pytest.approx([1, -1, 0.9])
    assert table.loc["swap", "down"] == table.loc["down", "swap"] == pytest.approx(-0.9)
