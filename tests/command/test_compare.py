"""Comparisons: what is read, which scores are held against which, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyiqa
import pytest
from PIL import Image

from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.comparing import score_sets
from pyiqa_ma_agiqa.comparing.score_sets import holds_images, read_scores, score_folder
from pyiqa_ma_agiqa.errors import InputError
from pyiqa_ma_agiqa.names import escape
from pyiqa_ma_agiqa.scoring.columns import output_columns
from pyiqa_ma_agiqa.scoring.origins import origin_here, with_origin
from pyiqa_ma_agiqa.scoring.rows.output import WRITERS, write_output

from ..images import picture
from ..passed_by import with_a_short_tower

OLD = np.random.default_rng(3).normal(2.5, 0.5, 40)

# What is read

ROWS = [("d/NA", 1.5, ""), ("d/007", 2.25, ""), ('d/line\nbreak, "quoted".png', 3.0, "")]
BAD_ROWS = [("d/broken.png", None, "truncated"), ("d/odd.png", None, "")]


def write(path, rows):
    blank = dict.fromkeys(output_columns(False))
    named = [blank | {"path": name, "score": score, "error": error} for name, score, error in rows]
    write_output(path, with_origin(named, "ma_agiqa"), output_columns(False))
    return str(path)


@pytest.mark.parametrize("suffix", WRITERS)
def test_files_that_score_wrote_are_read(tmp_path, suffix):
    source = write(tmp_path / f"scores{suffix}", ROWS + BAD_ROWS)
    read = read_scores(source)
    assert read.source == source
    assert read.paths == [name for name, _, _ in ROWS]
    assert read.scores.tolist() == [1.5, 2.25, 3.0]
    assert read.failures == [("d/broken.png", "truncated"), ("d/odd.png", "there is no score")]
    assert read.origins == [origin_here("ma_agiqa")]
    assert not holds_images(source)


def test_a_folder_of_parquet_files_is_read(tmp_path):
    folder = tmp_path / "scores.parquet"
    folder.mkdir()
    for number, row in enumerate(ROWS):
        write(folder / f"part-{number}.parquet", [row])
    assert sorted(read_scores(str(folder)).paths) == sorted(name for name, _, _ in ROWS)


def with_familiarity(path, values):
    pd.DataFrame({"path": list(map(str, range(len(values)))), "score": 2.5, "familiarity": values}).to_csv(
        path
    )
    return str(path)


def test_strangers_are_counted_and_told(tmp_path, capsys):
    a = with_familiarity(tmp_path / "a.csv", [0.04, 0.05, 0.9, 1.0])
    b = with_familiarity(tmp_path / "b.parquet.csv", [0.0, 0.01, 0.049, 0.8])
    json_file = tmp_path / "found.json"
    assert main(["compare", a, b, "--json", str(json_file)]) == 0
    said, found = capsys.readouterr().out, json.loads(json_file.read_text())
    assert "mean 2.500 [2.500, 2.500]; 1 unlike the training images" in said
    assert "mean 2.500 [2.500, 2.500]; 3 unlike the training images" in said
    assert [found[side]["unfamiliar"] for side in "ab"] == [1, 3]
    (note,) = [note for note in found["notes"] if "unlike the training images" in note]
    assert note.startswith(f"most images of {b} ") and f"note: {note}" in said


def test_without_familiarity_nothing_is_said_of_strangers(tmp_path, capsys):
    a = with_familiarity(tmp_path / "a.csv", [0.0, None])
    b = write(tmp_path / "b.csv", ROWS)
    assert main(["compare", a, b, "--json", str(tmp_path / "found.json")]) == 0
    assert "unlike" not in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["a"]["unfamiliar"] is found["b"]["unfamiliar"] is None


def test_scores_that_are_not_finite_are_failures(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("path,score\na,1\nb,nan\nc,inf\nd,\n")
    read = read_scores(str(path))
    assert read.paths == ["a"]
    assert read.failures == [("b", "the score is nan"), ("c", "the score is inf"), ("d", "there is no score")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "path,value\nx,1\n", "no column score"),
        ("a.csv", "name,value\nx,1\n", "no column path and score"),
        ("a.csv", "path,score\nx,good\n", "x has the score 'good', not a number"),
        ("a.csv", "path,score\n", "there are no images in it"),
        ("a.csv", "path,score,error\nx,,broken\n", r"all 1 rows have errors, the first \(x\): broken"),
        ("a.csv", "", "not a readable file of scores"),
        ("a.jsonl", '{"path": "x", "score": 1}\n{"path": "y", "sc', "not a readable file of scores"),
        ("a.jsonl", "[1, 2]\n3\n", "not a readable file|no column"),
        ("a.parquet", "path,score\nx,1\n", "not a readable file of scores"),
        ("a.txt", "path,score\nx,1\n", "neither a folder nor a file of scores"),
    ],
)
def test_files_that_are_no_scores_are_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError, match=message) as refused:
        read_scores(str(path))
    assert str(path) in str(refused.value)


def test_what_is_not_there_is_refused(tmp_path):
    for name in ("nowhere", "nowhere.csv", "nowhere.jsonl", "nowhere.parquet"):
        with pytest.raises(InputError, match=name):
            read_scores(str(tmp_path / name))
    with pytest.raises(InputError, match="there are no images in it"):
        score_folder(str(tmp_path), "ma_agiqa")


# The command


@pytest.fixture
def files(tmp_path):
    old = [(f"old/{number}.png", score, "") for number, score in enumerate(OLD)]
    new = [(f"new/{number}.png", score + 0.25, "") for number, score in enumerate(OLD)]
    return [write(tmp_path / "old.csv", old), write(tmp_path / "new.parquet", new)]


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch, capsys):
    """Root reads all folders, so it is a stand-in."""

    def locked(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.chdir(tmp_path)
    Path("locked").mkdir()
    monkeypatch.setattr(Path, "iterdir", locked)
    assert main(["compare", "locked", "locked"]) == 2
    said = capsys.readouterr().err
    assert said == "error: locked: the folder cannot be read (Permission denied); check its permissions\n"


def test_the_text_of_a_comparison(files, capsys):
    assert main(["compare", *files]) == 0
    text = capsys.readouterr().out
    assert f"A  {files[0]}: 40 images, mean {OLD.mean():.3f} [" in text
    assert f"B  {files[1]}: 40 images, mean {OLD.mean() + 0.25:.3f} [" in text
    assert "40 pairs of the same path" in text
    assert "difference     +0.250 [+0.250, +0.250]" in text
    assert "win rate of B  1.000 [1.000, 1.000]" in text


def test_the_json_of_a_comparison(files, tmp_path):
    target = tmp_path / "comparison.json"
    assert main(["compare", *files, "--json", str(target), "--fail-under", "9"]) == 1
    content = json.loads(target.read_text())
    assert list(content) == [
        *("a", "b", "metric", "weights", "lower_better", "pairs", "paired_by", "paired_means", "difference"),
        *("win_rate", "resamples", "seed", "notes", "fail_under", "below"),
    ]
    assert list(content["a"]) == [
        *("source", "images", "mean", "unfamiliar", "versions", "failures", "without_partner", "ambiguous")
    ]
    assert list(content["difference"]) == ["value", "low", "high"]
    assert content["a"]["mean"]["value"] == pytest.approx(OLD.mean())
    assert (content["pairs"], content["fail_under"], content["below"]) == (40, 9, True)
    assert main(["compare", *files, "--json", str(target)]) == 0
    assert json.loads(target.read_text())["fail_under"] is None


def test_an_interval_that_does_not_exist_is_null(tmp_path, capsys):
    one = write(tmp_path / "one.csv", [("a", 2.0, "")])
    assert main(["compare", one, one, "--json", str(tmp_path / "c.json")]) == 0
    mean = json.loads((tmp_path / "c.json").read_text())["a"]["mean"]
    assert mean == {"value": 2.0, "low": None, "high": None}
    assert "mean 2.000 [no interval: one image]" in capsys.readouterr().out


def test_fail_under_is_about_the_mean_of_b(tmp_path, capsys):
    low = write(tmp_path / "low.csv", [("a", 1.0, ""), ("b", 2.0, "")])
    high = write(tmp_path / "high.csv", [("a", 3.0, ""), ("b", 4.0, "")])
    assert main(["compare", low, high, "--fail-under", "3.5"]) == 0
    assert "mean of all of B 3.500 is not below --fail-under 3.5" in capsys.readouterr().out
    assert main(["compare", low, high, "--fail-under", "3.51"]) == 1
    assert "mean of all of B 3.500 is BELOW --fail-under 3.51" in capsys.readouterr().out
    assert main(["compare", high, low, "--fail-under", "3"]) == 1


def test_means_of_all_and_of_the_pairs_are_told_apart(tmp_path, capsys):
    """B is the better one in each pair, and A in the mean of all."""
    a = [(f"old/{number}.png", float(number), "") for number in (1, 2, 3, 9)]
    b = [(f"new/{number}.png", number + 0.5, "") for number in (1, 2, 3)] + [("new/other.png", 0.0, "")]
    sides = [write(tmp_path / "a.csv", a), write(tmp_path / "b.csv", b)]
    assert main(["compare", *sides, "--json", str(tmp_path / "c.json"), "--fail-under", "2.4"]) == 1
    text = capsys.readouterr().out
    for expected in (
        "a.csv: 4 images, mean 3.750 [",
        "b.csv: 4 images, mean 1.875 [",
        "3 pairs of the same path",
        "mean of A      2.000 [",
        "mean of B      2.500 [",
        "difference     +0.500 [",
        "in no pair of A: 1 without partner in B\n  old/9.png\n",
        "in no pair of B: 1 without partner in A\n  new/other.png\n",
        "mean of all of B 1.875 is BELOW --fail-under 2.4",
    ):
        assert expected in text
    content = json.loads((tmp_path / "c.json").read_text())
    means = content["paired_means"]
    assert content["difference"]["value"] == means["b"]["value"] - means["a"]["value"] == 0.5
    assert content["paired_by"] == "path"


def test_images_in_no_pair_are_told(tmp_path, capsys):
    a = [(f"old/{number}.png", 1.0, "") for number in range(14)] + [("old/k/13.png", 1.0, "")]
    b = [(f"new/x\n{number}.png", 2.0, "") for number in range(1, 7)]
    b += [(f"new/k/{number}.png", 2.0, "") for number in range(7, 14)]
    sides = [write(tmp_path / "a.csv", a), write(tmp_path / "b.csv", b)]
    target = tmp_path / "c.json"
    # By file name, as folders differ.
    assert main(["compare", *sides, "--json", str(target)]) == 0
    assert "separate sets: 6 of 13 names match, less than half" in capsys.readouterr().out
    content = json.loads(target.read_text())
    assert (content["paired_means"], content["paired_by"], content["a"]["without_partner"]) == (
        None,
        None,
        [],
    )
    write(tmp_path / "b.csv", [*b, ("new/0.png", 2.0, "")])
    assert main(["compare", *sides, "--json", str(target)]) == 0
    text = capsys.readouterr().out
    assert "7 pairs of the same file name" in text
    assert "in no pair of A: 6 without partner in B\n  old/1.png\n" in text
    assert "  and 1 more; --json lists all\n" in text
    assert "in no pair of A: 2 with a name that comes more than once\n  old/13.png\n  old/k/13.png" in text
    assert "in no pair of B: 6 without partner in A\n  new/x\\n1.png\n" in text
    content = json.loads(target.read_text())
    assert content["a"]["without_partner"] == [f"old/{number}.png" for number in range(1, 7)]
    assert content["b"]["ambiguous"] == ["new/k/13.png"]


def test_a_file_against_itself(files, capsys):
    assert main(["compare", files[0], files[0]]) == 0
    text = capsys.readouterr().out
    assert "difference     +0.000 [+0.000, +0.000]" in text
    assert "win rate of B  0.500 [0.500, 0.500]" in text
    assert "note" not in text and "no pair" not in text


def test_images_that_a_file_has_twice_are_told(files, tmp_path, capsys):
    rows = [("old/1.png", 1.0, ""), ("old/1.png", 1.0, ""), ("old/2.png", 3.0, "")]
    assert main(["compare", files[0], write(tmp_path / "twice.csv", rows)]) == 0
    assert (
        "twice.csv has 1 scores of images that it has already; the mean counts each"
        in capsys.readouterr().out
    )


def test_a_difference_of_rounding_has_no_sign(tmp_path, capsys):
    sides = [write(tmp_path / f"{score}.csv", [("x", score, ""), ("y", score, "")]) for score in (1, 0.99999)]
    assert main(["compare", *sides]) == 0
    assert "difference     +0.000 [+0.000, +0.000]" in capsys.readouterr().out


@pytest.mark.parametrize("bound", ["nan", "inf", "good"])
def test_fail_under_needs_a_number(files, bound):
    with pytest.raises(SystemExit) as stopped:
        main(["compare", *files, "--fail-under", bound])
    assert stopped.value.code == 2


def test_images_without_score_are_told(files, tmp_path, capsys):
    bad = [(f"new/bad\n{number}.png", None, "truncated\x1b[2J") for number in range(7)]
    rows = [(f"new/{number}.png", 3.0, "") for number in range(3)] + bad
    b = write(tmp_path / "b.jsonl", [(escape(name), score, error) for name, score, error in rows])
    assert main(["compare", files[0], b, "--json", str(tmp_path / "c.json")]) == 1
    text = capsys.readouterr().out
    assert "b.jsonl: 3 images and 7 without score" in text
    assert "without score in B: 7\n" in text
    assert r"new/bad\n0.png: truncated\x1b[2J" in text
    assert "and 2 more" in text
    assert len(json.loads((tmp_path / "c.json").read_text())["b"]["failures"]) == 7
    assert main(["compare", b, files[0]]) == 1


@pytest.mark.filterwarnings("error")
def test_the_plot(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, (a, b) in enumerate([files, files[::-1], [files[0], files[0]]]):
        assert main(["compare", a, b, "--plot", f"{number}.png"]) == 0
        with Image.open(f"{number}.png") as plot:
            assert plot.format == "PNG"
            paired = plot.width
    pd.DataFrame({"path": ["_$x^\u753b$.png"], "score": [1.0]}).to_csv("_$x^\u753b$.csv")
    assert main(["compare", "_$x^\u753b$.csv", files[0], "--plot", "one.png"]) == 0
    with Image.open("one.png") as plot:
        assert plot.width < paired


def test_files_that_cannot_be_written_are_one_line(files, tmp_path, capsys):
    for option in ("--json", "--plot"):
        target = str(tmp_path / "nowhere" / "out")
        assert main(["compare", *files, option, target]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and target in error


def test_folders_are_scored(tmp_path, capsys, monkeypatch):
    paths = [tmp_path / "old" / "x.png", tmp_path / "new" / "x.png", tmp_path / "new" / "deep" / "y.jpg"]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(64, 80, number)).save(path)
    (tmp_path / "new" / "broken.png").write_bytes(paths[0].read_bytes()[:400])
    (tmp_path / "new" / "notes.txt").touch()
    sides = [str(tmp_path / "old"), str(tmp_path / "new")]
    metric = with_a_short_tower(pyiqa.create_metric("ma_agiqa"))
    # The command keeps its scorer: another test's is not to be taken, nor this one kept.
    monkeypatch.setattr(score_sets, "_scorer", score_sets._scorer.__wrapped__)
    monkeypatch.setattr(pyiqa, "create_metric", lambda name, device: {"ma_agiqa": metric}[name].to(device))
    assert main(["compare", *sides, "--json", str(tmp_path / "c.json")]) == 1
    content = json.loads((tmp_path / "c.json").read_text())
    scores = [metric(str(path)).item() for path in paths]
    assert content["a"]["mean"]["value"] == pytest.approx(scores[0], abs=1e-3)
    assert content["b"]["mean"]["value"] == pytest.approx(np.mean(scores[1:]), abs=1e-3)
    assert [failure["path"] for failure in content["b"]["failures"]] == [f"{sides[1]}/broken.png"]
    assert content["pairs"] == 1
    assert "the image is truncated" in capsys.readouterr().out


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["compare", "--help"])
    assert stopped.value.code == 0
    assert "pyiqa-ma-agiqa compare old/ new/" in capsys.readouterr().out
