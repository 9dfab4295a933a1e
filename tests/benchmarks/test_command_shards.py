"""The benchmark of shards, on a few images, without webdataset and without the model."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from benchmarks.command import score_tables, shards

from ..rated import write_images


def read(streams):
    """Stands in for webdataset: seconds, once what it is given has been read as it would."""
    for stream in streams:
        piped = stream.startswith("pipe:")
        content = subprocess.check_output(stream[5:], shell=True) if piped else Path(stream).read_bytes()
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            assert len(tar.getnames()) == 4
    return 2.0 * len(streams)


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl: the benchmark of shards is NOT tested")
def test_rates_and_what_a_billion_costs(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "webdataset_seconds", lambda streams, workers: read(streams))
    monkeypatch.setattr(shards.run, "SharedScorer", shards.run.SharedScorer)  # put back at the end
    (tmp_path / "images").mkdir()
    write_images(tmp_path / "images", [f"{number}.png" for number in range(3)])
    out = tmp_path / "result.json"
    words = ["--shards", "2", "--images", "4", "--model-shards", "0", "--workers", "1", "2", "--rounds", "1"]
    shards.main([*words, "--data", str(tmp_path), "--out", str(out)])
    result = json.loads(out.read_text())
    rates = {name: rate["median"] for name, rate in result["images_per_second"].items()}
    for source in ("", " from a store"):
        assert rates[f"webdataset{source}, workers 1"] == 2.0 and rates[f"shards{source}, workers 2"] > 0
    hours = result["core_hours_of_a_billion"]["webdataset, workers 1"]
    assert hours == pytest.approx(1e9 / 2 / 3600 * result["cores"], rel=1e-4)
    lines = score_tables.shards(result).splitlines()
    for source in ("", " from a store"):
        of_two = next(line for line in lines if line.startswith(f"| shards{source}, workers 2"))
        share = rates[f"shards{source}, workers 2"] / rates[f"webdataset{source}, workers 2"]
        assert f"{share:.2f} of webdataset{source}, workers 2" in of_two
    assert f"{hours:,.0f}" in next(line for line in lines if line.startswith("| webdataset, workers 1"))
