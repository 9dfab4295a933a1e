"""Adapting from a folder and a CSV to a small file, and what that file then does."""

from __future__ import annotations

import shutil

import numpy as np
import pyiqa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import pyiqa_ma_agiqa
from pyiqa_ma_agiqa import InputError, WeightsError
from pyiqa_ma_agiqa.adapting import adaptation, of_choices, of_ratings, seen, writing
from pyiqa_ma_agiqa.adapting.writing import CHANGED, move_experts
from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.compact.arch import MAAGIQA

from ..rated import write_images

NAMES = [f"{number:02}.png" for number in range(24)]


@pytest.fixture(scope="module", autouse=True)
def towers(short_towers):
    yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """24 images, which get noisier, and their ratings from 0 to 100."""
    folder = tmp_path_factory.mktemp("images")
    mos = write_images(folder, NAMES)
    rows = [f"{name},{20 * value:.1f}" for name, value in zip(NAMES, mos, strict=True)]
    (folder / "ratings.csv").write_text("\n".join(["name,mos", *rows]) + "\n")
    return folder


@pytest.fixture(scope="module")
def moved(folder):
    """An adaptation whose experts do move, whatever these few ratings speak for, and its metric."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_ratings, "chosen", lambda against: 0)
        result = pyiqa_ma_agiqa.adapt(folder, folder / "ratings.csv", folder / "mine.safetensors")
    return result, pyiqa.create_metric("ma_agiqa", pretrained_model_path=folder / "mine.safetensors")


@pytest.fixture(scope="module")
def shipped():
    return pyiqa.create_metric("ma_agiqa")


@pytest.fixture(scope="module")
def said(shipped, folder):
    """What the networks say of the images."""
    return seen.look(shipped.net, [folder / name for name in NAMES])


@pytest.fixture
def looked(said, folder, monkeypatch):
    """What adapting looks at, which costs most, is known by its content; the paths of each look."""
    known = {(folder / name).read_bytes(): rows for name, *rows in zip(NAMES, *said, strict=True)}
    looks = []

    def look(model, paths):
        looks.append(paths)
        rows = [known[path.read_bytes()] for path in paths]
        return tuple(map(np.stack, zip(*rows, strict=True)))

    monkeypatch.setattr(adaptation, "look", look)
    return looks


def judged(model, said):
    features, summaries = map(torch.from_numpy, said)
    with torch.no_grad():
        return model.judge(summaries.unflatten(1, (6, 4, 768)), features)


def table(folder, tmp_path, text):
    (tmp_path / "table.csv").write_text(text)
    return ["adapt", "--images", str(folder), "--table", str(tmp_path / "table.csv")]


def test_the_file_is_small_and_says_what_it_is(moved, folder):
    path = folder / "mine.safetensors"
    assert path.stat().st_size < 200_000
    assert path.stat().st_mode == (folder / "ratings.csv").stat().st_mode  # others may read it, too
    with safe_open(path, "pt") as file:
        facts = file.metadata()
        assert set(file.keys()) == set(CHANGED)
    assert facts["format"] == "ma_agiqa adaptation 1" and len(facts["adapted_from"]) == 64
    assert facts["made_of"] == "24 ratings of 24 images"


def test_the_metric_scores_as_the_fit_said(moved, shipped, said, folder):
    """Through pyiqa, from files: experts moved by the closed form, on the scale of the ratings."""
    _, metric = moved
    scores, before = (judged(each.net, said).score[:, 0].numpy() for each in (metric, shipped))
    for each, known in ((metric, scores), (shipped, before)):
        found = [each(folder / name).item() for name in NAMES[::6]]
        assert found == pytest.approx(known[::6], rel=1e-5)
    ratings = np.loadtxt(folder / "ratings.csv", delimiter=",", skiprows=1, usecols=1)
    assert np.mean(scores) == pytest.approx(ratings.mean(), abs=5)
    assert np.corrcoef(scores, ratings)[0, 1] > np.corrcoef(before, ratings)[0, 1] + 0.05
    assert not np.allclose(np.polyval(np.polyfit(before, scores, 1), before), scores, atol=0.1)


def test_parts_keep_their_meaning(moved, shipped, said, folder):
    from pyiqa_ma_agiqa.input_checks import read_tensor

    result, metric = moved
    pixels = torch.cat([read_tensor(folder / name) for name in NAMES[:4]])
    now, before = (each.net(pixels, return_parts=True) for each in (metric, shipped))
    assert torch.equal(now["gate"], before["gate"])
    assert torch.equal(now["familiarity"], before["familiarity"])
    content, coherence, quality = now["shares"].unbind(1)
    torch.testing.assert_close(content + coherence + quality, now["score"][:, 0], atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(now["quality_map"].mean((1, 2)), quality, atol=1e-3, rtol=1e-4)
    half = (now["interval"][:, 1] - now["interval"][:, 0]) / 2
    ratio = half / ((before["interval"][:, 1] - before["interval"][:, 0]) / 2)
    torch.testing.assert_close(ratio, ratio[:1].expand(4), rtol=1e-3, atol=0)
    of_all = judged(metric.net, said)
    assert result.half_width == pytest.approx((of_all.interval[:, 1:] - of_all.score).mean().item(), rel=1e-4)


def test_explain_takes_it_as_weights_of_ones_own(moved, folder):
    _, metric = moved
    explanation = pyiqa_ma_agiqa.explain(folder / NAMES[0], metric)
    assert explanation.percentile is None and explanation.differences is None
    assert sum(explanation.shares.values()) == pytest.approx(explanation.score, abs=1e-3)


def test_load_weights_takes_it_too(moved, folder):
    _, metric = moved
    other = pyiqa.create_metric("ma_agiqa", pretrained=False)
    other.load_weights(folder / "mine.safetensors")
    assert other(folder / NAMES[3]) == metric(folder / NAMES[3])
    assert not (other.net.has_shipped_weights or metric.net.has_shipped_weights)


@given(slope=st.floats(-50, 50), intercept=st.floats(-100, 100), seed=st.integers(0, 99))
@settings(max_examples=5)
def test_experts_move_exactly(shipped, said, slope, intercept, seed):
    """The score is slope * score + intercept + weights . inputs, and nothing else changes."""
    model = MAAGIQA()
    shown = seen.seen(model, *said)
    assert shown.inputs.shape == (len(NAMES), 18432)
    weights = np.random.default_rng(seed).standard_normal(18432)
    move_experts(model, slope, intercept, weights)
    now, before = judged(model, said), judged(shipped.net, said)
    expected = slope * shown.score + intercept + shown.inputs @ weights
    assert np.abs(now.score[:, 0].numpy() - expected).max() < 1e-3 * (1 + abs(slope)) + 1e-5 * abs(intercept)
    assert torch.equal(now.gate, before.gate) and torch.equal(now.familiarity, before.familiarity)
    pixels, pixels_before = (each.quality_expert.weight[0, :1280] for each in (model, shipped.net))
    assert pixels_before.any() and torch.equal(pixels, (slope * pixels_before.double()).float())
    assert shown.score == pytest.approx(before.score[:, 0].numpy())


def test_the_command_tells_before_and_after(folder, looked, tmp_path, capsys):
    words = ["--table", str(folder / "ratings.csv"), "--out", str(tmp_path / "a.safetensors")]
    assert main(["adapt", "--images", str(folder), *words]) == 0
    first, head, srcc, rmse, interval = capsys.readouterr().out.splitlines()
    assert first.startswith("24 ratings of 24 images; strength of the ridge ")
    assert head.split() == ["before", "after", "gain"]
    assert srcc.startswith("SRCC ") and rmse.startswith("RMSE ")
    assert interval.startswith("90 % interval: about the score +- ")


def test_choices_are_learned_of(folder, shipped, said, looked, tmp_path, monkeypatch):
    """Names in pairs, on the scale of the shipped score; its interval stays."""
    monkeypatch.setattr(of_choices, "chosen", lambda against: 0)
    rows = [f"{better},{worse}" for better, worse in zip(NAMES[5:], NAMES, strict=False)] * 2
    (tmp_path / "choices.csv").write_text("\n".join(["better,worse", *rows]) + "\n")
    result = pyiqa_ma_agiqa.adapt(folder, tmp_path / "choices.csv", tmp_path / "c.safetensors")
    assert result.made_of == "38 choices of 24 images" and result.half_width is None
    metric = pyiqa.create_metric("ma_agiqa", pretrained_model_path=tmp_path / "c.safetensors")
    now, before = (judged(each.net, said).score[:, 0].numpy() for each in (metric, shipped))
    assert metric(folder / NAMES[3]).item() == pytest.approx(now[3], rel=1e-5)
    assert np.mean(now[5:] > now[:-5]) > np.mean(before[5:] > before[:-5])
    assert (now.mean(), now.std()) == pytest.approx((before.mean(), before.std()), abs=0.01)
    assert torch.equal(metric.net.familiarity.width, MAAGIQA().familiarity.width)


def test_ratings_of_one_image_are_averaged_and_it_is_seen_once(
    folder, shipped, looked, tmp_path, monkeypatch
):
    """By name, however written, and by content."""
    shutil.copytree(folder, tmp_path / "f")
    shutil.copy(folder / NAMES[0], tmp_path / "f" / "again.png")
    for one, other in seen.look(shipped.net, [folder / NAMES[0], tmp_path / "f" / "again.png"]):
        assert np.array_equal(one, other)
    rows = (folder / "ratings.csv").read_text().splitlines()
    value = float(rows[1].split(",")[1])
    (tmp_path / "once.csv").write_text("\n".join(rows))
    more = [f"./{NAMES[0]},{value + 5}", f"again.png,{value + 2.5 - 5}"]
    rows[1] = f"{NAMES[0]},{value}"
    (tmp_path / "more.csv").write_text("\n".join([*rows, *more]))
    told, of_table = [], adaptation.of_ratings
    monkeypatch.setattr(
        adaptation, "of_ratings", lambda shown, ratings: told.append(ratings) or of_table(shown, ratings)
    )
    for name in ("once", "more"):
        pyiqa_ma_agiqa.adapt(tmp_path / "f", tmp_path / f"{name}.csv", tmp_path / f"{name}.safetensors")
    assert [len(paths) for paths in looked] == [24, 25]
    assert told[0][1:] == pytest.approx(told[1][1:])
    assert told[1][0] == pytest.approx(((value + value + 5) / 2 + value - 2.5) / 2)


RATED = [f"{name},{place}" for place, name in enumerate(NAMES)]
PAIRS = [f"{one},{other}" for one, other in zip(NAMES[1:], NAMES, strict=False)]


@pytest.mark.parametrize(
    ("head", "rows", "message"),
    [
        ("name,mos", RATED[:19], "19 different images; at least 20 are needed"),
        ("name,mos", [], "0 different images; at least 20"),
        ("name,mos", [row.split(",")[0] + ",3" for row in RATED], "all ratings are the same"),
        ("name,mos", [*RATED, "30.png,3"], "line 26: 30.png: no such image"),
        ("name,mos", [*RATED, "00.png,nan"], "line 26: 00.png: its MOS is not a number"),
        ("name,mos", [*RATED, "00.png,inf"], "line 26: 00.png: its MOS is not a number"),
        ("name,rating", RATED, "no column 'mos'; it has name, rating"),
        ("better,worst", PAIRS, "no column 'worse'; it has better, worst"),
        ("better,worse,mos", PAIRS, "columns of ratings and of choices"),
        ("better,worse", PAIRS[:19], "19 choices; at least 20 are needed"),
        ("better,worse", PAIRS[:5] * 5, "6 different images; at least 10 are needed"),
        (
            "better,worse",
            [*PAIRS, "00.png,./00.png"],
            "line 25: 00.png: an image is neither better nor worse",
        ),
        ("better,worse", [*PAIRS, "00.png,30.png"], "line 25: 30.png: no such image"),
        ("better,worse", [*PAIRS, *[",".join(row.split(",")[::-1]) for row in PAIRS]], "nothing to adapt"),
    ],
)
def test_what_is_of_no_use_is_refused(folder, looked, tmp_path, capsys, head, rows, message):
    words = table(folder, tmp_path, "\n".join([head, *rows]) + "\n")
    assert main([*words, "--out", str(tmp_path / "mine.safetensors")]) == 2
    error = capsys.readouterr().err
    assert message in error and "table.csv: " in error
    assert not (tmp_path / "mine.safetensors").exists()


@pytest.mark.parametrize("out", ["mine.csv", "none/mine.safetensors", "folder.safetensors"])
def test_where_it_cannot_be_written_is_told_at_once(folder, tmp_path, capsys, out):
    (tmp_path / "folder.safetensors").mkdir()
    words = table(folder, tmp_path, "")
    assert main([*words, "--out", str(tmp_path / out)]) == 2
    assert f"{out}: give a file NAME.safetensors in a folder that there is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"adapted_from": "0" * 64}, "adapted from other weights than those of this pyiqa-ma-agiqa"),
        ({"format": "ma_agiqa adaptation 9"}, "adapted by another version"),
    ],
)
def test_an_adaptation_of_other_weights_is_refused(moved, shipped, folder, tmp_path, facts, message):
    with safe_open(folder / "mine.safetensors", "pt") as file:
        known = file.metadata()
    save_file(load_file(folder / "mine.safetensors"), tmp_path / "other.safetensors", known | facts)
    with pytest.raises(WeightsError, match=rf"other\.safetensors: {message}"):
        pyiqa.create_metric("ma_agiqa", pretrained_model_path=tmp_path / "other.safetensors")


def test_a_damaged_adaptation_is_refused(moved, folder, tmp_path):
    with safe_open(folder / "mine.safetensors", "pt") as file:
        known = file.metadata()
    tensors = load_file(folder / "mine.safetensors")
    save_file(tensors | {"bias": torch.tensor([float("nan")])}, tmp_path / "nan.safetensors", known)
    save_file(tensors | {"more": torch.zeros(1)}, tmp_path / "more.safetensors", known)
    (tmp_path / "cut.safetensors").write_bytes((folder / "mine.safetensors").read_bytes()[:50_000])
    for name, message in (
        ("nan", "bias has values that are not finite"),
        ("more", "unexpected more"),
        ("cut", "not a readable safetensors file"),
    ):
        with pytest.raises(WeightsError, match=rf"{name}\.safetensors: .*{message}"):
            MAAGIQA(pretrained_model_path=tmp_path / f"{name}.safetensors")


def test_a_write_that_fails_leaves_the_earlier_file(moved, folder, tmp_path, monkeypatch):
    shutil.copy(folder / "mine.safetensors", tmp_path)
    before = (tmp_path / "mine.safetensors").read_bytes()

    def half(model, names, path, **facts):
        path.write_bytes(before[:1000])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "save_adaptation", half)
    with pytest.raises(InputError, match=r"mine\.safetensors: cannot be written \(No space left"):
        writing.write_adaptation(MAAGIQA(), tmp_path / "mine.safetensors")
    assert (tmp_path / "mine.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["mine.safetensors"]
