"""The closed form on made-up data: against its formulas, and what each of its parts is for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pyiqa_ma_agiqa.compact.arch import MAAGIQA
from pyiqa_ma_agiqa.compact.semantic import SUMMARY
from pyiqa_ma_agiqa.training.closed_form import Penalties, Seen, principal_axes, ridge
from pyiqa_ma_agiqa.training.experts_stage import (
    ExpertsStageConfig,
    HeldOut,
    calibrate,
    conformal,
    fit,
    fit_experts,
    narrowest,
    predict_experts,
    prior,
)

INPUTS = math.prod(SUMMARY)


def judged(model: MAAGIQA, summaries: np.ndarray):
    """What the model makes of summaries, and of a branch that says nothing."""
    with torch.inference_mode():
        return model.judge(
            torch.from_numpy(summaries).reshape(-1, *SUMMARY), torch.zeros(len(summaries), 1280)
        )


def made(count: int, width: int = INPUTS, seed: int = 0, copies: int = 0) -> Seen:
    """Images of two generators, of which one is better, whose MOS goes by three directions of the inputs."""
    rng = np.random.default_rng(seed)
    basis = np.random.default_rng(1).standard_normal((12, width))
    latent = rng.standard_normal((count, 12))
    better = rng.random(count) < 0.5
    latent[:, 3] += 2 * better
    summaries = (latent @ basis + 0.3 * rng.standard_normal((count, width))).astype(np.float32)
    mos = (2.5 + 0.5 * latent[:, :3].sum(1) + 0.8 * better + 0.1 * rng.standard_normal(count)).astype(
        np.float32
    )
    falls = np.tile(basis[5:6].astype(np.float32), (copies, 1))
    generators = np.where(better, "good", "poor")
    return Seen(summaries, mos, generators, np.ones(count), falls, np.arange(copies) % count)


def penalties(**other: float) -> Penalties:
    return Penalties(**({"noise": 1.0, "generator": 0.0, "fall": 0.5, "fall_noise": 1.0} | other))


def test_the_dual_solves_the_primal():
    """Weighted ridge regression with a free intercept and with rows of falls, by its normal equations."""
    seen = made(40, 15, copies=6)
    seen.noise = np.linspace(0.5, 2, 40)
    inputs = seen.summaries / np.sqrt(15)
    falls = seen.falls / np.sqrt(15)
    weights, intercept = ridge(inputs, falls, seen, penalties(fall_noise=0.7))
    rows = np.concatenate([inputs, falls]).astype(np.float64)
    design = np.concatenate([rows, np.r_[np.ones(40), np.zeros(6)][:, None]], 1)
    certainty = 1 / np.r_[seen.noise, np.full(6, 0.7)]
    target = np.r_[seen.mos, np.full(6, -0.5)]
    normal = design.T @ (design * certainty[:, None]) + np.diag(np.r_[np.ones(15), 0])
    solution = np.linalg.solve(normal, design.T @ (certainty * target))
    np.testing.assert_allclose(weights, solution[:-1], atol=1e-4)
    assert intercept == pytest.approx(solution[-1], abs=1e-4)


def test_a_random_effect_keeps_the_weights_from_telling_generators_apart():
    seen = made(400, 200)
    inputs = seen.summaries / np.sqrt(np.mean(seen.summaries**2) * 200)
    shift = np.random.default_rng(1).standard_normal((12, 200))[3] / np.sqrt(np.mean(seen.summaries**2) * 200)
    plain, _ = ridge(inputs, seen.falls[:, :200], seen, penalties())
    free, _ = ridge(inputs, seen.falls[:, :200], seen, penalties(generator=100.0))
    assert abs(free @ shift) < 0.5 * abs(plain @ shift)


def test_copies_that_are_worse_fall():
    seen = made(60, copies=20)
    direction = seen.falls[0]
    config = ExpertsStageConfig(fall=0.5, fall_noise=0.1)
    alone, together, _ = fit(seen, config).predict(
        np.stack([seen.summaries[0], seen.summaries[0] + direction])
    )
    for scores in (alone, together):
        assert scores[0] - scores[1] == pytest.approx(0.5, abs=0.2)
    without = seen.only(np.ones(60, bool))
    without.falls, without.fallen = without.falls[:0], without.fallen[:0]
    _, together, _ = fit(without, config).predict(
        np.stack([seen.summaries[0], seen.summaries[0] + direction])
    )
    assert together[0] - together[1] < 0.2


def test_axes_are_those_of_the_singular_value_decomposition():
    inputs = made(30, 50).summaries
    axes, squares = principal_axes(inputs, 8)
    _, values, vectors = np.linalg.svd(inputs.astype(np.float64), full_matrices=False)
    np.testing.assert_allclose(squares, values[:8] ** 2, rtol=1e-4)
    np.testing.assert_allclose(np.abs((axes * vectors[:8]).sum(1)), 1, atol=1e-4)
    axes, squares = principal_axes(inputs[:3], 8)
    assert not axes[3:].any()
    assert not squares[3:].any()


def test_prior_variances_are_as_the_recipe_says():
    variance = prior(ExpertsStageConfig(early_weight=0.5, class_weight=3.0))
    assert variance.sum() == pytest.approx(1)
    tower = variance.reshape(SUMMARY)
    assert tower[0, 0, 0] / tower[5, 0, 0] == pytest.approx(0.5)
    assert tower[4, 0, 0] / tower[4, 2, 0] == pytest.approx(3)
    assert tower[4, 1, 0] / tower[4, 3, 0] == pytest.approx(3)


@pytest.fixture(scope="module")
def fitted():
    torch.manual_seed(0)
    model, seen = MAAGIQA(pretrained=False), made(120, copies=8)
    seen.generators[:] = ""  # one width for all
    return model, seen, fit_experts(model, seen, ExpertsStageConfig(folds=3))


def test_the_model_says_what_the_fit_says(fitted):
    model, seen, calibration = fitted
    others = made(50, seed=5).summaries
    held = HeldOut(*fit(seen, ExpertsStageConfig()).predict(others))
    predicted = predict_experts(model, np.zeros((50, 1280), np.float32), others)
    np.testing.assert_allclose(predicted, held.scores(calibration.known), atol=0.03)
    interval = judged(model, others).interval
    half = (interval[:, 1] - interval[:, 0]).numpy() / 2
    np.testing.assert_allclose(half, calibration.width[0], rtol=1e-3)


def test_experts_on_meaning_read_late_blocks_alone(fitted):
    _, seen, _ = fitted
    weights = fit(seen, ExpertsStageConfig()).alone
    assert not weights[: 3 * 4 * 768].any()
    assert weights[3 * 4 * 768 :].any()


def test_new_images_of_known_kinds_are_held_by_the_interval(fitted):
    """Its images are made as those that it was calibrated on, so about nine of ten are inside."""
    model, _, _ = fitted
    new = made(400, seed=9)
    low, high = judged(model, new.summaries).interval.numpy().T
    assert 0.8 < ((low <= new.mos) & (new.mos <= high)).mean() < 0.98


def test_strangers_are_less_familiar(fitted):
    model, _, _ = fitted
    rng = np.random.default_rng(3)
    strange = (3 * rng.standard_normal((40, INPUTS))).astype(np.float32)
    shown = {"known": judged(model, made(40, seed=8).summaries), "strange": judged(model, strange)}
    assert shown["known"].familiarity.median() > 0.2
    assert shown["strange"].familiarity.max() < 0.05
    assert shown["strange"].gate[:, 2].max() < shown["known"].gate[:, 2].median()


def test_one_generator_has_one_width_and_two_may_grow():
    seen = made(80)
    seen.generators[:] = ""
    assert calibrate(seen, ExpertsStageConfig(folds=2)).width[1] == 0
    both = calibrate(made(80), ExpertsStageConfig(folds=2))
    assert set(both.coverage) == {"known images", "good", "poor"}


def test_a_conformal_bound_holds_nine_in_ten_on_average():
    """Uniform errors below 1: what part of new ones a bound holds is the bound itself."""
    draws = np.random.default_rng(0).random((2000, 400))
    bounds = np.array([conformal(off) for off in draws])
    assert abs(bounds.mean() - 0.9) < 0.005
    assert 0.45 < (bounds >= 0.9).mean() < 0.6


def test_the_interval_holds_both_halves_of_known_images():
    """Errors that do not grow with strangeness, and an interval that does."""
    rng = np.random.default_rng(0)
    off, away = rng.random(4000), rng.normal(size=4000)
    base = narrowest(off, away, 0.5)
    held = off <= base * np.exp(0.5 * away)
    assert 0.9 <= held[away <= 0].mean() < 0.902 and held[away > 0].mean() > 0.99
    assert narrowest(off, away, 0.0) == max(conformal(off[away <= 0]), conformal(off[away > 0]))
    assert narrowest(off, np.zeros(4000), 0.5) == conformal(off)


def test_images_that_are_left_out_take_their_copies_with_them():
    seen = made(10, 20, copies=7)
    kept = np.arange(10) % 2 == 0
    some = seen.only(kept)
    assert len(some) == 5
    assert some.fallen.tolist() == [0, 1, 2, 3]
    assert len(some.falls) == 4
