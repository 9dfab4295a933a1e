"""The weight of the degraded copies: its judge and its rule, on data whose truth is known."""

from __future__ import annotations

import dataclasses
import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.common import lights, tables
from benchmarks.common.degraded_series import KINDS, LEVELS
from benchmarks.common.folds import KNOWN
from benchmarks.unseen import falls
from pyiqa_ma_agiqa.training.closed_form import Seen
from pyiqa_ma_agiqa.training.degradations import GRADES
from pyiqa_ma_agiqa.training.experts_stage import LATE, fit

from ..images import picture
from .seen_images import BLEND, CONFIG, folds_of, informed, rated
from .test_unseen import SOURCE

USED = SimpleNamespace(ridge=0.5, fall_noise=1.0)


def test_a_series_gets_worse_step_by_step():
    images = [picture(48, 64, seed) for seed in range(3)]
    series = falls.Series(images, np.array([2, 0]))
    assert len(series) == 2 * (len(KINDS) - 1) * LEVELS
    for number in range(0, len(series), LEVELS):
        image = images[2 if number < len(series) // 2 else 0]
        assert np.array_equal(series[number], image)
        assert all(not np.array_equal(series[number + level], image) for level in range(1, LEVELS))
    blurred = [np.abs(np.diff(series[level].astype(float), axis=0)).mean() for level in range(LEVELS)]
    assert next(iter(KINDS)) == "blur" and blurred == sorted(blurred, reverse=True)


def test_the_best_rated_val_images_of_each_generator_and_variant():
    names = ["sd_low", "sd_high", "gan"]
    rows = list(itertools.product(names, range(4)))
    ratings = rated(np.array([name for name, _ in rows]), np.arange(12.0), np.array(["val", "test"] * 6))
    assert falls.best_of_val(ratings).tolist() == [10, 8, 6, 4, 2, 0]
    more = dataclasses.replace(ratings, part=np.array(["val"] * 12))
    assert falls.best_of_val(more).tolist() == [11, 10, 7, 6, 3, 2]


def test_steady_is_a_fall_at_nearly_every_step():
    down = np.arange(LEVELS)[::-1].astype(float)
    swapped, flat = down.copy(), np.ones(LEVELS)
    swapped[[2, 3]] = swapped[[3, 2]]
    back = np.r_[down[:-1], 9.0]
    assert falls.steady(np.concatenate([down, swapped])) == 1
    assert falls.steady(np.concatenate([down, back, flat, down[::-1]])) == 0.25


def test_regressions_are_those_of_training():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((40, len(LATE)), np.float32)
    seen = Seen(
        rows[:30],
        rng.uniform(1, 4, 30),
        np.array(["a", "b", "b"] * 10),
        rng.uniform(0.5, 2, 30),
        rng.standard_normal((8, len(LATE)), np.float32),
        np.arange(8),
    )
    found = falls.Regressions(seen, rows[30:], CONFIG)
    for ridge, fall_noise in ((0.3, 2.0), (2.0, 0.1)):
        config = dataclasses.replace(CONFIG, ridge=ridge, fall_noise=fall_noise, generator_variance=0.01)
        alone, together, _ = fit(seen, config).predict(rows[30:])
        np.testing.assert_allclose(found.predict(config), [alone, together], atol=1e-4)
    assert np.abs(alone - together).max() > 0.005


def test_what_the_tower_says_is_asked_for_once():
    images = [np.full((16, 16, 3), 20 * row, np.uint8) for row in range(4)]
    asked = []

    def summarise(source, rows):
        asked.extend(rows)
        return np.array([[source[row].mean()] for row in rows], np.float32)

    kept = falls.Kept(images, summarise(images, range(4)), summarise)
    for rows in ([0, 1, 2], [3, 1], [2]):
        assert kept(images, np.array(rows))[:, 0].tolist() == [20 * row for row in rows]
    assert asked == [0, 1, 2, 3]
    asked.clear()
    for rows in ([3, 1], [1, 2]):
        copies = falls.DegradedCopies(images, np.array(rows))
        found = kept(copies, np.arange(len(copies)))
        assert found[:, 0].tolist() == [np.float32(copies[number].mean()) for number in range(len(copies))]
    assert len(asked) == 3 * len(GRADES)


def row(ridge, fall_noise, steady, of_all):
    return {"ridge": ridge, "fall_noise": fall_noise, "steady": steady, "sum": of_all}


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([row(0.5, 1.0, 0.95, 1.0), row(0.7, 1.0, 0.95, 1.0004), row(0.7, 3.0, 0.94, 1.1)], (0.5, 1.0)),
        ([row(0.5, 1.0, 0.95, 1.0), row(0.7, 1.0, 0.95, 1.0006), row(0.7, 3.0, 0.94, 1.1)], (0.7, 1.0)),
        ([row(0.5, 1.0, 0.94, 1.2), row(0.7, 1.0, 0.95, 1.0), row(0.7, 0.5, 1.0, 0.9)], (0.7, 1.0)),
        ([row(0.5, 1.0, 0.80, 1.2), row(0.7, 1.0, 0.9, 1.0), row(0.7, 0.5, 0.9, 1.1)], (0.7, 0.5)),
    ],
)
def test_scores_fall_first_then_the_sum_judges(rows, wanted):
    taken = falls.winner(rows, USED)
    assert (taken["ridge"], taken["fall_noise"]) == wanted


