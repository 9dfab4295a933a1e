"""`score` without --out: rows on standard output, all else on standard error."""

from __future__ import annotations

import csv
import io
import os
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pytest

from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.scoring import run
from pyiqa_ma_agiqa.scoring.columns import output_columns

from ..command_runs import make_images

ENTROPY = ["--metric", "entropy", "--device", "cpu"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    make_images(tmp_path / "images", 4)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(capsys):
    out, err = capsys.readouterr()
    return list(csv.reader(io.StringIO(out))), err


def test_rows_go_to_standard_output_and_progress_to_standard_error(capsys):
    assert main(["score", "images", "images/00001.png", *ENTROPY]) == 0
    (head, *rows), err = printed(capsys)
    assert head == list(output_columns(shares=False))
    assert [row[0] for row in rows] == [f"images/{number:05}.png" for number in range(4)]
    assert all(float(row[1]) >= 0 and row[2] == "" for row in rows)
    assert "4/4" in err
    assert os.listdir() == ["images"]


def test_what_failed_is_a_row_and_counted(capsys):
    assert main(["score", "images/00000.png", "missing.png", "gone.png", *ENTROPY]) == 1
    (_, *rows), err = printed(capsys)
    assert [row[0] for row in rows if row[2]] == ["missing.png", "gone.png"]
    assert err.splitlines()[-1] == "failed   2: rows whose column error is not empty"


@pytest.mark.parametrize(
    "option", [["--restart"], ["--retry-errors"], ["--actors", "2"], ["--engine", "ray"]]
)
def test_options_that_need_an_output_are_refused(option, capsys):
    assert main(["score", "images", *ENTROPY, *option]) == 2
    rows, err = printed(capsys)
    assert (
        not rows and err.startswith(f"error: {option[0]}") and err.endswith(": needs an output; give --out\n")
    )


@pytest.mark.parametrize("words", [["empty"], ["images", "--metric", "psnr"], ["nothing*"]])
def test_nothing_is_printed_when_nothing_can_begin(words, capsys):
    Path("empty").mkdir()
    assert main(["score", *ENTROPY, *words]) == 2
    rows, err = printed(capsys)
    assert not rows and err.startswith("error: ") and len(err.splitlines()) == 1


@contextmanager
def redirected(descriptor, encoding="utf-8"):
    """Standard output as a stream of the test's, as it is for a process."""
    with os.fdopen(descriptor, "w", encoding=encoding) as stream, redirect_stdout(stream):
        yield


def test_the_work_ends_when_nobody_reads_the_rows(monkeypatch, capsys):
    scored = []
    whole = run.score_items

    def watched(items, scorer, job):
        for number, row in whole(items, scorer, job):
            scored.append(number)
            yield number, row

    monkeypatch.setattr(run, "score_items", watched)
    read, write = os.pipe()
    os.close(read)
    with redirected(write):
        assert main(["score", "images", *ENTROPY]) == 0
    assert not scored
    assert "error" not in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no /dev/full")
def test_a_full_disk_under_the_rows_is_told(capsys):
    with redirected(os.open("/dev/full", os.O_WRONLY)):
        assert main(["score", "images", *ENTROPY]) == 2
    assert "standard output cannot be written (No space left on device)" in capsys.readouterr().err


def test_names_are_read_back_whatever_the_locale():
    os.rename("images/00003.png", "images/画像.png")
    os.rename("images/00002.png", b"images/\xff.png")
    with open("list.csv", "wb") as said, redirected(os.dup(said.fileno()), "ascii"):
        assert main(["score", "images", *ENTROPY]) == 0
    assert "画像" in Path("list.csv").read_text(encoding="utf-8")
    assert main(["score", "list.csv", *ENTROPY, "--out", "x.csv"]) == 0
    assert Path("x.csv").read_bytes() == Path("list.csv").read_bytes()
