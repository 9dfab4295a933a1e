"""The benchmark of `score`, on a few images and a quick metric."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.command import score_command, score_tables
from pyiqa_ma_agiqa.command.main import main

from ..rated import write_images


def test_rates_and_memory(tmp_path, monkeypatch):
    """The memory is that of a process; what is timed runs here, as if each image took half a second."""

    def seconds(words):
        assert words[:3] == [sys.executable, "-m", "pyiqa_ma_agiqa.command"]
        assert main(words[3:]) == 0
        with open(words[4]) as table:
            return (len(table.readlines()) - 1) / 2

    monkeypatch.setattr(score_command, "seconds", seconds)
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
    assert rates["model"] > 0
    assert rates["command"] == pytest.approx(2) and rates["command_after_its_start"] == pytest.approx(2)
    ratio = throughput["of_the_models_rate"]["command"]["median"]
    assert ratio == pytest.approx(rates["command"] / rates["model"], rel=1e-4)
    assert memory["peak_mib"] > 100
    assert throughput["threads"] == memory["threads"]
    # The command line of each part makes that part alone.
    assert throughput["command"].endswith("--rounds 1 --data test_rates_and_memory0 --metric piqe --images 4")
    assert (
        "--rounds 0 --memory piqe=40 --data" in memory["command"] and "--memory" not in throughput["command"]
    )


def test_memory_of_a_process_that_is_gone():
    assert score_command.resident_mib(2**22 + 1) == 0


def test_time_of_a_process():
    assert score_command.seconds([sys.executable, "-c", "pass"]) > 0
    with pytest.raises(subprocess.CalledProcessError):
        score_command.seconds([sys.executable, "-c", "raise SystemExit(1)"])


def spread(value):
    return {"median": value, "low_quartile": value, "high_quartile": value}


def test_tables_by_hand():
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
                "ray": {"median": 2.0},
            },
            "of_the_models_rate": {
                "command": spread(0.75),
                "command_after_its_start": spread(0.9),
                "ray": {"median": 0.5},
            },
            **{"command": "python x.py", "date": "2026-11-21", "cpu": "a CPU", "cores": 2},
            "versions": {"pyiqa": "1", "torch": "2"},
        },
        "memory": {"piqe": {"images": 10_000, "median_mib_by_tenth_of_the_time": tenths, "peak_mib": 720.0}},
    }
    text = score_tables.keeping_up(result)
    assert "| ma_agiqa alone, fed from memory | 4.00 (4.00–4.00) | – |" in text
    assert "| `score`, from start to exit | 3.00 (3.00–3.00) | 0.75 (0.75–0.75) |" in text
    assert "| `score --engine ray`, on this machine alone, from start to exit | 2.00 | 0.50 |" in text
    assert "| piqe | 10,000 | 700 | 701 | 720 |" in text
    # Without the start of Ray both count theirs. A million images at 3 a second: 92.6 hours on 2 cores.
    counted = score_tables.cost(result)
    assert "| `score` | 1.50 | 185 | 7.41 |" in counted
    assert "| `score --engine ray`, on this machine alone | 1.00 | 278 | 11.11 |" in counted
    assert "are of runs of 500 images and count their start" in counted
    # With it neither does. At 3.6 a second: 77.16 hours on 2 cores, 154.3 core hours at 0.04 dollars each.
    result["throughput"]["images_per_second"]["ray_after_its_start"] = spread(2.5)
    left_out = score_tables.cost(result)
    assert "| `score` | 1.80 | 154 | 6.17 |" in left_out
    assert "| `score --engine ray`, on this machine alone | 1.25 | 222 | 8.89 |" in left_out
    assert "leave out the start" in left_out


def test_both_engines_are_measured_alike(tmp_path, monkeypatch):
    """Each engine scores all images and one image, in each round."""
    monkeypatch.setattr(score_command, "find_spec", lambda name: True)
    ran = []

    def seconds(words):
        ran.append(("ray" if "ray" in words else "command", "one.csv" in " ".join(words)))
        return {"ray": 6.0, "command": 2.0}[ran[-1][0]] / (2 if ran[-1][1] else 1)

    monkeypatch.setattr(score_command, "seconds", seconds)
    (tmp_path / "images").mkdir()
    write_images(tmp_path / "images", ["a.png", "b.png"])
    out = tmp_path / "result.json"
    options = ["--metric", "piqe", "--device", "cpu", "--images", "2", "--rounds", "2", "--out", str(out)]
    score_command.main(["--data", str(tmp_path), *options])
    found = json.loads(out.read_text())["throughput"]
    assert ran == 2 * [("command", False), ("command", True), ("ray", False), ("ray", True)]
    rates = {name: rate["median"] for name, rate in found["images_per_second"].items() if name != "model"}
    assert rates == pytest.approx(
        {"command": 1, "command_after_its_start": 1, "ray": 1 / 3, "ray_after_its_start": 1 / 3}, rel=1e-4
    )
    assert found["seconds_with_one_image"]["ray"]["median"] == 3
