"""The benchmark of speed with stand-ins for the metrics."""

from __future__ import annotations

import json
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.speed import efficiency, efficiency_on_gpu, speed_tables
from pyiqa_ma_agiqa.compact.preprocessing import ENCODER_SIDE


class StandIn(torch.nn.Module):
    """A metric that counts its calls by batch and side; ours has the networks that the benchmark asks for."""

    def __init__(self, calls: list, fails: bool = False) -> None:
        super().__init__()
        self.calls, self.fails = calls, fails
        self.net = SimpleNamespace(
            encoder=lambda view: calls.append(("encoder", *view.shape[2:])),
            branch=lambda view: calls.append(("branch", *view.shape[2:])),
            backbone_passes=lambda *views: calls.append(("passes", *(view.shape[3] for view in views))),
            test_sample=20,
        )

    def forward(self, pixels):
        if self.fails:
            raise RuntimeError("not in this precision\nat all")
        self.calls.append((len(pixels), pixels.shape[-1]))


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the script as its command line does, with stand-ins; gives its result and the calls by metric."""

    def call(*words, fails=()):
        calls = {name: [] for name in ("ma_agiqa", "maniqa", "musiq")}
        own = {name: {"peak_memory_increase_mib": 100.0, "load_seconds": 0.5} for name in calls}
        own = {name: entry | {"weights_mib": 9.0} for name, entry in own.items()}
        monkeypatch.setattr(efficiency, "each_in_its_own_process", lambda _: (own, {"arniqa": "no file"}))
        monkeypatch.setattr(efficiency, "create", lambda name, *_: StandIn(calls[name], name in fails))
        monkeypatch.setattr(efficiency, "import_seconds", lambda: efficiency.spread(np.array([0.01])))
        words = ["--untrained", "--threads", "1", "--out", str(tmp_path), *words]
        monkeypatch.setattr("sys.argv", ["efficiency.py", *words])
        efficiency.main()
        return json.loads((tmp_path / "efficiency.json").read_text()), calls

    return call


def test_one_measurement_has_one_figure(run):
    found, calls = run("--rounds", "3", "--batches", "1", "2", "--sides", "32", "512")
    cpu = found["cpu_float32"]
    latency = cpu["latency_seconds"]["ma_agiqa"]
    assert cpu["latency_seconds_by_side"]["512"] == latency
    assert cpu["images_per_second_by_batch"]["1"]["median"] == pytest.approx(1 / latency["median"], rel=1e-4)
    # A try and a warm-up, then an untimed and a timed call a round; the row of the image is timed once.
    assert {key: calls["ma_agiqa"].count(key) for key in ((1, 512), (2, 512), (1, 32))} == {
        (1, 512): 2 + 2 * 3,
        (2, 512): 1 + 2 * 3,
        (1, 32): 1 + 2 * 3,
    }
    assert calls["maniqa"] == [(1, 512)] * 8
    # Both networks see their views, whether these are made beforehand or in the time of the passes.
    side = ENCODER_SIDE
    for seen in (("encoder", side, side), ("branch", 512, 512), ("passes", side, 512)):
        assert calls["ma_agiqa"].count(seen) == 7
    assert found["commit"]
    text = speed_tables.efficiency(found)
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ma")]
    assert [row[0] for row in rows] == ["| ma_agiqa", "| maniqa, 20 crops an image"]
    assert rows[0][1] in next(line for line in text.splitlines() if line.startswith("| ms (quartiles)"))
    assert rows[0][3:] == ["100", "0.50", "9 |"]
    assert "Could not be built here: arniqa." in text and "read by pyiqa's own code" in text


def test_a_metric_that_fails_in_a_precision_is_skipped(run):
    found, _ = run("--rounds", "1", "--batches", "1", "--sides", "512", fails=("musiq",))
    cpu = found["cpu_float32"]
    assert cpu["skipped"] == {"musiq": "not in this precision"}
    assert set(cpu["time_over_ours"]) == {"maniqa"}
    assert set(cpu["latency_seconds"]) == {"ma_agiqa", "maniqa", "backbone passes", "bare networks"}


def test_on_a_gpu_both_precisions_are_measured(monkeypatch, tmp_path):
    asked = []

    def create(name, device, untrained):
        assert device == "cuda" and untrained
        if name == "arniqa":
            raise AttributeError("no such file\nat all")
        return StandIn([])

    def measure(metrics, device, precision, options):
        asked.append((sorted(metrics), device, precision, options.batches))
        times = {name: {"median": 0.02, "low_quartile": 0.01, "high_quartile": 0.03} for name in metrics}
        ratio = {"median": 2.0, "low_quartile": 1.5, "high_quartile": 2.5}
        return {
            "latency_seconds": times,
            "time_over_ours": {"musiq": ratio} if precision == "float32" else {},
            "images_per_second_by_batch": {"16": {"median": 350.0}},
            "latency_seconds_by_side": {"512": times["ma_agiqa"]},
            "memory_rise_mib_by_batch": {"16": 949.4},
        }

    words = ["--untrained", "--others", "musiq", "arniqa", "--batches", "16", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["efficiency_on_gpu.py", *words])
    for name, value in (("create", create), ("measure", measure)):
        monkeypatch.setattr(efficiency_on_gpu, name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no GPU is at hand"):
        efficiency_on_gpu.main()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA X1")
    efficiency_on_gpu.main()
    assert asked == [(["ma_agiqa", "musiq"], "cuda", kind, [16]) for kind in ("float32", "bfloat16")]
    text = speed_tables.efficiency_on_gpu(json.loads((tmp_path / "efficiency_on_gpu.json").read_text()))
    assert text.startswith("| 512 x 512 on NVIDIA X1 | cuda, float32: ms (quartiles) |")
    assert "| musiq, 20 crops an image | 20 (10–30) | 2.00 (1.50–2.50) | 20 (10–30) | – |" in text
    assert "| memory over its weights, MiB | 949 |" in text and "NVIDIA X1, " in text
    assert "Could not be built there: arniqa." in text


def test_a_metric_that_cannot_be_built_is_left_out_but_ours_is_an_error(monkeypatch):
    options = SimpleNamespace(others=["musiq", "arniqa"])

    def in_own_process(name, _):
        if name == bad:
            raise subprocess.CalledProcessError(1, "x", stderr="Traceback\nOSError: no random weights\n")
        return {"load_seconds": 1.0}

    monkeypatch.setattr(efficiency, "in_own_process", in_own_process)
    bad = "arniqa"
    found, not_built = efficiency.each_in_its_own_process(options)
    assert list(found) == ["ma_agiqa", "musiq"]
    assert not_built == {"arniqa": "OSError: no random weights"}
    bad = "ma_agiqa"
    with pytest.raises(subprocess.CalledProcessError):
        efficiency.each_in_its_own_process(options)


def test_files_are_written_by_one_process_and_read_by_the_next(monkeypatch):
    runs = []

    def process(command, **_):
        folder = command[command.index("--files") + 1]
        runs.append(folder)
        with open(f"{folder}/weights", "wb") as file:
            file.write(bytes(2**20))
        return SimpleNamespace(stdout=f'noise\n{{"load_seconds": {len(runs)}}}\n')

    monkeypatch.setattr(subprocess, "run", process)
    options = SimpleNamespace(threads=1, untrained=False)
    assert efficiency.in_own_process("musiq", options) == {"load_seconds": 2, "weights_mib": 1.0}
    assert len(runs) == 2 and runs[0] == runs[1]
    shipped = efficiency.shipped_weights().stat().st_size / 2**20
    assert efficiency.in_own_process("ma_agiqa", options) == {"load_seconds": 3, "weights_mib": shipped}
