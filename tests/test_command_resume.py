"""Interrupted runs of `score`: kill -9 and Ctrl-C at any time; then the same command, and the same bytes."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pyarrow.parquet
import pytest

from pyiqa_ma_agiqa.command.main import main

from .command_runs import make_images, rows_in, run, start, start_and_wait

COUNT = 300
COMMAND = ("score", "images", "missing.png", "--metric", "piqe", "--device", "cpu", "--workers", "2")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    make_images(folder / "images", COUNT, side=192)
    (folder / "images" / "00100.png").write_bytes(b"broken")
    return folder


@pytest.fixture(scope="module")
def uninterrupted(images):
    """The bytes of both files of a run that nothing interrupted."""
    assert run(images, *COMMAND, "--out", "whole.parquet") == 1
    assert run(images, *COMMAND, "--out", "whole.csv") == 1
    return {suffix: (images / f"whole{suffix}").read_bytes() for suffix in (".csv", ".parquet")}


def test_killed_at_random_times(images, uninterrupted):
    chance = random.Random(3)
    journal = images / "killed.parquet.journal"
    kept = [0]
    kills = 0
    for attempt in range(1, 40):
        process = start(images, *COMMAND, "--out", "killed.parquet")
        process.join(chance.uniform(0.1, 0.3 * attempt))  # longer and longer, so that it ends
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        kills += 1
        assert not (images / "killed.parquet").exists()
        kept.append(rows_in(journal))
    assert process.exitcode == 1
    assert kills >= 3 and kept == sorted(kept) and kept[-1] > 0
    assert (images / "killed.parquet").read_bytes() == uninterrupted[".parquet"]
    table = pyarrow.parquet.read_table(images / "killed.parquet").to_pylist()
    expected = [f"images/{number:05}.png" for number in range(COUNT)] + ["missing.png"]
    assert [row["path"] for row in table] == expected
    assert [row["path"] for row in table if row["error"]] == ["images/00100.png", "missing.png"]
    assert sorted(path.name for path in images.glob("killed*")) == ["killed.parquet"]


def test_killed_after_the_output_was_written(images, uninterrupted):
    """Between the output and the removal of the journal: the same output, once more."""
    assert run(images, *COMMAND, "--out", "late.csv") == 1
    process = start_and_wait(images, 50, *COMMAND, "--out", "again.csv")
    process.kill()
    process.join()
    (images / "again.csv").write_bytes((images / "late.csv").read_bytes())
    assert run(images, *COMMAND, "--out", "again.csv") == 1
    assert (images / "again.csv").read_bytes() == uninterrupted[".csv"]


def test_ctrl_c(images, uninterrupted):
    process = start_and_wait(images, 20, *COMMAND, "--out", "stopped.csv")
    os.kill(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == 130
    done = rows_in(images / "stopped.csv.journal")
    log = (images / "log").read_text()
    assert f"interrupted: {done} of {COUNT + 1} images have a row; the same command goes on" in log
    assert run(images, *COMMAND, "--out", "stopped.csv") == 1
    assert f"going on: {done} of {COUNT + 1} images have a row already" in (images / "log").read_text()
    assert (images / "stopped.csv").read_bytes() == uninterrupted[".csv"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A folder with a run that was killed after some rows, its command, and the files of its journal."""
    folder = tmp_path_factory.mktemp("killed")
    make_images(folder / "images", COUNT, side=192)
    command = ["score", "images", "--metric", "piqe", "--device", "cpu", "--out", "x.csv"]
    process = start_and_wait(folder, 10, *command)
    process.kill()
    process.join()
    return folder, command, {path: path.read_bytes() for path in folder.glob("x.csv.journal*")}


@pytest.fixture
def begun(killed, monkeypatch):
    """The command of the killed run, in its folder."""
    folder, command, journal = killed
    for path in folder.glob("x.csv*"):
        path.unlink()
    for path, content in journal.items():
        path.write_bytes(content)
    monkeypatch.chdir(folder)
    return command


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--metric", "entropy"], "--metric was piqe, is entropy"),
        (["--max-pixels", "5000"], "--max-pixels was 40000000, is 5000"),
        (["another"], "INPUT was ['images'], is ['images', 'another']"),
    ],
)
def test_other_settings_are_refused(begun, capsys, more, message):
    assert main([*begun[:1], "images", *more, *begun[2:]] if more == ["another"] else [*begun, *more]) == 2
    said = capsys.readouterr().err
    assert message in said and "--restart" in said and said.count("\n") == 1


def test_another_version_is_refused(begun, capsys, monkeypatch):
    monkeypatch.setattr("pyiqa_ma_agiqa.__version__", "9.9")
    assert main(begun) == 2
    assert "is 9.9" in capsys.readouterr().err


def test_restart_begins_again(begun, capsys):
    assert main([*begun, "--metric", "entropy", "--restart"]) == 0
    assert f"{COUNT} images" in capsys.readouterr().out


def test_a_damaged_journal_is_refused(begun, capsys):
    for path in Path().glob("x.csv.journal-*"):
        path.unlink()
    Path("x.csv.journal").write_bytes(b"junk" * 5000)
    assert main(begun) == 2
    assert "damaged" in capsys.readouterr().err
    assert main([*begun, "--restart"]) == 0


def test_two_runs_of_one_output(images, capsys, monkeypatch):
    monkeypatch.chdir(images)
    process = start_and_wait(images, 1, *COMMAND, "--out", "two.csv")
    try:
        assert main([*COMMAND, "--out", "two.csv"]) == 2
        assert "another run writes this output" in capsys.readouterr().err
        assert main([*COMMAND, "--out", "two.csv", "--restart"]) == 2
    finally:
        process.kill()
        process.join()


@pytest.mark.parametrize("room", [0, 16, 64, 128])
def test_a_full_disk_loses_nothing(small_disk, tmp_path, capsys, monkeypatch, room):
    """Full at any time, of the list, of the rows or of the output: one error, and then the whole output."""
    monkeypatch.chdir(tmp_path)
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
