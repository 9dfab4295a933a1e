"""Rows as they come, without an output; and a run as a library calls it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyiqa
import pytest

from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.errors import InputError
from pyiqa_ma_agiqa.scoring import run
from pyiqa_ma_agiqa.scoring.columns import output_columns
from pyiqa_ma_agiqa.scoring.request import Request
from pyiqa_ma_agiqa.scoring.rows.output_reading import read_output
from pyiqa_ma_agiqa.scoring.run import score_at_once, score_to_output

from ..command_runs import make_images
from ..conftest import ROOT, START_UP


@pytest.fixture
def here(tmp_path, monkeypatch):
    make_images(tmp_path / "images", 4)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def entropy(*inputs, **more):
    return Request([*inputs], metric="entropy", device="cpu", **more)


def test_the_rows_are_those_of_an_output(here):
    inputs = ["images/00002.png", "missing.png", "images", "images/00002.png"]
    at_once = list(score_at_once(entropy(*inputs)))
    score_to_output(entropy(*inputs), Path("x.parquet"))
    columns = output_columns(shares=False)
    stored = list(read_output(Path("x.parquet"), columns))
    assert [{name: row[name] for name in columns} for row in at_once] == stored
    assert at_once[1]["error"] and len(at_once) == 5


def test_the_order_is_that_of_the_images_and_none_waits_for_a_later_one(here, monkeypatch):
    scored = []

    def in_another_order(items, scorer, job):
        items = list(items)
        for place in (1, 0, 2, 3):
            scored.append(place)
            yield items[place][0], {"score": float(place), "error": ""}

    monkeypatch.setattr(run, "score_items", in_another_order)
    rows = score_at_once(entropy("images"))
    seen = [(row["score"], len(scored)) for row in rows]
    assert seen == [(0, 2), (1, 2), (2, 3), (3, 4)]


def test_what_cannot_begin_is_told_before_any_row(here):
    Path("nothing").mkdir()
    with pytest.raises(InputError, match="no images there; check the inputs"):
        score_at_once(entropy("nothing"))
    with pytest.raises(InputError, match="needs a reference"):
        score_at_once(Request(["images"], metric="psnr"))


def test_a_metric_that_cannot_be_made_is_told_before_any_row(here, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("no weights")

    monkeypatch.setattr(pyiqa, "create_metric", broken)
    with pytest.raises(InputError, match=r"cannot be made \(no weights\)"):
        score_at_once(entropy("images"))


def test_one_that_is_closed_leaves_no_thread(here):
    import threading

    rows = score_at_once(entropy("images", workers=1))
    assert next(rows)["path"].endswith("00000.png")
    rows.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_from_a_script(here):
    """Which imports nothing else of this package or of pyiqa."""
    Path("script.py").write_text(
        "from pathlib import Path\n"
        "from pyiqa_ma_agiqa.scoring.request import Request\n"
        "from pyiqa_ma_agiqa.scoring.run import score_at_once, score_to_output\n"
        "request = Request(['images'], metric='entropy', device='cpu')\n"
        "print(score_to_output(request, Path('x.csv')).scored)\n"
        "print(*[row['path'] for row in score_at_once(request)])\n"
    )
    environ = {"PYTHONPATH": f"{START_UP}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, env=environ)
    assert done.stdout.split() == ["4", *(f"images/{number:05}.png" for number in range(4))]
    assert done.stderr.count("Traceback") == 0


def test_what_pyiqa_says_of_a_metric_is_not_among_the_rows(here, monkeypatch, capsys):
    create = pyiqa.create_metric

    def talking(*arguments, **options):
        print("Loading pretrained model")
        return create(*arguments, **options)

    monkeypatch.setattr(pyiqa, "create_metric", talking)
    assert main(["score", "images", "--metric", "entropy", "--device", "cpu"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("path,score,") and "Loading pretrained model" in told.err
