"""The benchmark of shards, on a few images, without webdataset and without the model."""

from __future__ import annotations

import json

import pytest

from benchmarks.command import score_tables, shards

from ..rated import write_images


def test_rates_and_what_a_billion_costs(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "webdataset_seconds", lambda tars, workers: 2.0 * len(tars))
    monkeypatch.setattr(shards.run, "SharedScorer", shards.run.SharedScorer)  # put back at the end
    (tmp_path / "images").mkdir()
    write_images(tmp_path / "images", [f"{number}.png" for number in range(3)])
    out = tmp_path / "result.json"
    words = ["--shards", "2", "--images", "4", "--model-shards", "0", "--workers", "1", "2", "--rounds", "1"]
    shards.main([*words, "--data", str(tmp_path), "--out", str(out)])
    result = json.loads(out.read_text())
    rates = {name: rate["median"] for name, rate in result["images_per_second"].items()}
    assert rates["webdataset, workers 1"] == 2.0 and rates["shards, workers 2"] > 0
    hours = result["core_hours_of_a_billion"]["webdataset, workers 1"]
    assert hours == pytest.approx(1e9 / 2 / 3600 * result["cores"], rel=1e-4)
    lines = score_tables.shards(result).splitlines()
    of_two = next(line for line in lines if line.startswith("| shards, workers 2"))
    share = rates["shards, workers 2"] / rates["webdataset, workers 2"]
    assert f"{share:.2f} of webdataset, workers 2" in of_two
    assert f"{hours:,.0f}" in next(line for line in lines if line.startswith("| webdataset, workers 1"))
