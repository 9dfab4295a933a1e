"""Generators left out, and the rule of the recipe's choice, on data whose truth is known."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from benchmarks.common import features, lights, tables
from benchmarks.common.folds import KNOWN
from benchmarks.unseen import choices, unseen
from benchmarks.unseen.unseen_tables import helps
from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.input_checks import read_tensor
from pyiqa_ma_agiqa.training.compact import seen_by
from pyiqa_ma_agiqa.training.data import Ratings
from pyiqa_ma_agiqa.training.experts_stage import LATE, fit, of_known_images

from ..images import picture
from ..passed_by import with_a_short_tower
from .seen_images import BLEND, CONFIG, Trained, folds_of, informed, pixels_said, rated

NAMES = ("one", "two", "three")
RECIPE = lights.Variant(CONFIG, BLEND)
SOURCE = {"command": "python x.py", "date": "2026-11-26", "cpu": "a CPU", "cores": 2, "threads": 1}
SOURCE |= {"versions": {"pyiqa": "1", "torch": "2"}}


@pytest.fixture(scope="module")
def images():
    """Late blocks tell the MOS, early ones the generator, which goes with the MOS of all but the last."""
    rng = np.random.default_rng(0)
    generators = np.array(NAMES * 40)
    mos = rng.uniform(0, 2, len(generators)) + 1.5 * (generators == "two") + (generators == "three")
    ratings = rated(generators, mos, np.array((["train"] * 2 + ["val", "test"]) * 30))
    summaries = informed(ratings, LATE)
    for name in NAMES:
        summaries[np.ix_(generators == name, ~LATE)] += rng.standard_normal((~LATE).sum(), np.float32)
    return lights.Images(ratings, summaries)


@pytest.fixture(scope="module")
def trained(images):
    return Trained(images)


@pytest.fixture(scope="module")
def fold(images, trained):
    return folds_of(images, ("val",), trained)


def test_a_fit_is_told_what_training_is_told(images):
    """But for the degraded copies."""
    ratings = images.ratings
    recipe = SimpleNamespace(experts=SimpleNamespace(rater_weight=0.7), degraded=1)
    pixels = [np.zeros((16, 16, 3), np.uint8)] * len(ratings.mos)

    def summarise(source, rows):
        return images.summaries[rows] if source is pixels else np.zeros((len(rows), len(LATE)), np.float32)

    wanted = seen_by(summarise, pixels, ratings, recipe)
    found = images.told(ratings.rows("train"), 0.7)
    for name in ("summaries", "mos", "generators", "noise"):
        assert np.array_equal(getattr(found, name), getattr(wanted, name))
    assert len(found.falls) == len(found.fallen) == 0 < len(wanted.falls)


def test_folds_are_of_models_that_have_not_seen_what_they_are_asked_for(images, fold):
    assert list(fold) == [KNOWN, "one", "three", "two"]
    ratings = images.ratings
    for name, one in fold.items():
        assert not set(one.fitted) & set(one.asked) and len(one.table) == len(one.asked)
        if name:
            assert set(ratings.generators[one.asked]) == {name}
            assert len(one.asked) + len(one.fitted) == len(ratings.mos)
    assert set(ratings.part[fold[KNOWN].asked]) == {"val"}
    assert set(ratings.part[fold[KNOWN].fitted]) == {"train"}
    both = folds_of(images, ("val", "test"))[KNOWN]
    assert both.table[:30].equals(fold[KNOWN].table)
    assert list(ratings.part[both.asked]) == ["val"] * 30 + ["test"] * 30


def test_a_branch_is_told_from_what_it_joined(images, fold, trained):
    """What it predicts by itself, and what the experts said before."""
    one, model = fold["two"], trained("two")
    of_two = features.of_rows(images.ratings, one.asked)
    np.testing.assert_allclose(one.table["branch"], trained.predict(pixels_said(of_two)), atol=1e-3)
    model.load_state_dict(trained.before["two"])
    seen = features.Seen(of_two, images.summaries[one.asked], pixels_said(of_two))
    before = features.judged(model, seen)
    np.testing.assert_allclose(one.table["without_branch"], before["score"], atol=1e-3)
    np.testing.assert_array_equal(one.table["gate"], before["gate"])
    assert np.abs(one.table["score"] - before["score"]).max() > 0.05


def test_a_variant_without_change_is_the_recipe(images, fold):
    """Scores are those of the model itself, of an open gate and of a closed one."""
    one = fold["two"]
    alone, together, _ = fit(images.told(one.fitted, CONFIG.rater_weight), CONFIG).predict(
        images.summaries[one.asked]
    )
    for gate, wanted in ((lights.CLOSED, alone), (lights.OPEN, together)):
        found = lights.predicted(images, one, lights.Variant(CONFIG, 0.0, gate=gate))
        np.testing.assert_allclose(found, wanted, atol=2e-3)
    for blend, wanted in ((BLEND, one.table["score"]), (0.0, one.table["without_branch"])):
        found = lights.predicted(images, one, lights.Variant(CONFIG, blend))
        np.testing.assert_allclose(found, wanted, atol=2e-3)
    found = lights.predicted(images, one, lights.Variant(CONFIG, BLEND, gate=lights.OPEN))
    np.testing.assert_allclose(found, 0.75 * together + 0.25 * one.table["branch"], atol=2e-3)
    found = lights.predicted(images, one, lights.Variant(CONFIG, 1.0, gate=lights.OPEN))
    assert np.array_equal(found, one.table["branch"])
    np.testing.assert_allclose(one.table["gate"], lights.gates(images, one, CONFIG), atol=0.02)


def test_figures_are_of_scores_and_intervals():
    table = pd.DataFrame({"score": [2.0] * 15 + [3.0] * 15, "low": [2.2] * 15 + [2.6] * 15})
    table = table.assign(mos=2.5, high=2.8, constant=0.4, familiarity=[0.5] * 15 + [0.4] * 15, gate=0.5)
    table = table.assign(branch=table["score"], without_branch=table["score"])
    found = unseen.figures(table)
    assert (found["bias"], found["coverage"], found["coverage_of_constant"]) == (0, 0.5, 0)
    assert found["coverage_of_familiar"] == 1 and found["half_width"] == pytest.approx(0.2)
    assert unseen.told_apart(np.array([3.0, 4.0]), np.array([1.0, 3.0])) == pytest.approx(0.875)
    table = table.assign(mos=np.arange(30.0), score=np.arange(30.0), branch=-np.arange(30.0))
    found = unseen.figures(table.assign(without_branch=np.arange(30.0) // 15))
    assert (found["srcc"], found["srcc_branch"]) == pytest.approx((1, -1))
    assert 0.8 < found["srcc_without_branch"] < 0.9


def test_measured_figures_reach_the_table(images, fold, tmp_path):
    result = unseen.measure(images, fold, CONFIG)
    assert list(result["known"]) == ["val"]
    assert result["all"]["mean_srcc"] > 0.8 and result["all"]["mean_srcc_branch"] > 0.5
    scores = fold["three"].table["without_branch"]
    alone = result["by_generator"]["three"]["srcc_without_branch"]
    assert alone == lights.of_known(images.ratings.mos[fold["three"].asked], scores.to_numpy())["srcc"]
    (tmp_path / "unseen").mkdir()
    (tmp_path / "unseen" / "unseen.json").write_text(json.dumps(result | SOURCE))
    text = tables.TABLES["unseen"](tmp_path)
    row = next(line for line in text.splitlines() if line.startswith("| three | 40 |"))
    assert f"| {result['by_generator']['three']['srcc']:.3f} | {alone:.3f} |" in row
    mean = next(line for line in text.splitlines() if line.startswith("| *mean"))
    assert f"| {result['all']['mean_srcc']:.3f} | {result['all']['mean_srcc_without_branch']:.3f} |" in mean
    assert "official` val" in text and "official` test*" not in text
    assert f"(pooled): {result['all']['pooled_srcc']:.4f}" in text


def test_a_constant_width_holds_nine_of_ten_known_images(images, fold):
    one = fold["two"]
    width = unseen.constant_width(images, one.fitted, CONFIG)
    seen = images.told(one.fitted, CONFIG.rater_weight)
    found, known = of_known_images(seen, CONFIG)
    assert 0.9 <= (np.abs(found.scores(known) - seen.mos) <= width).mean() < 0.95


def test_the_recipe_gives_way_to_what_is_better_or_simpler():
    sums = {"0": 0.9994, "1": 0.9998, "2": 1.0, "3": 1.0004}
    assert choices.winner(sums, "2", "0") == "2"
    assert choices.winner(sums, "1", "0") == "3"
    assert choices.winner(sums | {"0": 0.9996}, "2", "0") == "0"
    assert choices.winner(sums | {"0": 0.9996}, "2", "4") == choices.winner(sums, "2") == "2"


def test_settings_are_judged_in_both_lights_and_reach_the_table(images, fold, tmp_path):
    settings = {"early_weight": (0.0, 0.3), "gate": choices.SETTINGS["gate"], "blend": (0.0, BLEND)}
    found = choices.measure(images, fold, RECIPE, settings)
    early = found["early_weight"]
    assert early["recipe"] == "0.3" and found["blend"]["recipe"] == "0.25"
    whole = early["values"]["0.3"]
    assert whole == found["gate"]["values"]["by familiarity"] == found["blend"]["values"]["0.25"]
    assert whole != found["blend"]["values"]["0.0"]
    for row in early["values"].values():
        assert row["sum"] == pytest.approx(
            (row["srcc"] + row["plcc"] + row["mean_srcc"] + row["pooled_srcc"]) / 2
        )
    (tmp_path / "unseen").mkdir()
    (tmp_path / "unseen" / "choices.json").write_text(json.dumps({"settings": found} | SOURCE))
    text = tables.TABLES["choices"](tmp_path)
    assert f"| {early['values']['0.0']['sum']:.4f} |" in text
    assert "by familiarity (recipe" in text


def test_every_setting_can_be_changed():
    for setting, values in choices.SETTINGS.items():
        for value in values:
            assert choices.value_of(choices.changed(RECIPE, setting, value), setting) == value


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
    model, cache = with_a_short_tower(MAAGIQA()), tmp_path / "cache"
    whole = features.seen(model, ratings, cache)
    small = features.summaries_of(model, ratings, cache, side=224)
    assert whole.summaries.shape == small.shape == (3, len(LATE)) and whole.features.shape == (3, 1280)
    assert not np.isclose(whole.summaries, small).all()
    found = features.judged(model, whole)
    scores = model(torch.cat([read_tensor(path) for path in paths]))[:, 0].tolist()
    assert found["score"].tolist() == pytest.approx(scores, abs=1e-5)
    with monkeypatch.context() as patch:
        patch.setattr(features, "branch_features", lambda *_: pytest.fail("computed again"))
        patch.setattr(model.encoder, "forward", lambda *_: pytest.fail("computed again"))
        again = features.seen(model, features.of_rows(ratings, np.arange(3)), cache)
        assert np.array_equal(again.summaries, whole.summaries)
        assert np.array_equal(again.features, whole.features)
        assert np.array_equal(features.summaries_of(model, ratings, cache, side=224), small)
    model.branch.head.bias.add_(1)  # the branch of another run
    other = features.features_of(model, ratings, cache)
    assert not np.array_equal(other, whole.features)
    one = dataclasses.replace(whole, ratings=features.of_rows(ratings, np.array([1])))
    assert one.mos.tolist() == [1] and one.ratings.paths == paths[1:2]
