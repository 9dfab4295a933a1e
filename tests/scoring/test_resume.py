"""Interrupted runs of `score`: ended at any step; then the same command, and the same bytes."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest

from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.scoring import ray_engine, ray_pool, settings
from pyiqa_ma_agiqa.scoring import run as scoring
from pyiqa_ma_agiqa.scoring.rows import crashes, journal
from pyiqa_ma_agiqa.scoring.rows.journal import Journal

from ..command_runs import make_images, rows_in, run, start_and_wait

COUNT = 4
COMMAND = [
    "score",
    "images",
    "missing.png",
    "--metric",
    "entropy",
    "--device",
    "cpu",
    "--workers",
    "2",
    "--out",
]
SUFFIXES = (".csv", ".parquet", "")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    make_images(folder / "images", COUNT)
    (folder / "images" / "00002.png").write_bytes(b"broken")
    return folder


@pytest.fixture
def here(images, monkeypatch):
    """In the folder of the images, with nothing else in it."""
    for path in images.iterdir():
        if path.name != "images":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    monkeypatch.chdir(images)
    return images


def content(path: str | Path) -> dict[str, bytes]:
    """Of an output, by name of its files."""
    files = sorted(Path(path).iterdir()) if Path(path).is_dir() else [Path(path)]
    return {"" if file == Path(path) else file.name: file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def uninterrupted(images):
    """What an uninterrupted run writes, by suffix."""
    whole = {}
    before = Path.cwd()
    os.chdir(images)
    for suffix in SUFFIXES:
        assert main([*COMMAND, f"whole{suffix}"]) == 1
        whole[suffix] = content(f"whole{suffix}")
    os.chdir(before)
    return whole


class Steps:
    """What is on the disk beside the images before each step of a run, as kill -9 would leave it."""

    def __init__(self, monkeypatch, aside: Path) -> None:
        self.aside = aside
        self.count = 0
        monkeypatch.setattr(journal, "SECONDS_BETWEEN_COMMITS", 0)
        for owner, name in (
            *((os, name) for name in ("fsync", "mkdir", "rmdir")),
            *((Path, name) for name in ("replace", "unlink", "mkdir")),
            *((shutil, name) for name in ("rmtree",)),
            *((Journal, name) for name in ("add", "commit", "insert_rows", "close", "allow")),
            *((crashes.CrashNote, name) for name in ("__exit__", "_write")),
        ):
            self._watch(monkeypatch, owner, name)

    def _watch(self, monkeypatch, owner, name):
        real = getattr(owner, name)

        def watched(*arguments, **named):
            self._keep()
            return real(*arguments, **named)

        monkeypatch.setattr(owner, name, watched)

    def _keep(self):
        folder = f"{self.aside}/{self.count:03}"
        self.count += 1
        # By the shell: nothing that is watched.
        assert os.system(f"mkdir -p {folder} && cp -a x* {folder} 2>/dev/null || true") == 0

    def restore(self, number: int) -> None:
        assert os.system(f"rm -rf x* && cp -a {self.aside}/{number:03}/. .") == 0


@pytest.mark.parametrize(("suffix", "again"), [(".csv", ""), (".parquet", "--restart"), ("", "--restart")])
def test_ended_at_any_step(here, uninterrupted, monkeypatch, tmp_path, suffix, again):
    """No output in parts, no row lost, no file left behind; also where an older output is replaced."""
    out = f"x{suffix}"
    words = [*COMMAND, out]
    older = {}
    if again:
        assert main(["score", "images/00000.png", *COMMAND[3:], out]) == 0
        older = content(out)
    with monkeypatch.context() as patch:
        steps = Steps(patch, tmp_path / "steps")
        assert main([*words, *again.split()]) == 1
    rows = []
    for number in range(steps.count):
        steps.restore(number)
        begun = Path(f"{out}.journal").exists()
        rows.append(rows_in(Path(f"{out}.journal")) if begun else 0)
        there = content(out) if Path(out).exists() else {}
        assert there == uninterrupted[suffix] or there.items() <= older.items()
        if begun or not there:
            # An older output stays until the journal knows that it may go.
            assert main(words) == 1 or (not rows[-1] and there == older)
        if content(out) != older:
            assert content(out) == uninterrupted[suffix]
            assert sorted(path.name for path in here.glob("x*")) == [out]
    assert set(rows) == set(range(COUNT + 2)) and content(out) == uninterrupted[suffix]


def test_killed(here, uninterrupted):
    process = start_and_wait(here, 3, *COMMAND, "x.csv")
    process.kill()
    process.join()
    assert not Path("x.csv").exists() and rows_in(Path("x.csv.journal")) == 3
    assert main([*COMMAND, "x.csv"]) == 1
    assert content("x.csv") == uninterrupted[".csv"]
    assert sorted(path.name for path in here.glob("x*")) == ["x.csv"]


@pytest.mark.parametrize(("more", "says"), [([], ""), (["--restart"], " without --restart")])
def test_ctrl_c(here, uninterrupted, more, says):
    process = start_and_wait(here, 3, *COMMAND[:-1], *more, "--out", "x.csv")
    os.kill(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == 130
    told = f"interrupted: 3 of {COUNT + 1} images have a row; the same command{says} goes on"
    assert told in Path("log").read_text()
    assert run(here, *COMMAND, "x.csv") == 1
    assert f"going on: 3 of {COUNT + 1} images have a row already" in Path("log").read_text()
    assert content("x.csv") == uninterrupted[".csv"]


@pytest.fixture
def interrupt(monkeypatch):
    """A function that runs the command until there are some rows, and then interrupts it."""

    def run_until(rows: int, *words: str) -> None:
        with monkeypatch.context() as patch:
            add = Journal.add

            def add_or_stop(self, number, row):
                add(self, number, row)
                if len(self.added) + self.done() == rows:
                    raise KeyboardInterrupt

            patch.setattr(Journal, "add", add_or_stop)
            assert main(list(words)) == 130
        assert rows_in(Path(f"{words[words.index('--out') + 1]}.journal")) == rows

    return run_until


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*COMMAND, "x.csv", "--metric", "piqe"], "--metric was entropy, is piqe"),
        ([*COMMAND, "x.csv", "--max-pixels", "5000"], "--max-pixels was 40000000, is 5000"),
        (["score", "images", *COMMAND[3:], "x.csv"], "INPUT was ['images', 'missing.png'], is ['images']"),
    ],
)
def test_other_settings_are_refused(here, interrupt, capsys, words, message):
    interrupt(2, *COMMAND, "x.csv")
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr().err
    assert message in said and "--restart" in said and said.count("\n") == 1
    assert main([*words, "--restart"]) in (0, 1)


def test_intervals_go_on_with_intervals_alone(here, interrupt, short_towers, capsys):
    words = ["score", "images/00000.png", "images/00001.png", "--device", "cpu", "--out", "x.csv"]
    interrupt(1, *words, "--interval")
    assert main(words) == 2
    assert "--interval was True, is False" in capsys.readouterr().err
    assert main([*words, "--interval"]) == 0
    assert "going on: 1 of 2" in capsys.readouterr().err
    with open("x.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert all(float(row["low"]) < float(row["score"]) < float(row["high"]) for row in rows)


PACKAGES = (
    "pyiqa",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scipy",
    "pillow",
    "transformers",
    "bitsandbytes",
)


@pytest.mark.parametrize("package", ["pyiqa-ma-agiqa", *PACKAGES, "opencv-python-headless"])
def test_an_upgrade_in_mid_run_is_refused(here, interrupt, capsys, monkeypatch, package):
    interrupt(2, *COMMAND, "x.csv")
    version = settings.version
    monkeypatch.setattr(settings, "version", lambda name: "9.9" if name == package else version(name))
    if package == "pyiqa-ma-agiqa":
        monkeypatch.setattr(settings, "__version__", "9.9")
    capsys.readouterr()
    assert main([*COMMAND, "x.csv"]) == 2
    said = capsys.readouterr().err
    assert f"{package} was" in said and "is 9.9" in said and said.count(" was ") == 1


def test_it_goes_on_with_another_engine(here, uninterrupted, interrupt, monkeypatch):
    """Local, then the cluster, for which another function stands in, then local."""

    def on_cluster(items, job, actors):
        return scoring.score_items(items, scoring.Scorer(job), job)

    monkeypatch.setattr(ray_pool, "connect", lambda: None)
    monkeypatch.setattr(ray_pool, "cluster_device", lambda ray, name: name or "cpu")
    monkeypatch.setattr(ray_engine, "score_on_cluster", on_cluster)
    interrupt(2, *COMMAND, "x.csv")
    interrupt(3, *COMMAND, "x.csv", "--engine", "ray", "--actors", "2")
    assert main([*COMMAND, "x.csv"]) == 1
    assert content("x.csv") == uninterrupted[".csv"]


def test_a_list_without_rows_is_made_anew(here, interrupt, monkeypatch):
    shutil.copytree("images", "x")
    first = sorted(Path("x").iterdir())[0]
    words = ["score", "x", *COMMAND[3:], "x.csv"]
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "Scorer", lambda job: 1 / 0)
        assert main(words) == 2
    first.unlink()
    shutil.copy("images/00001.png", "x/new.png")
    assert main(words) == 1
    rows = Path("x.csv").read_text()
    assert "x/new.png" in rows and first.name not in rows


def test_an_empty_folder_is_listed_again(here):
    Path("x").mkdir()
    words = ["score", "x", *COMMAND[3:], "x.csv"]
    assert main(words) == 2
    shutil.copy("images/00001.png", "x/new.png")
    assert main(words) == 0


def test_a_damaged_journal_is_refused(here, interrupt, capsys):
    interrupt(2, *COMMAND, "x.csv")
    journal = Path("x.csv.journal")
    journal.write_bytes(journal.read_bytes()[:100] + b"junk" * 5000)
    assert main([*COMMAND, "x.csv"]) == 2
    assert "damaged" in capsys.readouterr().err
    assert main([*COMMAND, "x.csv", "--restart"]) == 1


@pytest.mark.parametrize("more", [[], ["--restart"]])
def test_two_runs_of_one_output(here, interrupt, capsys, more):
    interrupt(2, *COMMAND, "x.csv")
    holder = sqlite3.connect("x.csv.journal")
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN IMMEDIATE")
    assert main([*COMMAND, "x.csv", *more]) == 2
    assert "another run writes this output" in capsys.readouterr().err
    holder.close()
    assert rows_in(Path("x.csv.journal")) == 2


def test_a_journal_removed_in_mid_run_ends_it(here, monkeypatch, capsys):
    """At once, and not after all images were scored."""
    add = Journal.add

    def add_and_remove(self, number, row):
        self.path.unlink(missing_ok=True)
        add(self, number, row)

    monkeypatch.setattr(Journal, "add", add_and_remove)
    monkeypatch.setattr(journal, "SECONDS_BETWEEN_COMMITS", 0)
    assert main([*COMMAND, "x.csv"]) == 2
    assert "x.csv.journal: was removed during the run" in capsys.readouterr().err
    assert not Path("x.csv").exists()


@pytest.mark.parametrize("room", [0, 16, 64, 128])
def test_a_full_disk_loses_nothing(small_disk, tmp_path, capsys, monkeypatch, room):
    """Full at any time, of the list, of the rows or of the output: one error, and then the whole output."""
    monkeypatch.chdir(tmp_path)
    # Or the log, which grows with each commit, would fill the disk on a slow machine.
    monkeypatch.setattr(journal, "SECONDS_BETWEEN_COMMITS", float("inf"))
    make_images(tmp_path / "images", 400)
    words = ["score", "images", "--metric", "entropy", "--device", "cpu", "--out"]
    assert main([*words, "whole.csv"]) == 0
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2**20 - 1024 * room))
    capsys.readouterr()
    assert main([*words, str(small_disk / "x.csv")]) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "make room" in said and str(small_disk) in said
    assert not (small_disk / "x.csv").exists()
    ballast.unlink()
    assert main([*words, str(small_disk / "x.csv")]) == 0
    assert (small_disk / "x.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
