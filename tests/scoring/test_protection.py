"""What `score` does not write over: other outputs, its inputs, files that it did not make."""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path

import pytest

from pyiqa_ma_agiqa.command.main import main

from ..command_runs import make_images

ENTROPY = ["--metric", "entropy", "--device", "cpu", "--workers", "1"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / "images", 2)
    Path("list.csv").write_text("path\nimages/00000.png\n")
    os.symlink("list.csv", "link.csv")
    os.link("list.csv", "twin.csv")
    os.mkdir("parts")
    assert main(["score", "images", *ENTROPY, "--out", "parts", "--restart"]) == 0
    return tmp_path


def everything(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("inputs", "out", "message"),
    [
        (["list.csv"], "list.csv", "would be written over the input list.csv"),
        (["images", "./images/../list.csv"], "list.csv", "would be written over the input"),
        (["link.csv"], "list.csv", "would be written over the input link.csv"),
        (["twin.csv"], "list.csv", "would be written over the input twin.csv"),
        (["l*.csv"], "list.csv", "would be written over the input l*.csv"),
        (["**/*.csv"], "list.csv", "would be written over the input **/*.csv"),
        (["parts/part-00000.parquet"], "parts", "would be written over the input parts/part-00000.parquet"),
        (["parts/*.parquet"], "parts/part-00000.parquet", "would be written over the input"),
        (["new.csv.journal"], "new.csv", "would be written over the input new.csv.journal"),
        (["images", "new.csv.journal-part"], "new.csv", "would be written over the input"),
        (["images"], "link.csv", "is a link"),
        (["images"], "", "give a name"),
        (["images"], "..", "give a name"),
        (["images"], "images", "is a folder of other things"),
    ],
)
def test_inputs_are_not_written_over(here, capsys, inputs, out, message):
    before = everything(here)
    assert main(["score", *inputs, *ENTROPY, "--out", out, "--restart"]) == 2
    assert message in capsys.readouterr().err
    assert everything(here) == before


def test_an_output_in_a_folder_of_images_is_fine(here):
    assert main(["score", "images", *ENTROPY, "--out", "images/x.csv"]) == 0
    assert main(["score", "images", *ENTROPY, "--out", "images/x.csv", "--restart"]) == 0


@pytest.mark.parametrize("name", ["res.part", "res.journal", "res.journal-part", "res.journal-crash"])
@pytest.mark.parametrize("folder", [True, False])
@pytest.mark.parametrize("more", [[], ["--restart"]])
def test_what_is_not_ours_stays(here, name, folder, more):
    """Also with --restart, which is about what this command has written."""
    path = here / name
    if folder:
        path.mkdir()
        path = path / "precious"
    path.write_text("x" * 200)
    status = main(["score", "images", *ENTROPY, "--out", "res", *more])
    assert status == (0 if name == "res.part" else 2)
    assert path.read_text() == "x" * 200
    assert Path("res").exists() == (status == 0)


def test_the_journal_of_a_failed_run_does_not_give_an_output_away(here, capsys):
    words = ["score", "none*.png", *ENTROPY, "--out", "x.csv"]
    assert main(words) == 2
    Path("x.csv").write_text("precious")
    assert main(["score", "images", *words[2:]]) == 2
    assert "x.csv: exists, and is not of the run" in capsys.readouterr().err
    assert Path("x.csv").read_text() == "precious"
    assert main(["score", "images", *words[2:], "--restart"]) == 0


def test_a_wrong_option_beside_restart_loses_nothing(here):
    make_images(here / "more", 2)
    words = ["score", "more", *ENTROPY, "--out", "x.csv"]
    assert main(words) == 0
    shutil.copy("x.csv", "kept.csv")
    assert main([*words, "--restart", "--metric", "nonsense"]) == 2
    assert Path("x.csv").read_bytes() == Path("kept.csv").read_bytes()


def test_where_nothing_can_be_written(here, capsys):
    for out in (f"{'x' * 245}.csv", f"{'x' * 300}.csv", "/proc/x.csv"):
        assert main(["score", "images", *ENTROPY, "--out", out]) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert "cannot be written" in said


def test_names_that_the_terminal_cannot_show(here, monkeypatch):
    out = os.fsdecode("größe 画\n".encode() + b"\xe9.csv")
    shutil.copy("images/00000.png", "画.png")
    said = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(said, "ascii"))
    assert main(["score", "画.png", *ENTROPY, "--out", out]) == 0
    sys.stdout.flush()
    assert b"written to gr\\xf6\\xdfe \\u753b\\n\\udce9.csv\n" in said.getvalue()
    assert sorted(here.glob("gr*")) == [here / out]
