"""Comparisons: the statistics against SciPy and by hand, what is read, and the command."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pyiqa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import mannwhitneyu

from pyiqa_ma_agiqa.command.columns import columns
from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.command.names import escape
from pyiqa_ma_agiqa.command.output import WRITERS, write_output
from pyiqa_ma_agiqa.command.score_sets import score_set
from pyiqa_ma_agiqa.comparison import bootstrap, compare, pairs_by_name
from pyiqa_ma_agiqa.errors import InputError

from .images import picture

NO_PAIRS = np.empty((0, 2), int)
RANDOM = np.random.default_rng(3)
OLD, NEW = RANDOM.normal(2.5, 0.5, 40), RANDOM.normal(2.8, 0.6, 60)


def by_scipy(statistic, *samples):
    result = scipy_bootstrap(
        samples, statistic, n_resamples=20_000, method="percentile", vectorized=False, paired=False
    )
    return result.confidence_interval


# Statistics


def test_intervals_of_means_are_those_of_scipy():
    found = compare(OLD, NEW, NO_PAIRS)
    for estimate, sample in ((found.mean_a, OLD), (found.mean_b, NEW)):
        assert estimate.value == sample.mean()
        assert estimate[1:] == pytest.approx(tuple(by_scipy(np.mean, sample)), abs=0.015)
    interval = by_scipy(lambda a, b: b.mean() - a.mean(), OLD, NEW)
    assert found.difference.value == pytest.approx(NEW.mean() - OLD.mean())
    assert found.difference[1:] == pytest.approx(tuple(interval), abs=0.02)


def test_the_interval_of_the_superiority_is_that_of_scipy():
    a, b = OLD.round(1), NEW.round(1)  # with ties
    found = compare(a, b, NO_PAIRS).win_rate
    share = lambda a, b: mannwhitneyu(b, a).statistic / (len(a) * len(b))  # noqa: E731
    result = scipy_bootstrap((a, b), share, n_resamples=3000, method="percentile", vectorized=False)
    assert found[1:] == pytest.approx(tuple(result.confidence_interval), abs=0.02)


@given(*[st.lists(st.integers(0, 6), min_size=1, max_size=9)] * 2)
def test_the_superiority_is_mann_and_whitneys_u(a, b):
    from pyiqa_ma_agiqa import comparison

    few = comparison.RESAMPLES
    comparison.RESAMPLES = 2
    try:
        found = compare(np.array(a, float), np.array(b, float), NO_PAIRS)
    finally:
        comparison.RESAMPLES = few
    by_hand = np.mean([1.0 if y > x else 0.5 if y == x else 0.0 for x in a for y in b])
    assert found.win_rate.value == pytest.approx(by_hand)
    assert found.win_rate.value == pytest.approx(mannwhitneyu(b, a).statistic / (len(a) * len(b)))
    assert found.pairs == 0


def test_a_bootstrap_by_hand():
    # Of the 27 resamples of 0, 0, 1 the mean is 0 in 8, 1/3 in 12, 2/3 in 6 and 1 in 1: the quantile at
    # 2.5 % is 0, and that at 97.5 % is 1, since up to 2/3 there are 96.3 %.
    assert bootstrap(np.mean, np.array([0.0, 0.0, 1.0])) == pytest.approx((1 / 3, 0, 1))


def test_pairs_by_hand():
    a, b = np.array([1.0, 2.0, 3.0, 9.0]), np.array([2.0, 3.5, 2.0, 1.0])
    pairs = np.array([[0, 1], [1, 0], [2, 2]])  # 1 and 3.5, 2 and 2, 3 and 2
    found = compare(a, b, pairs)
    assert found.leads.tolist() == [2.5, 0.0, -1.0]
    assert found.difference.value == pytest.approx(0.5)
    assert found.win_rate.value == pytest.approx(0.5)
    assert found.pairs == 3
    assert found.mean_a.value == 3.75  # of all, paired or not


def test_pairing_makes_the_interval_of_the_difference_narrow():
    better = OLD + 0.1 + RANDOM.normal(0, 0.05, len(OLD))
    rows = np.arange(len(OLD))
    paired = compare(OLD, better, np.stack([rows, rows], 1)).difference
    separate = compare(OLD, better, NO_PAIRS).difference
    assert paired.value == pytest.approx(separate.value)
    assert paired.high - paired.low < 0.2 * (separate.high - separate.low)
    assert paired.low > 0 > separate.low


def test_the_same_numbers_come_out_every_time():
    first, second = compare(OLD, NEW, NO_PAIRS), compare(OLD, NEW, NO_PAIRS)
    assert (first.difference, first.win_rate) == (second.difference, second.win_rate)


def test_one_image_has_no_interval():
    found = compare(np.array([1.0]), NEW, NO_PAIRS)
    assert math.isnan(found.mean_a.low) and math.isnan(found.difference.high)
    assert found.mean_b.low < found.mean_b.value < found.mean_b.high


# Names


@pytest.mark.parametrize(
    ("a", "b", "pairs"),
    [
        (["old/1.png", "old/2.png"], ["new/2.png", "new/1.png"], [[0, 1], [1, 0]]),
        (["/x/old/k/1.png", "/x/old/l/1.png"], ["new/l/1.png", "new/k/1.png"], [[0, 1], [1, 0]]),
        # Below the shared folders the names are 1 and 2, and x/1 and y/2.
        (["old/x/1.png", "old/x/2.png"], ["new/x/1.png", "new/y/2.png"], [[0, 0], [1, 1]]),
        # The same name twice on one side.
        (["old/x/1.png", "old/y/1.png", "old/z/2.png"], ["1.png", "2.png"], [[2, 1]]),
        # One accident among three.
        (["a.png", "b.png", "grid.png"], ["c.png", "d.png", "grid.png"], []),
        (["a.png"], ["b.png"], []),
        (["a.png"], ["other/a.png"], [[0, 0]]),
    ],
)
def test_names_that_match(a, b, pairs):
    assert pairs_by_name(a, b).tolist() == pairs


@given(st.permutations([f"{folder}/{number}.png" for folder in "ab" for number in range(4)]))
def test_the_order_of_names_does_not_matter(names):
    ordered = sorted(names)
    for row, other in pairs_by_name([f"old/{name}" for name in ordered], names):
        assert ordered[row] == names[other]
    assert len(pairs_by_name(ordered, names)) == len(names)


# What is read

ROWS = [("d/NA", 1.5, ""), ("d/007", 2.25, ""), ('d/line\nbreak, "quoted".png', 3.0, "")]
BAD_ROWS = [("d/broken.png", None, "truncated"), ("d/odd.png", None, "")]


def write(path, rows):
    blank = dict.fromkeys(columns(False))
    named = [blank | {"path": name, "score": score, "error": error} for name, score, error in rows]
    write_output(path, named, columns(False))
    return str(path)


@pytest.mark.parametrize("suffix", WRITERS)
def test_files_that_score_wrote_are_read(tmp_path, suffix):
    source = write(tmp_path / f"scores{suffix}", ROWS + BAD_ROWS)
    read = score_set(source)
    assert read.source == source
    assert read.paths == [name for name, _, _ in ROWS]
    assert read.scores.tolist() == [1.5, 2.25, 3.0]
    assert read.failures == [("d/broken.png", "truncated"), ("d/odd.png", "there is no score")]


def test_a_folder_of_parquet_files_is_read(tmp_path):
    folder = tmp_path / "scores.parquet"
    folder.mkdir()
    for number, row in enumerate(ROWS):
        write(folder / f"part-{number}.parquet", [row])
    assert sorted(score_set(str(folder)).paths) == sorted(name for name, _, _ in ROWS)


def test_scores_that_are_not_finite_are_failures(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("path,score\na,1\nb,nan\nc,inf\nd,\n")
    read = score_set(str(path))
    assert read.paths == ["a"]
    assert read.failures == [("b", "the score is nan"), ("c", "the score is inf"), ("d", "there is no score")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "path,value\nx,1\n", "no column score"),
        ("a.csv", "name,value\nx,1\n", "no column path and score"),
        ("a.csv", "path,score\nx,good\n", "x has the score 'good', not a number"),
        ("a.csv", "path,score\n", "there are no images in it"),
        ("a.csv", "path,score,error\nx,,broken\n", "all 1 rows have errors"),
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
        score_set(str(path))
    assert str(path) in str(refused.value)


def test_what_is_not_there_is_refused(tmp_path):
    for name in ("nowhere", "nowhere.csv", "nowhere.jsonl", "nowhere.parquet"):
        with pytest.raises(InputError, match=name):
            score_set(str(tmp_path / name))
    with pytest.raises(InputError, match="there are no images in it"):
        score_set(str(tmp_path))


# The command


@pytest.fixture
def files(tmp_path):
    old = [(f"old/{number}.png", score, "") for number, score in enumerate(OLD)]
    new = [(f"new/{number}.png", score + 0.25, "") for number, score in enumerate(OLD)]
    return [write(tmp_path / "old.csv", old), write(tmp_path / "new.parquet", new)]


def test_the_text_of_a_comparison(files, capsys):
    assert main(["compare", *files]) == 0
    text = capsys.readouterr().out
    assert f"A  {files[0]}: 40 images, mean {OLD.mean():.3f} [" in text
    assert f"B  {files[1]}: 40 images, mean {OLD.mean() + 0.25:.3f} [" in text
    assert "40 pairs of the same name" in text
    assert "difference     +0.250 [+0.250, +0.250]" in text
    assert "win rate of B  1.000 [1.000, 1.000]" in text


def test_the_json_of_a_comparison(files, tmp_path):
    target = tmp_path / "comparison.json"
    assert main(["compare", *files, "--json", str(target), "--fail-under", "9"]) == 1
    content = json.loads(target.read_text())
    assert list(content) == [
        *("a", "b", "pairs", "difference", "win_rate", "resamples", "seed", "fail_under", "below")
    ]
    assert list(content["a"]) == ["source", "images", "mean", "failures"]
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
    assert "mean of B 3.500 is not below --fail-under 3.5" in capsys.readouterr().out
    assert main(["compare", low, high, "--fail-under", "3.51"]) == 1
    assert "mean of B 3.500 is BELOW --fail-under 3.51" in capsys.readouterr().out
    assert main(["compare", high, low, "--fail-under", "3"]) == 1


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


def test_folders_are_scored(tmp_path, capsys):
    paths = [tmp_path / "old" / "x.png", tmp_path / "new" / "x.png", tmp_path / "new" / "deep" / "y.jpg"]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(64, 80, number)).save(path)
    (tmp_path / "new" / "broken.png").write_bytes(paths[0].read_bytes()[:400])
    (tmp_path / "new" / "notes.txt").touch()
    sides = [str(tmp_path / "old"), str(tmp_path / "new")]
    assert main(["compare", *sides, "--json", str(tmp_path / "c.json")]) == 1
    content = json.loads((tmp_path / "c.json").read_text())
    metric = pyiqa.create_metric("ma_agiqa")
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
