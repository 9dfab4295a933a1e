"""Images that could not be read: `--retry-errors` afterwards, and a run that ends when a disk goes away."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.scoring import run
from pyiqa_ma_agiqa.scoring.columns import output_columns
from pyiqa_ma_agiqa.scoring.origins import origin_here
from pyiqa_ma_agiqa.scoring.rows import outage
from pyiqa_ma_agiqa.scoring.rows.journal import Journal

from ..command_runs import make_images

ENTROPY = ["--metric", "entropy", "--device", "cpu", "--workers", "1"]
HEADER = ",".join(output_columns(False))
HERE = ",".join(origin_here("entropy"))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with images in it, of which two are away for now."""
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / "images", 6)
    assert main(["score", "images", *ENTROPY, "--out", "whole.csv"]) == 0
    os.mkdir("away")
    return tmp_path


def move(source: str, target: str, *names: str) -> None:
    for name in names:
        shutil.move(f"{source}/{name}", target)


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


@pytest.fixture
def scored(monkeypatch):
    """Names of the images that were read."""
    names = []
    add = Journal.add
    monkeypatch.setattr(
        Journal, "add", lambda self, number, row: names.append(number) or add(self, number, row)
    )
    return names


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ""])
def test_errors_of_a_finished_output_are_scored_again(here, scored, suffix):
    out = f"x{suffix}"
    paths = [f"images/{number:05}.png" for number in range(6)]
    assert main(["score", *paths, *ENTROPY, "--out", f"expected{suffix}"]) == 0
    move("images", "away", "00002.png", "00004.png")
    words = ["score", *paths, *ENTROPY, "--out", out]
    assert main(words) == 1
    move("away", "images", "00002.png")
    scored.clear()
    assert main(words) == 2
    assert main([*words, "--retry-errors"]) == 1
    move("away", "images", "00004.png")
    assert main([*words, "--retry-errors"]) == 0
    assert scored == [3, 5, 5]
    for name in os.listdir(out) if os.path.isdir(out) else [""]:
        assert Path(out, name).read_bytes() == Path(f"expected{suffix}", name).read_bytes()
    assert not list(here.glob("x*.journal*"))


def test_errors_in_a_journal_are_scored_again(here, monkeypatch):
    """Also where the retrying run is interrupted."""
    paths = [f"images/{number:05}.png" for number in range(6)]
    words = ["score", *paths, *ENTROPY, "--out", "x.csv"]
    move("images", "away", "00000.png")
    add = Journal.add

    def stop_at(last):
        def add_or_stop(self, number, row):
            add(self, number, row)
            if number == last:
                raise KeyboardInterrupt

        return add_or_stop

    monkeypatch.setattr(Journal, "add", stop_at(3))
    assert main(words) == 130
    move("away", "images", "00000.png")
    monkeypatch.setattr(Journal, "add", stop_at(1))
    assert main([*words, "--retry-errors"]) == 130
    monkeypatch.setattr(Journal, "add", add)
    assert main(words) == 0
    assert Path("x.csv").read_bytes() == Path("whole.csv").read_bytes()


def test_an_interrupted_retry_of_an_output_goes_on(here, monkeypatch):
    words = ["score", *(f"images/{number:05}.png" for number in range(6)), *ENTROPY, "--out", "x.csv"]
    move("images", "away", "00001.png", "00002.png")
    assert main(words) == 1
    before = Path("x.csv").read_bytes()
    move("away", "images", "00001.png", "00002.png")
    with monkeypatch.context() as patch:
        patch.setattr(run, "Scorer", lambda job: 1 / 0)
        assert main([*words, "--retry-errors"]) == 2
    assert Path("x.csv").read_bytes() == before
    assert main(words) == 0
    assert Path("x.csv").read_bytes() == Path("whole.csv").read_bytes()


def test_images_behind_a_row_with_an_error_are_scored(here):
    """A folder that was away is one row; other images that are new are left out."""
    shutil.copytree("images", "other")
    os.remove("images/00005.png")
    shutil.move("images", "away")
    words = ["score", "other", "images", *ENTROPY, "--out", "x.csv"]
    assert main(words) == 1
    assert len(rows_of("x.csv")) == 7
    shutil.move("away/images", "images")
    shutil.copy("images/00000.png", "other/new.png")
    os.remove("other/00003.png")
    assert main([*words, "--retry-errors"]) == 0
    rows = rows_of("x.csv")
    numbers = [0, 1, 2, 4, 5]
    expected = [f"other/{n:05}.png" for n in numbers] + [f"images/{n:05}.png" for n in range(5)]
    assert list(rows) == [*expected, "other/00003.png"]
    whole = rows_of("whole.csv")
    assert all(row["score"] == whole[f"images/{Path(path).name}"]["score"] for path, row in rows.items())


