"""The benchmark beside an earlier commit: with made-up times, and one process with the package as it is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.common import tables
from benchmarks.common.places import ROOT
from benchmarks.speed import against_commit, version_worker
from pyiqa_ma_agiqa.compact.arithmetic import machine

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


class StandIn:
    """A version that takes 2 s a score where it is the earlier one, else 1 s."""

    started: list = []  # noqa: RUF012

    def __init__(self, tree, environment, floats, threads):
        self.tree = tree
        self.started.append((tree == ROOT, environment, floats, threads))
        self.facts = {"peak_memory_increase_mib": 100.0, "load_seconds": 0.5, "score": 1.0}

    def ask(self, threads, side, batch):
        return (1.0 if self.tree == ROOT else 2.0) * batch

    def close(self):
        self.started.append("closed")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with two commits, the earlier one with other weights."""
    folder = tmp_path / "repository"
    weights = folder / against_commit.WEIGHTS
    weights.parent.mkdir(parents=True)

    def git(*words):
        who = ("-c", "user.name=n", "-c", "user.email=e@x")
        done = subprocess.run(["git", "-C", folder, *who, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    for content in (b"earlier", b"later"):
        weights.write_bytes(content)
        git("add", "--all")
        git("commit", "-qm", "m")
    in_this_one = against_commit.git
    monkeypatch.setattr(
        against_commit, "git", lambda *words, root=folder: in_this_one(*words, root=Path(root))
    )
    return git


def test_versions_are_compared_in_rounds(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(against_commit, "Worker", StandIn)
    monkeypatch.setattr(StandIn, "started", [])
    threads = torch.get_num_threads()
    try:
        against_commit.main(["--commit", "HEAD~1", "--rounds", "2", "--out", str(tmp_path / "speed")])
    finally:
        torch.set_num_threads(threads)
    found = json.loads((tmp_path / "speed" / "against_commit.json").read_text())
    assert found["earlier"]["commit"] == repository("rev-parse", "HEAD~1")
    assert found["earlier"]["weights_mib"] == pytest.approx(len(b"earlier") / 2**20, rel=1e-4)
    assert repository("worktree", "list").count("\n") == 0, "the other tree is to be gone"

    assert list(found["variants"]) == list(against_commit.VARIANTS)
    as_it_is, *limited = found["variants"].values()
    assert len(as_it_is["times"]) == 2 * 3 and all(len(variant["times"]) == 2 for variant in limited)
    batch = next(row for row in as_it_is["times"] if "batch" in row["case"])
    assert batch["earlier_seconds"]["median"] == 8 and batch["earlier_over_ours"]["median"] == 2
    processes = [row for row in StandIn.started if row != "closed"]
    assert StandIn.started.count("closed") == len(processes) == 8
    assert [row[0] for row in processes] == [False, True] * 4
    assert [row[2] for row in processes] == [False] * 7 + [True], "floats are for ours alone"
    assert processes[2][1] == processes[3][1] == {"ONEDNN_MAX_CPU_ISA": "AVX2"}

    text = tables.TABLES["against_commit"](tmp_path)
    assert text.startswith(tables.BLOCKS["against_commit"].begins)
    assert "| the machine as it is; 512 x 512, batch of 4 | 2 | 8000 (8000–8000) | 4000 (4000–4000) |" in text
    assert "| oneDNN held to AVX2 | 100 | 100 | 0.50 | 0.50 |" in text


def test_a_commit_that_is_not_there_is_one_line(repository):
    with pytest.raises(SystemExit, match="cannot check out 0000000"), against_commit.checked_out("0000000"):
        pass


def test_a_process_scores_with_the_package_of_its_tree():
    worker = against_commit.Worker(ROOT, {}, floats=True, threads=1)
    try:
        assert worker.facts["peak_memory_increase_mib"] > 50 and worker.facts["load_seconds"] > 0
        assert 0 < worker.ask(threads=1, side=32, batch=1) < 60
    finally:
        worker.close()
    assert worker.process.returncode == 0


def test_a_tree_without_the_package_leaves_what_is_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("PYIQA_MA_AGIQA_DISABLE", "1")
    monkeypatch.setattr("sys.path", sys.path.copy())
    with pytest.raises(ImportError, match=f"the package came from .*, not from {tmp_path}"):
        version_worker.use(tmp_path)


def test_a_version_that_ends_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", shutil.which("false"))
    with pytest.raises(RuntimeError, match=f"{tmp_path}: this version ended with 1"):
        against_commit.Worker(tmp_path, {}, floats=False, threads=1)


def test_floats_are_used_when_asked_for(monkeypatch):
    cpu = torch.device("cpu")
    for name in ("has_fast_products", "has_fast_convolutions"):
        monkeypatch.setattr(machine, name, lambda device: True)
    version_worker.use_floats()
    assert not machine.has_fast_products(cpu) and not machine.has_fast_convolutions(cpu)
