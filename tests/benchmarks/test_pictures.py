"""The pictures that the README shows: that they show what the result files and the metric say."""

from __future__ import annotations

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from benchmarks.ablations import expert_shares
from benchmarks.accuracy import predicted_vs_mos

from ..images import picture


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "official"
    folder.mkdir()
    agreement = {"srcc": {"value": 0.8125}, "plcc": {"value": 0.9}}
    result = {"images": 30, "metrics": {"ma_agiqa": {"agreement": agreement}}}
    (folder / "result.json").write_text(json.dumps(result))
    mos = np.linspace(1, 4, 30)
    noise = np.random.default_rng(0).normal(0, 0.1, 30)
    table = pd.DataFrame({"generator": ["a_x", "b_y"] * 15, "mos": mos, "ma_agiqa": mos + noise})
    table.to_parquet(folder / "scores.parquet")
    return folder, table


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_every_image_of_the_official_test_part_is_a_point(results):
    folder, table = results
    figure = predicted_vs_mos.official_test_part(folder)
    assert "30 images: SRCC 0.812, PLCC 0.900" in figure.get_suptitle()
    (axes,) = (axes for axes in figure.axes if axes.collections)
    points = np.concatenate([collection.get_offsets() for collection in axes.collections])
    assert len(axes.collections) == 2
    shown = {(round(float(x), 6), round(float(y), 6)) for x, y in points}
    assert shown == {(round(x, 6), round(y, 6)) for x, y in zip(table["ma_agiqa"], table["mos"], strict=True)}


@pytest.fixture
def shares(monkeypatch):
    """What a stand-in for the metric says of any image."""
    shares = torch.tensor([[0.5, -0.25, 1.5]])
    output = {"shares": shares, "score": shares.sum(1, keepdim=True), "quality_map": torch.rand(1, 4, 5)}
    monkeypatch.setattr(expert_shares, "create", lambda name, weights: lambda path, return_parts: output)
    return shares


def test_bars_are_the_shares_and_the_title_is_their_sum(tmp_path, shares):
    path = tmp_path / "image.png"
    Image.fromarray(picture(40, 50)).save(path)
    figure = expert_shares.expert_shares([path, path])
    panels = [axes for axes in figure.axes if axes.patches]
    assert len(panels) == 2
    for axes in panels:
        assert [bar.get_width() for bar in axes.patches] == shares[0].tolist()
        assert axes.get_title() == "score 1.75 = sum of shares"
        assert [label.get_text() for label in axes.get_yticklabels()] == list(expert_shares.EXPERTS)


def test_the_scripts_write_their_pictures(results, shares, monkeypatch, tmp_path):
    folder, _ = results
    image = tmp_path / "image.png"
    Image.fromarray(picture(64, 64)).save(image)
    for script, words in (
        (predicted_vs_mos, ["--results", str(folder)]),
        (expert_shares, ["--images", str(image)]),
    ):
        out = tmp_path / "drawn.png"
        monkeypatch.setattr("sys.argv", ["script", *words, "--out", str(out)])
        script.main()
        with Image.open(out) as file:
            assert np.asarray(file).std() > 0
        out.unlink()
