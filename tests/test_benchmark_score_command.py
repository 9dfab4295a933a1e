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
    assert throughput["threads"] == memory["threads"]


def test_memory_of_a_process_that_is_gone():
    assert script("score_command").resident_mib(2**22 + 1) == 0


def spread(value):
    return {"median": value, "low_quartile": value, "high_quartile": value}


def test_tables_by_hand():
    tables = script("score_tables")
    tenths = {"10-20 %": 700.0, "80-90 %": 701.0}
    result = {
        "throughput": {
            "metric": "ma_agiqa",
            "threads": 2,
            "images": 500,
            "images_per_second": {
                "model": spread(4.0),
                "command": spread(3.0),
                "command_after_its_start": spread(3.6),
            },
            "of_the_models_rate": {"command": spread(0.75), "command_after_its_start": spread(0.9)},
            "images_per_second_on_ray": 2.0,
        },
        "memory": {"piqe": {"images": 10_000, "median_mib_by_tenth_of_the_time": tenths, "peak_mib": 720.0}},
    }
    text = tables.keeping_up(result)
    assert "| ma_agiqa alone, fed from memory | 4.00 (4.00–4.00) | – |" in text
    assert "| `score`, from its start to its exit | 3.00 (3.00–3.00) | 0.75 (0.75–0.75) |" in text
    assert "| `score --engine ray`, on this machine alone | 2.00 | 0.50 |" in text
    assert "| piqe | 10,000 | 700 | 701 | 720 |" in text
    # A million images at 3.6 a second: 77.16 hours on 2 cores, 154.3 core hours at 0.04 dollars each.
    assert "| `score` | 1.80 | 154 | 6.17 |" in tables.cost(result)
    assert "| `score --engine ray` | 1.00 | 278 | 11.11 |" in tables.cost(result)