def test_images_in_a_mended_tar_are_scored(here):
    with tarfile.open("x.tar", "w") as tar:
        for number in range(6):
            tar.add(f"images/{number:05}.png", f"{number}.png")
    content = Path("x.tar").read_bytes()
    # A header that is not one, in the place of the third.
    with tarfile.open("x.tar") as tar:
        third = tar.getmembers()[2].offset
    Path("x.tar").write_bytes(content[:third] + b"junk" * 128 + content[third + 512 :])
    words = ["score", "x.tar", *ENTROPY, "--out", "x.csv"]
    assert main(words) == 1
    assert list(rows_of("x.csv")) == ["x.tar!/0.png", "x.tar!/1.png", "x.tar"]
    Path("x.tar").write_bytes(content)
    assert main([*words, "--retry-errors"]) == 0
    assert [row["score"] for row in rows_of("x.csv").values()] == [
        row["score"] for row in rows_of("whole.csv").values()
    ]


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        (None, [], "no x.csv yet, nor its journal"),
        ("path,score\na.png,1\n", [], "x.csv: has the columns path, score, not path, score, error"),
        (f"{HEADER}\na.png,1,,1,{HERE}\n", [], "x.csv: is not as `score` wrote it"),
        (f"{HEADER}\na.png,high,,1,1,{HERE}\n", [], "x.csv: is not as `score` wrote it"),
        (
            f"{HEADER}\na.png,nan,,1,1,{HERE}\n",
            [],
            "x.csv: is not as `score` wrote it (a row has the score nan)",
        ),
        (
            f"{HEADER}\na.png,1,,{2**64},1,{HERE}\n",
            [],
            f"x.csv: is not as `score` wrote it (a row has the width {2**64})",
        ),
        (f"{HEADER}\na.png,,,1,1,{HERE}\n", [], "(a.png has neither score nor error)"),
        (f"{HEADER}\na.png,1,so,1,1,{HERE}\n", [], "(a.png has a score and an error)"),
        (f"{HEADER}\na.png,1,,1,1,{HERE}\na.png,2,,1,1,{HERE}\n", [], "x.csv: has a.png twice"),
        # Rows of another metric, or of another version, would be mixed with new ones.
        (f"{HEADER}\na.png,1,,1,1,piqe,1,\n", [], "x.csv: has rows of the metric piqe, not entropy"),
        (
            f"{HEADER}\na.png,1,,1,1,entropy,0.0.9,\n",
            [],
            "x.csv: has rows of the version 0.0.9, not pyiqa-ma",
        ),
        ("", ["--restart"], "not allowed with"),
    ],
)
def test_what_cannot_be_retried_stays(here, capsys, content, more, message):
    if content is not None:
        Path("x.csv").write_text(content)
    try:
        status = main(["score", "images", *ENTROPY, "--out", "x.csv", "--retry-errors", *more])
    except SystemExit as error:  # argparse
        status = error.code
    assert status == 2 and message in capsys.readouterr().err
    assert Path("x.csv").exists() == (content is not None)
    assert content is None or Path("x.csv").read_text() == content


@pytest.mark.parametrize(
    "change", [{"path": 5}, {"path": None}, {"score": "high"}, {"error": None}, {"version": 7}]
)
def test_an_output_that_somebody_changed_is_told(here, capsys, change):
    """Of formats whose cells have types of their own."""
    row = dict.fromkeys(output_columns(False)) | {"path": "a.png", "score": 1.0, "error": ""}
    Path("x.jsonl").write_text(json.dumps(row | origin_here("entropy")._asdict() | change) + "\n")
    before = Path("x.jsonl").read_bytes()
    assert main(["score", "images", *ENTROPY, "--out", "x.jsonl", "--retry-errors"]) == 2
    ((name, value),) = change.items()
    assert (
        f"x.jsonl: is not as `score` wrote it (a row has the {name} {value!r}); " in capsys.readouterr().err
    )
    assert Path("x.jsonl").read_bytes() == before


def test_a_folder_that_vanishes_in_mid_run_ends_it(here, monkeypatch, capsys):
    """The same command then tries all that could not be read anew."""
    monkeypatch.setattr(outage, "IN_A_ROW", 3)
    words = ["score", "images", *ENTROPY, "--out", "x.csv"]
    add = Journal.add

    def add_and_move(self, number, row):
        add(self, number, row)
        if number == 1:
            shutil.move("images", "away")

    monkeypatch.setattr(Journal, "add", add_and_move)
    # Nothing is read before the folder is away.
    monkeypatch.setattr("pyiqa_ma_agiqa.scoring.inputs.decoding.ThreadPoolExecutor", Lazy)
    assert main(words) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "images/00000.png: cannot be read, like 3 images in a row" in said
    assert "no folder images" in said and said.endswith("then the same command goes on")
    shutil.move("away/images", "images")
    monkeypatch.setattr(Journal, "add", add)
    assert main(words) == 0
    assert "going on: 1 of 6" in capsys.readouterr().err
    assert Path("x.csv").read_bytes() == Path("whole.csv").read_bytes()


class Lazy:
    """An executor that works when the result is wanted."""

    def __init__(self, workers, **named):
        pass

    def submit(self, function, *arguments):
        self.function = function
        future = type("Future", (), {})()
        future.result = lambda: function(*arguments)
        return future

    def shutdown(self, **named):
        pass


def test_a_list_of_images_that_are_gone_does_not_end_a_run(here, monkeypatch, tmp_path):
    """Neither such in a folder that is there, nor in one that is not, in whatever order."""
    monkeypatch.setattr(outage, "IN_A_ROW", 3)
    gone = [f"{folder}/gone{number}.png" for folder in ("images", "nowhere") for number in range(5)]
    for number, names in enumerate(([*gone, "images"], ["images", *gone])):
        assert main(["score", *names, *ENTROPY, "--out", f"{number}.csv"]) == 1
        rows = rows_of(f"{number}.csv")
        assert len(rows) == 16 and sum(not row["score"] for row in rows.values()) == 10


def test_nothing_but_images_that_cannot_be_read_ends_a_run(here, monkeypatch, capsys):
    monkeypatch.setattr(outage, "IN_A_ROW", 3)
    assert main(["score", *(f"nowhere/{n}.png" for n in range(9)), *ENTROPY, "--out", "x.csv"]) == 2
    assert "no folder nowhere" in capsys.readouterr().err and not Path("x.csv").exists()
