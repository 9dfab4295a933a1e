"""The benchmark of `score`, on a few images and a quick metric."""

from __future__ import annotations

import json

import pytest

from .benchmark_scripts import script, write_images


def test_rates_and_memory(tmp_path, monkeypatch):
    score_command = script("score_command")
    monkeypatch.setattr(score_command, "find_spec", lambda name: None)  # Ray takes half a minute
    (tmp_path / "images").mkdir()
    write_images(tmp_path / "images", [f"{number}.png" for number in range(4)])
    out = tmp_path / "result.json"
    options = ["--metric", "piqe", "--device", "cpu", "--images", "4", "--rounds", "1", "--memory", "piqe=40"]
    score_command.main(["--data", str(tmp_path), *options, "--out", str(out)])
    result = json.loads(out.read_text())
    throughput, memory = result["throughput"], result["memory"]["piqe"]
    assert throughput["images"] == 4 and memory["images"] == 40
    rates = {name: rate["median"] for name, rate in throughput["images_per_second"].items()}
    assert 0 < rates["command"] < rates["model"]
    ratio = throughput["of_the_models_rate"]["command"]["median"]
    assert ratio == pytest.approx(rates["command"] / rates["model"], rel=1e-4)
    assert memory["peak_mib"] > 100


def test_memory_of_a_process_that_is_gone():
    assert script("score_command").resident_mib(2**22 + 1) == 0
