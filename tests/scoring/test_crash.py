"""An image that kills the process is found, has a row with an error, and costs no other image its score."""

from __future__ import annotations

import csv
import shutil
import signal
from pathlib import Path

import pytest

from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.scoring import run
from pyiqa_ma_agiqa.scoring.rows.crashes import _HEAD, CrashNote
from pyiqa_ma_agiqa.scoring.rows.journal import Journal

from ..command_runs import make_images, run_with_a_faulty_codec

COMMAND = ["score", "images", "--metric", "entropy", "--device", "cpu", "--workers", "3", "--out", "x.csv"]
NOTE = Path("x.csv.journal-crash")
GUILTY = "images/00004.png"


@pytest.fixture
def here(tmp_path, monkeypatch):
    make_images(tmp_path / "images", 8)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def failed():
    with open("x.csv", newline="") as file:
        return {row["path"]: row["error"] for row in csv.DictReader(file) if not row["score"]}


def test_the_guilty_image_is_left_out_after_its_second_crash(here):
    assert run_with_a_faulty_codec(here, GUILTY, *COMMAND) == -signal.SIGSEGV
    assert b"Segmentation fault" in NOTE.read_bytes()
    assert run_with_a_faulty_codec(here, GUILTY, *COMMAND) == -signal.SIGSEGV
    assert run_with_a_faulty_codec(here, GUILTY, *COMMAND) == 1
    assert list(failed()) == [GUILTY] and "the process died each time" in failed()[GUILTY]
    assert not list(here.glob("x.csv?*"))
    assert main([*COMMAND, "--retry-errors"]) == 0
    assert not failed()


def test_retrying_has_an_end_too(here, monkeypatch):
    """Two images kill the process: each does so twice, while the same command is repeated."""
    other = "images/00006.png"
    deaths = []
    Path(GUILTY).write_bytes(b"")
    Path(other).write_bytes(b"")
    assert main(COMMAND) == 1

    def score_or_end(items, scorer, job):
        for number, item in items:
            if item.name in (GUILTY, other):
                deaths.append(item.name)
                shutil.copy(NOTE, "kept")
                raise KeyboardInterrupt
            yield from score_items([(number, item)], scorer, job)

    score_items = run.score_items
    monkeypatch.setattr(run, "score_items", score_or_end)
    for _ in range(4):
        assert main([*COMMAND, "--retry-errors"]) == 130
        NOTE.write_bytes(Path("kept").read_bytes() + b"Fatal Python error: Aborted")
    assert main([*COMMAND, "--retry-errors"]) == 1
    assert deaths == [GUILTY, GUILTY, other, other]
    assert sorted(failed()) == [GUILTY, other]
    assert all("the process died each time" in error for error in failed().values())
    monkeypatch.setattr(run, "score_items", score_items)
    assert main([*COMMAND, "--retry-errors"]) == 1
    assert all("is empty" in error for error in failed().values())


@pytest.fixture
def ends(monkeypatch):
    """A function that runs the command up to the scoring of an image, and leaves what a death would."""

    def ends_at(name: str, fault: bool) -> list[str]:
        """Names of the images with which that one was scored."""
        together = []
        with monkeypatch.context() as patch:
            score_items = run.score_items

            def score_or_end(items, scorer, job):
                items = list(items)
                together[:] = [item.name for _, item in items]
                if name in together:
                    shutil.copy(NOTE, "kept")
                    raise KeyboardInterrupt
                yield from score_items(items, scorer, job)

            patch.setattr(run, "score_items", score_or_end)
            assert main(COMMAND) == 130
        content = Path("kept").read_bytes() + b"Fatal Python error: Aborted" * fault
        NOTE.write_bytes(content)
        return together

    return ends_at


def test_only_a_death_with_one_image_at_work_counts(here, ends):
    assert len(ends(GUILTY, fault=True)) == 8
    assert ends("images/00002.png", fault=False) == ["images/00002.png"]
    assert ends("images/00003.png", fault=False) == ["images/00003.png"]
    assert ends(GUILTY, fault=True) == [GUILTY]
    assert main(COMMAND) == 1
    assert list(failed()) == [GUILTY]


def test_a_process_that_is_killed_each_time_counts_too(here, ends):
    """As by a system that is out of memory: half as much."""
    for alone in (8, 1, 1):
        assert len(ends(GUILTY, fault=False)) == alone
    assert main(COMMAND) == 1
    assert list(failed()) == [GUILTY]


def test_an_error_or_an_interruption_is_no_death(here, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", lambda *arguments: 1 / 0)
        assert main(COMMAND) == 2
    assert not NOTE.exists()
    assert main(COMMAND) == 0


def test_a_note_of_somebody_else_stays(here, capsys):
    NOTE.write_text("my notes on crashes, 3 alone")
    assert main(COMMAND) == 2
    assert f"{NOTE}: is in the way" in capsys.readouterr().err and NOTE.exists()


@pytest.mark.parametrize("content", [b"", bytes(40), _HEAD.format(3, 0).encode()[:30]])
def test_a_note_that_was_cut_off_harms_nothing(here, content):
    NOTE.write_bytes(content)
    assert CrashNote(NOTE).take()[:2] == (0, 0)
    assert not NOTE.exists()