def test_pairs_are_judged_and_reach_the_table(monkeypatch, tmp_path):
    """Late blocks tell the MOS; each copy is worse by nothing but what tells it."""
    monkeypatch.setattr(falls, "RIDGES", (0.5,))
    monkeypatch.setattr(falls, "FALL_NOISES", (0.01, 1e6))
    rng = np.random.default_rng(0)
    generators = np.array(["one", "two"] * 30)
    ratings = rated(generators, rng.uniform(1, 4, 60), np.array(["train", "train", "val", "test"] * 15))
    images = lights.Images(ratings, informed(ratings, LATE))
    damage = rng.standard_normal(len(LATE), np.float32)
    pixels = [np.zeros((16, 16, 3), np.uint8)] * 60

    def summarise(source, rows):
        if source is pixels:
            return images.summaries[rows]
        grade = 1 + np.arange(len(source))[rows] % 4
        return images.summaries[ratings.rows("train")[:1]] + grade[:, None].astype(np.float32) * damage

    fold = folds_of(images, ("val",))
    first = images.summaries[fold[KNOWN].asked[0]]
    steps = first + np.arange(LEVELS, dtype=np.float32)[:, None] * damage
    series = falls.Asked(steps, np.full(LEVELS, 2.0), np.ones(LEVELS))
    recipe = SimpleNamespace(experts=CONFIG, blend=BLEND, degraded=4)
    told, untold = falls.measure(pixels, ratings, fold, series, recipe, summarise)
    assert (told["fall_noise"], told["steady"]) == (0.01, 1)
    assert told["sum"] == pytest.approx(
        (told["srcc"] + told["plcc"] + told["mean_srcc"] + told["pooled_srcc"]) / 2
    )
    assert told["sum"] != untold["sum"]
    # Copies that weigh nothing: as `choices` has it, without them.
    variant = lights.Variant(dataclasses.replace(CONFIG, ridge=0.5), BLEND)
    found = lights.both_lights(ratings, fold, lambda one: lights.predicted(images, one, variant))
    assert untold["plcc"] == pytest.approx(found["val"]["plcc"], abs=1e-4)
    assert untold["mean_srcc"] == pytest.approx(found["unseen"]["mean_srcc"], abs=0.01)

    result = {
        "pairs": [told, untold],
        "chosen": told,
        "recipe": {"ridge": 0.5, "fall_noise": 1e6},
        "series": 1,
    }
    (tmp_path / "unseen").mkdir()
    (tmp_path / "unseen" / "falls.json").write_text(json.dumps(result | SOURCE))
    text = tables.TABLES["falls"](tmp_path)
    assert "| 0.5 (rule) | 0.01 | 1.000 |" in text and "| 0.5 (recipe) | 1e+06 |" in text
