"""Generators left out, and the rule of the recipe's choice, on data whose truth is known."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.common import features, lights, tables
from benchmarks.unseen import choices, unseen
from benchmarks.unseen.unseen_tables import helps
from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.compact.arch import EVERYTHING
from pyiqa_ma_agiqa.input_checks import read_tensor
from pyiqa_ma_agiqa.training.data import Ratings
from pyiqa_ma_agiqa.training.experts_stage import LATE, ExpertsStageConfig, fit

from ..images import picture

NAMES = ("one", "two", "three")
CONFIG = ExpertsStageConfig(folds=2)
SOURCE = {"command": "python x.py", "date": "2026-11-26", "cpu": "a CPU", "cores": 2, "threads": 1}
SOURCE |= {"versions": {"pyiqa": "1", "torch": "2"}}


@pytest.fixture(scope="module")
def images():
    """Late blocks tell the MOS, early ones the generator, which goes with the MOS of all but the last."""
    rng = np.random.default_rng(0)
    generators = np.array(NAMES * 40)
    mos = rng.uniform(0, 2, len(generators)) + 1.5 * (generators == "two") + (generators == "three")
    everything = rng.standard_normal((len(mos), EVERYTHING), np.float32)
    everything[:, LATE] += 0.3 * (mos - 2)[:, None] * rng.choice((-1, 1), LATE.sum())
    for name in NAMES:
        everything[np.ix_(generators == name, ~LATE)] += rng.standard_normal((~LATE).sum(), np.float32)
    part = np.array((["train"] * 2 + ["val", "test"]) * 30)
    return features.Seen(
        Ratings(
            [Path(f"{name}_{row}.png") for row, name in enumerate(generators)],
            mos.astype(np.float32),
            part,
            part == "train",
            generators,
            rng.uniform(0.5, 1, len(mos)).astype(np.float32),
        ),
        everything,
    )


@pytest.fixture(scope="module")
def fold(images):
    return lights.folds(images, ("val",), CONFIG)


def test_a_variant_without_change_is_the_recipe(images, fold):
    """Scores are those of `fit` behind the same gate, of an open one and of a closed one."""
    one = fold["two"]
    fitted = fit(images.everything[one.fitted], images.rated(one.fitted, CONFIG.rater_weight), CONFIG)
    alone, together, _ = fitted.predict(images.everything[one.asked])
    wanted = {
        lights.CLOSED: alone,
        lights.OPEN: together,
        lights.BY_FAMILIARITY: alone + one.gate * (together - alone),
    }
    for gate, scores in wanted.items():
        found = lights.predicted(images, one, lights.Variant(CONFIG, gate=gate))
        np.testing.assert_allclose(found, scores, atol=2e-3)
    assert set(images.generators[one.asked]) == {"two"} and "two" not in images.generators[one.fitted]
    assert set(images.ratings.part[fold[""].asked]) == {"val"}


def test_the_whole_recipe_sees_nothing_of_what_is_left_out(images):
    model = MAAGIQA(pretrained=False)
    others, own = (np.flatnonzero((images.generators == "two") == left) for left in (False, True))
    table = unseen.predicted(model, images, others, own, CONFIG)
    changed = dataclasses.replace(
        images,
        ratings=dataclasses.replace(images.ratings, mos=np.where(images.generators == "two", 9, images.mos)),
    )
    again = unseen.predicted(model, changed, others, own, CONFIG)
    assert (again["mos"] == 9).all()
    assert again.drop(columns="mos").equals(table.drop(columns="mos"))
    assert unseen.figures(table)["srcc"] > 0.8
    # The gate of the variants is that of the model.
    gate = lights.gates(images, others, own, CONFIG)
    np.testing.assert_allclose(table["gate"], gate, atol=0.02)


def test_figures_are_of_scores_and_intervals(images):
    table = unseen.predicted(
        MAAGIQA(pretrained=False), images, images.ratings.rows("train"), images.ratings.rows("val"), CONFIG
    )
    table = table.assign(score=[2.0] * 15 + [3.0] * 15, mos=2.5, low=2.2, high=2.8, constant=0.4)
    found = unseen.figures(table.assign(low=[2.2] * 15 + [2.6] * 15))
    assert (found["bias"], found["coverage"], found["coverage_of_constant"]) == (0, 0.5, 0)
    assert found["half_width"] == pytest.approx(0.2)
    assert unseen.told_apart(np.array([3.0, 4.0]), np.array([1.0, 3.0])) == pytest.approx(0.875)


def test_measured_figures_reach_the_table(images, tmp_path):
    result = unseen.measure(MAAGIQA(pretrained=False), images, CONFIG, test=False)
    assert list(result["known"]) == ["val"]
    (tmp_path / "unseen").mkdir()
    (tmp_path / "unseen" / "unseen.json").write_text(json.dumps(result | SOURCE))
    text = tables.TABLES["unseen"](tmp_path)
    row = next(line for line in text.splitlines() if line.startswith("| three | 40 |"))
    assert f"| {result['by_generator']['three']['srcc']:.3f} |" in row
    assert "official` val" in text and "official` test*" not in text
    assert f"(pooled): {result['all']['pooled_srcc']:.4f}" in text


def test_the_first_of_those_near_the_best_wins():
    assert choices.winner({"simple": 0.9985, "other": 0.9970, "best": 1.0}) == "simple"
    assert choices.winner({"simple": 0.9975, "best": 1.0, "later": 1.0}) == "best"


def test_settings_are_judged_in_both_lights_and_reach_the_table(images, tmp_path):
    settings = {"early_weight": (0.0, 0.3), "gate": choices.SETTINGS["gate"]}
    found = choices.measure(images, CONFIG, settings)
    early = found["early_weight"]
    assert early["recipe"] == "0.3" and early["values"]["0.3"] == found["gate"]["values"]["by familiarity"]
    for row in early["values"].values():
        assert row["sum"] == pytest.approx(
            (row["srcc"] + row["plcc"] + row["mean_srcc"] + row["pooled_srcc"]) / 2
        )
    (tmp_path / "unseen").mkdir()
    (tmp_path / "unseen" / "choices.json").write_text(json.dumps({"settings": found} | SOURCE))
    text = tables.TABLES["choices"](tmp_path)
    assert f"| {early['values']['0.0']['sum']:.4f} |" in text
    assert "by familiarity (recipe" in text


def test_words_for_what_helps():
    assert helps(0.01, -0.01) == "known generators only"
    assert helps(0.01, 0.0) == "known generators"
    assert helps(-0.01, 0.01) == "unseen generators only"
    assert (helps(0.01, 0.01), helps(0.0001, -0.1)) == ("both", "neither")


def test_features_are_kept_and_views_of_another_size_are_apart(tmp_path, monkeypatch):
    for row in range(3):
        Image.fromarray(picture(64, 64, row)).save(tmp_path / f"{row}.png")
    paths = [tmp_path / f"{row}.png" for row in range(3)]
    numbers = np.arange(3, dtype=np.float32)
    ratings = Ratings(paths, numbers, np.array(["train"] * 3), numbers > 0, np.array(["a"] * 3), numbers)
    model, cache = MAAGIQA(), tmp_path / "cache"
    whole = features.seen(model, ratings, cache).everything
    small = features.seen(model, ratings, cache, side=224).everything
    assert whole.shape == small.shape == (3, EVERYTHING)
    assert np.array_equal(whole[:, :1280], small[:, :1280])
    assert not np.isclose(whole[:, 1280:], small[:, 1280:]).all()
    found = features.judged(model, whole)
    scores = model(torch.cat([read_tensor(path) for path in paths]))[:, 0].tolist()
    assert found["score"].tolist() == pytest.approx(scores, abs=1e-5)
    monkeypatch.setattr(features, "branch_features", lambda *_: pytest.fail("computed again"))
    monkeypatch.setattr(model.encoder, "forward", lambda *_: pytest.fail("computed again"))
    assert np.array_equal(features.seen(model, ratings, cache).everything, whole)
    assert np.array_equal(features.seen(model, ratings, cache, side=224).everything, small)
