"""Training: from a folder and a CSV to weights, with resume, and its parts one by one."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from pyiqa_ma_agiqa import InputError, train
from pyiqa_ma_agiqa.agreement import agreement, logistic
from pyiqa_ma_agiqa.arch import MAAGIQA
from pyiqa_ma_agiqa.degradations import DEGRADATIONS
from pyiqa_ma_agiqa.training.data import read_ratings
from pyiqa_ma_agiqa.training.experts_stage import (
    ExpertsStageConfig,
    choose_blend,
    fit_experts,
    join_branch,
    predict_experts,
)
from pyiqa_ma_agiqa.training.objective import correlation_loss, degradation_loss, order_loss
from pyiqa_ma_agiqa.training.quality_stage import QualityRegressor

from .images import batch, picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """27 rated images of three sizes: 16 train, 6 val, 5 test."""
    folder = tmp_path_factory.mktemp("ratings")
    rows = []
    for number in range(27):
        height, width = [(64, 64), (64, 128), (96, 64)][number % 3]
        Image.fromarray(picture(height, width, number)).save(folder / f"{number}.png")
        part = "train" if number < 16 else "val" if number < 22 else "test"
        rows.append((f"{number}.png", 1 + number % 5 * 0.7, part))
    pd.DataFrame(rows, columns=["name", "mos", "split"]).to_csv(folder / "ratings.csv", index=False)
    recipe = {
        "data": {"images": str(folder), "table": str(folder / "ratings.csv")},
        "out": str(folder / "whole"),
        "quality": {"epochs": 1, "batch": 4, "crop": 64, "degraded": 1},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


@pytest.fixture(scope="module")
def whole_run(folder):
    train.main(["--config", str(folder / "recipe.yaml")])
    return folder / "whole"


def test_a_run_writes_weights_that_score_as_its_metrics_say(folder, whole_run):
    result = json.loads((whole_run / "metrics.json").read_text())
    model = MAAGIQA(pretrained_model_path=whole_run / "weights.safetensors")
    shipped = MAAGIQA()
    image = batch(1, 64, 64)
    assert not torch.equal(model(image), shipped(image))
    assert set(result["float32"]["test"]) == {"srcc", "plcc", "krcc", "rmse"}
    assert 0 <= result["blend"]["weight"] <= 0.9


def test_an_interrupted_run_goes_on_to_the_same_weights(folder, whole_run, monkeypatch):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    again = folder / "again"
    command = ["--config", str(folder / "recipe.yaml"), "--out", str(again)]
    again.mkdir()
    for cache in whole_run.glob("*.npy"):
        shutil.copy(cache, again)
    with monkeypatch.context() as patch:
        patch.setattr(train, "fit_experts", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.main(command)
    assert (again / "quality.pt").exists()
    assert not (again / "weights.safetensors").exists()
    with monkeypatch.context() as patch:  # stage 1 must not run a second time
        patch.setattr(
            train.QualityRegressor, "train", lambda self, mode=True: interrupted() if mode else self
        )
        train.main(command)
    assert (again / "weights.safetensors").read_bytes() == (whole_run / "weights.safetensors").read_bytes()


def test_bad_rows_are_named(folder, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    table = tmp_path / "bad.csv"
    table.write_text("name,mos\nmissing.png,3\nbroken.png,2\n0.png,many\n1.png,1\n1.png,2\n")
    shutil.copy(folder / "0.png", tmp_path)
    shutil.copy(folder / "1.png", tmp_path)
    with pytest.raises(InputError) as error:
        read_ratings(tmp_path, table)
    text = str(error.value)
    for line in (
        "5 bad rows",
        "line 2: missing.png: no such image",
        "line 3: broken.png: not a readable image",
        "line 4: 0.png: its MOS is not a number",
        "line 5: 1.png: the name stands there more than once",
    ):
        assert line in text
    with pytest.raises(SystemExit) as stop:
        train.main(["--images", str(tmp_path), "--table", str(table), "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert "line 2: missing.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [("name\n0.png\n", "no column 'mos'"), ("name,mos\n0.png,1\n", "training needs at least 16")],
)
def test_unusable_tables(folder, tmp_path, text, message):
    table = tmp_path / "table.csv"
    table.write_text(text)
    with pytest.raises(InputError, match=message):
        read_ratings(folder, table)


def test_unusable_recipes(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {images: a, table: b}\nout: c\nquality: {epoch: 3}\n")
    with pytest.raises(InputError, match=r"recipe\.yaml: not a recipe.*'epoch'"):
        train.read_recipe(recipe)


def test_the_shipped_recipe_is_readable():
    recipe = train.read_recipe(train.Path(train.__file__).parent / "training" / "agiqa3k.yaml")
    assert recipe.data.split_column == "official"


def test_without_a_split_it_is_70_10_20_and_seeded(folder, tmp_path):
    table = tmp_path / "table.csv"
    pd.read_csv(folder / "ratings.csv")[["name", "mos"]].to_csv(table, index=False)
    ratings = read_ratings(folder, table, seed=3)
    counts = [len(ratings.rows(part)) for part in ("train", "val", "test")]
    assert counts == [18, 3, 6]
    assert (ratings.part == read_ratings(folder, table, seed=3).part).all()


@pytest.fixture(scope="module")
def fitted():
    """A random model with experts fitted to 60 made-up summaries, the summaries and their MOS."""
    torch.manual_seed(0)
    model = MAAGIQA(pretrained=False)
    rng = np.random.default_rng(0)
    summaries = rng.standard_normal((60, 6, 3, 768), dtype=np.float32)
    mos = (2.5 + 2 * summaries[:, 5, 0].mean(1) * 27 + summaries[:, 0, 1, 0] / 2).astype(np.float32)
    fit_experts(model, summaries, summaries + 0.01, mos, ExpertsStageConfig(ridge=0.01))
    return model, summaries, mos


def test_fitted_experts_predict_what_they_were_fitted_to(fitted):
    model, summaries, mos = fitted
    assert np.corrcoef(predict_experts(model, summaries), mos)[0, 1] > 0.95


def test_the_branch_joins_at_the_stated_weight(fitted):
    model, _, _ = fitted
    quality = QualityRegressor(model.branch, 2.5).eval()
    torch.nn.init.normal_(quality.head.weight, std=0.1)
    image = batch(2, 512, 512)
    with torch.inference_mode():
        before = model(image, return_parts=True)
        branch = quality(image)
        mean_mos = model.experts.output.bias.item()
        join_branch(model, quality, 0.3)
        after = model(image, return_parts=True)
    torch.testing.assert_close(after["gate"], before["gate"], rtol=0, atol=1e-4)
    verdicts = before["score"][:, 0] - mean_mos
    expected = mean_mos + 0.7 * verdicts + 0.3 * before["gate"][:, 2] * (branch - mean_mos)
    torch.testing.assert_close(after["score"][:, 0], expected, rtol=1e-4, atol=1e-3)


def test_the_blend_is_the_best_on_val():
    rng = np.random.default_rng(0)
    mos = rng.uniform(0, 5, 200)
    good, poor = mos + rng.normal(0, 0.5, 200), rng.uniform(0, 5, 200)
    assert choose_blend(good, poor, mos).weight <= 0.1
    assert choose_blend(poor, good, mos).weight == 0.9
    equal = choose_blend(mos + rng.normal(0, 1, 200), mos + rng.normal(0, 1, 200), mos)
    assert 0.2 <= equal.weight <= 0.8


def test_objective():
    mos = torch.tensor([1.0, 2.0, 4.0])
    assert correlation_loss(3 * mos + 1, mos).item() == pytest.approx(0, abs=1e-6)
    assert correlation_loss(-mos, mos).item() == pytest.approx(2)
    assert order_loss(mos, mos).item() == 0
    assert order_loss(torch.zeros(3), mos).item() == pytest.approx(0.5)
    falling = [torch.tensor([3.0]), torch.tensor([2.0]), torch.tensor([1.0])]
    assert degradation_loss(*falling).item() == 0
    assert degradation_loss(*falling[::-1]).item() == pytest.approx(2.4)


def test_agreement_on_hand_made_scores():
    mos = np.linspace(0, 5, 50)
    scores = logistic(mos, 9, -3, 2.5, 0.8)
    exact = agreement(scores, mos)
    assert exact["srcc"] == pytest.approx(1)
    assert exact["krcc"] == pytest.approx(1)
    assert exact["plcc"] > 0.99
    assert agreement(-scores, mos)["srcc"] == pytest.approx(-1)


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_degradations_grow_with_strength(kind):
    image = picture(96, 96)
    errors = []
    for strength in (0.0, 0.5, 1.0):
        degraded = DEGRADATIONS[kind](image, strength, np.random.default_rng(0))
        assert degraded.shape == image.shape
        assert degraded.dtype == np.uint8
        errors.append(np.mean((degraded.astype(float) - image) ** 2))
    assert 0 < errors[0] < errors[1] < errors[2]
