"""The robustness benchmark: its own degradation, its images, and a run from end to end."""

from __future__ import annotations

import json
import socket

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.common import tables
from benchmarks.common.degraded_series import colour_shift, left_small
from benchmarks.common.table_parts import NoResult
from benchmarks.robustness import robustness

from ..images import picture
from ..rated import rated_folder


@pytest.fixture
def small(monkeypatch):
    """A small picture instead of the photographs, and few levels and sizes."""
    monkeypatch.setattr(robustness, "photograph", lambda name: picture(64, 96))
    monkeypatch.setattr(robustness, "LEVELS", 3)
    monkeypatch.setattr(robustness, "SCALES", (0.5, 1.0))
    monkeypatch.setattr(robustness, "ASPECTS", (0.5, 1.0))


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.floats(0, 1))
def test_a_colour_shift_warms_and_keeps_green(seed, strength):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (9, 7, 3), np.uint8)
    shifted = colour_shift(image, strength, rng)
    assert shifted.dtype == np.uint8
    change = shifted.astype(int) - image
    assert (change[..., 0] >= 0).all() and (change[..., 1] == 0).all() and (change[..., 2] <= 0).all()
    unclipped = image[..., 0] < 255 - 80
    assert np.abs(change[..., 0][unclipped] - (8 + 72 * strength)).max(initial=0) <= 0.5


def test_of_each_generator_the_best_rated_test_image(tmp_path):
    folder = rated_folder(tmp_path)
    images = robustness.generated(folder)
    table = pd.read_csv(folder / "data.csv").merge(pd.read_csv(folder / "splits.csv"), on="name")
    for name, image in images.items():
        rated = table[table["name"].str.startswith(name) & (table["official"] == "test")]
        best = rated.sort_values("mos_quality")["name"].iloc[-1]
        assert np.array_equal(image, np.asarray(Image.open(folder / "images" / best)))
    assert set(images) == {"one_normal", "two_lowstep"}


def test_a_run_from_end_to_end(small, tmp_path, monkeypatch):
    """By `entropy`, a metric of pyiqa without weights."""
    folder = rated_folder(tmp_path)
    words = ["--metric", "entropy", "--photos", "chelsea", "--data", folder]
    words += ["--out", tmp_path / "results" / "robustness"]
    monkeypatch.setattr("sys.argv", ["robustness.py", *map(str, words)])
    robustness.main()
    result = json.loads((tmp_path / "results" / "robustness" / "robustness.json").read_text())
    assert result["pairs"] == len(robustness.KINDS)
    assert result["generated"]["pairs"] == 2 * len(robustness.KINDS)
    assert set(result["generated"]["score_by_scale"]) == {"one_normal", "two_lowstep"}

    metric = robustness.create("entropy")
    image = robustness.photograph("chelsea")
    (blur,) = (pair for pair in result["by_pair"] if pair["kind"] == "blur")
    strongest = robustness.KINDS["blur"](image, 1.0, np.random.default_rng(0))
    for level, pixels in ((0, image), (-1, strongest)):
        score = robustness.oriented(metric, robustness.tensor(pixels))
        assert blur["scores"][level] == pytest.approx(score, abs=1e-4)
    fall = blur["scores"][0] - blur["scores"][-1]
    text = tables.TABLES["robustness"](tmp_path / "results")
    assert f"first to last level* | {fall:.2f} |" in text
    assert "| two_lowstep | " in tables.TABLES["robustness_of_generated"](tmp_path / "results")
    with Image.open(tmp_path / "results" / "robustness" / "robustness.png") as drawn:
        assert drawn.size[0] > 1000


def test_without_the_data_set_only_photographs(small, tmp_path, monkeypatch, capsys):
    words = ["--metric", "entropy", "--photos", "chelsea", "--data", tmp_path / "none"]
    words += ["--out", tmp_path / "robustness"]
    monkeypatch.setattr("sys.argv", ["robustness.py", *map(str, words)])
    robustness.main()
    assert "generated images are left out" in capsys.readouterr().out
    assert "generated" not in json.loads((tmp_path / "robustness" / "robustness.json").read_text())
    with pytest.raises(NoResult, match=r"^benchmarks\.robustness\.robustness$"):
        tables.TABLES["robustness_of_generated"](tmp_path)


def test_levels_of_degradation():
    falling, constant = np.linspace(4, 1, 8), np.full(8, 2.0)
    table = pd.concat(
        pd.DataFrame({"photo": "p", "kind": kind, "level": range(8), "score": scores})
        for kind, scores in {"falling": falling, "rising": -falling, "constant": constant}.items()
    )
    pairs = robustness.summary(table).set_index("kind")
    assert pairs["rank_correlation"].to_dict() == pytest.approx({"falling": -1, "rising": 1, "constant": 0})
    assert pairs.index[pairs["steady"]].tolist() == ["falling"]
    image = picture(90, 160)
    assert robustness.cropped(image, 1.0).shape == (90, 90, 3)
    assert robustness.cropped(image, 3.0).shape == (53, 160, 3)
    assert left_small(image, 0.0, np.random.default_rng(0)).shape == (60, 107, 3)


def test_every_photograph_comes_with_scikit_image(monkeypatch):
    def refused(*_):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refused)
    for name in robustness.PHOTOS:
        image = robustness.photograph(name)
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
