"""Explanations: exact as data, and the same figures in words, on pages and on pictures."""

from __future__ import annotations

import io
import json
import os
import shutil
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pyiqa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import percentileofscore

import pyiqa_ma_agiqa
from benchmarks.accuracy.reference_scores import PREDICTIONS, reference
from pyiqa_ma_agiqa.command.explain import output_stems
from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.compact.reference_scores import TABLE, percentile, reference_scores
from pyiqa_ma_agiqa.errors import InputError
from pyiqa_ma_agiqa.experts import EXPERTS
from pyiqa_ma_agiqa.explaining.explanation import Explanation, explain
from pyiqa_ma_agiqa.explaining.overlay import colour_limit, map_over_image
from pyiqa_ma_agiqa.explaining.page import page
from pyiqa_ma_agiqa.explaining.picture import save_picture
from pyiqa_ma_agiqa.explaining.wording import MINUS, map_in_words, parts_of, spread, standing, sum_as_shown

from ..conftest import ROOT, quick_patch_features
from ..published_nets import random_semantic

EXAMPLES = sorted((ROOT / "examples").glob("*.png"))
HOSTILE = '<img src=x onerror="alert(1)">\n{{ 7 * 7 }}$\u202e&.png'


@pytest.fixture(scope="module")
def metric():
    return pyiqa.create_metric("ma_agiqa", device="cpu")


TYPICAL = (0.85, 0.83, 0.77)


def explanation(
    shares=(0.8, 0.9, -0.2), quality_map=((-0.6, 0.2),), side=64, place=40.0, typical=TYPICAL
) -> Explanation:
    """One with a reference, unless `place` is None."""
    parts = np.subtract(shares, typical).tolist()
    return Explanation(
        metric="ma_agiqa" if place is not None else "ma_agiqa_owl2",
        score=float(np.float32(sum(shares))),
        percentile=place,
        typical=sum(typical) if place is not None else None,
        shares=dict(zip(EXPERTS, shares, strict=True)),
        differences=dict(zip(EXPERTS, parts, strict=True)) if place is not None else None,
        gate=dict.fromkeys(EXPERTS, 1.0),
        quality_map=np.array(quality_map, np.float32),
        image=np.full((side, side, 3), 128, np.uint8),
    )


# As data


def test_an_explanation_is_what_the_metric_says(metric):
    for path in EXAMPLES[1:]:
        parts = metric(str(path), return_parts=True)
        explained = explain(path, metric)
        assert explained.metric == "ma_agiqa"
        assert explained.score == parts["score"].item()
        assert list(explained.shares) == list(explained.gate) == list(EXPERTS)
        assert list(explained.shares.values()) == parts["shares"][0].tolist()
        assert list(explained.gate.values()) == parts["gate"][0].tolist()
        np.testing.assert_array_equal(explained.quality_map, parts["quality_map"][0].numpy())
        np.testing.assert_array_equal(explained.image, np.asarray(Image.open(path).convert("RGB")))
        assert sum(explained.shares.values()) == pytest.approx(explained.score, abs=1e-5)
        assert explained.quality_map.mean() == pytest.approx(explained.shares["quality"], abs=1e-5)
        assert explained.percentile == percentile(explained.score)
        assert explained.typical == reference_scores().typical
        for name, share in explained.shares.items():
            assert explained.differences[name] == share - reference_scores().shares[name]
        made_of = explained.typical + sum(explained.differences.values())
        assert made_of == pytest.approx(explained.score, abs=1e-5)
        assert explained.difference_map.dtype == np.float32
        assert explained.difference_map.mean() == pytest.approx(explained.differences["quality"], abs=1e-5)


def test_every_kind_of_image_gives_the_same(metric):
    path = EXAMPLES[0]
    image = Image.open(path).convert("RGB")
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    wanted = explain(str(path), metric)
    for source in (path.read_bytes(), image, tensor.requires_grad_()):
        given_so = explain(source, metric)
        assert given_so.score == wanted.score
        np.testing.assert_array_equal(given_so.image, wanted.image)


def test_the_package_explains_by_name():
    assert pyiqa_ma_agiqa.explain is explain
    first, second = (explain(EXAMPLES[0]) for _ in range(2))
    assert first.score == second.score == pytest.approx(2.643, abs=0.01)


def test_grey_and_16_bit_images_are_shown_as_scored(metric):
    grey = torch.linspace(0, 1, 64 * 64).reshape(1, 1, 64, 64)
    assert explain(grey, metric).image.shape == (64, 64, 3)
    deep = Image.fromarray((grey[0, 0].numpy() * 65535).astype(np.uint16))
    shown = explain(deep, metric).image[..., 0].astype(int)
    assert abs(shown - 255 * grey[0, 0].numpy()).max() <= 1


def test_what_cannot_be_explained_is_refused(metric):
    with pytest.raises(InputError, match="2 images; give one"):
        explain(torch.rand(2, 3, 32, 32), metric)
    with pytest.raises(InputError, match="3 dimensions"):
        explain(torch.rand(3, 32, 32), metric)
    with pytest.raises(InputError, match=r"nowhere\.png: no such file"):
        explain("nowhere.png", metric)
    with pytest.raises(InputError, match="piqe has no experts"):
        explain(EXAMPLES[0], "piqe")
    with pytest.raises(InputError, match="piqe has no experts"):
        explain(EXAMPLES[0], pyiqa.create_metric("piqe", device="cpu"))


def test_the_published_system_is_explained_without_a_percentile(monkeypatch):
    from pyiqa_ma_agiqa.published.branch import QualityBranch

    monkeypatch.setattr(QualityBranch, "patch_features", quick_patch_features)
    published = pyiqa.create_metric("ma_agiqa_owl2", pretrained=False, device="cpu")
    published.net.semantic_encoder = lambda pixels: random_semantic(len(pixels))
    explained = explain(EXAMPLES[0], published)
    assert explained.score == published(str(EXAMPLES[0])).item()
    assert explained.percentile is explained.typical is explained.differences is None
    assert explained.difference_map is None
    assert explained.quality_map.shape == (28, 28)
    text = Text(page(explained, "landscape.png")).text
    assert "There is no percentile: these weights of ma_agiqa_owl2 have not been run" in text
    assert "No typical shares of ma_agiqa_owl2 are known" in text
    assert "Percentile and typical" not in text


def test_other_weights_have_no_reference(tmp_path, metric):
    from pyiqa_ma_agiqa.compact.shipped import shipped_weights

    copy = shutil.copy(shipped_weights(), tmp_path / "mine.safetensors")
    tuned = pyiqa.create_metric("ma_agiqa", pretrained_model_path=copy, device="cpu")
    explained = explain(EXAMPLES[1], tuned)
    assert explained.score == explain(EXAMPLES[1], metric).score
    assert explained.percentile is explained.typical is explained.differences is None


# The reference scores


@pytest.fixture(scope="module")
def predictions():
    return pd.read_parquet(ROOT / "benchmarks/accuracy/official/scores.parquet")["ma_agiqa"]


def test_the_percentile_is_that_of_the_predictions(predictions):
    for score in np.linspace(-1, 6, 200):
        assert percentile(score) == pytest.approx(percentileofscore(predictions, score), abs=1)
    assert percentile(-3) == 0
    assert percentile(9) == 100
    assert reference_scores().images == len(predictions)


def test_the_shipped_table_is_what_its_script_writes():
    assert json.loads(TABLE.read_text()) == reference(PREDICTIONS)


def test_typical_shares_sum_to_the_mean_score(predictions):
    assert reference_scores().typical == pytest.approx(predictions.mean(), abs=1e-4)


def test_predictions_of_other_weights_are_refused(tmp_path):
    rows = pd.read_parquet(PREDICTIONS).assign(weights="000000000000")
    rows.to_parquet(tmp_path / "other.parquet")
    with pytest.raises(InputError, match="not by weights"):
        reference(tmp_path / "other.parquet")


def test_the_columns_hold_all_predictions(predictions):
    edges, heights = spread()
    assert heights.sum() == pytest.approx(100)
    counted = 100 * np.histogram(predictions, edges)[0] / len(predictions)
    assert abs(heights - counted).max() < 1


# In words


def plain(text):
    return Decimal(text.replace(MINUS, "-"))


THREE = st.lists(st.floats(-500, 500, width=32), min_size=3, max_size=3)


@given(THREE, THREE)
def test_what_is_shown_sums_to_the_score_shown(shares, typical):
    for explained in (explanation(shares, typical=typical), explanation(shares, place=None)):
        score, base, texts = sum_as_shown(explained)
        assert (base is None) == (explained.typical is None)
        assert plain(base or "0") + sum(map(plain, texts.values())) == plain(score)
        for text, exact in zip(texts.values(), parts_of(explained).values(), strict=True):
            assert abs(float(plain(text)) - exact) < 0.0101
            assert text == "0.00" or text[0] in "+" + MINUS
        assert abs(float(plain(score)) - sum(shares)) < 0.0101


def test_shares_are_rounded_so_that_they_add_up():
    # Rounded one by one they would be 0.33, 0.33 and 0.33.
    assert sum_as_shown(explanation((0.334, 0.333, 0.333), place=None)) == (
        "1.00",
        None,
        {"semantic content": "+0.34", "coherence": "+0.33", "quality": "+0.33"},
    )
    score, typical, texts = sum_as_shown(explanation((-0.001, 0.5, -1.25), typical=(0.5, 0.5, 0.5)))
    assert (score, typical, list(texts.values())) == (
        f"{MINUS}0.75",
        "1.50",
        [f"{MINUS}0.50", "0.00", f"{MINUS}1.75"],
    )


def test_a_poor_image_is_not_flattered():
    """Every share of an image at a low percentile is positive; what is shown says that all are low."""
    poor = explanation((0.75, 0.82, -0.8))
    assert set("".join(sum_as_shown(poor).parts.values())) & set("+" + MINUS) == {MINUS}
    html = page(poor, "a.png")
    assert html.count('class="filled less"') == 3 and 'class="filled more"' not in html


def test_shares_without_reference_have_no_colour_of_praise():
    html = page(explanation(place=None), "a.png")
    assert html.count('class="filled raw"') == 3
    assert 'class="filled more"' not in html and 'class="filled less"' not in html


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (0.1, "lower than all 597 predictions of ma_agiqa for AGIQA-3K, official test part"),
        (4.9, "higher than all 597 "),
        (0.27, "percentile 1 among the 597 "),
        (2.6, "percentile 48 among the 597 "),
    ],
)
def test_where_a_score_stands(score, words):
    assert standing(explanation((score, 0, 0), place=percentile(score))).startswith(words)


def test_the_map_in_words():
    values = np.zeros((6, 9))
    values[0, 0], values[5, 4] = -0.5, 1.25
    words = f"from {MINUS}0.50, lowest in the upper left, to +1.25, highest in the lower centre"
    assert map_in_words(values) == words
    values[2, 4] = 2
    assert map_in_words(values).endswith("highest in the centre")
    assert map_in_words(np.full((3, 3), 0.7)) == "about +0.70 everywhere"


# As pictures


def test_the_map_lies_over_its_patches():
    laid = map_over_image(explanation(quality_map=((-1, 0), (0, 1)), place=None), (32, 640))
    assert laid.size == (64, 64)
    pixels = np.asarray(laid).astype(int)
    orange, grey, blue = pixels[5, 5], pixels[5, 60], pixels[60, 60]
    assert orange[0] > orange[1] > orange[2]
    assert np.ptp(grey) == 0
    assert blue[0] < blue[1] < blue[2]
    assert (pixels[:32, :32] == orange).all()
    assert (pixels[32:, 32:] == blue).all()


def test_weak_maps_look_weak():
    assert colour_limit(np.array([[0.1, -0.2]])) == 1
    assert colour_limit(np.array([[0.1, -2.5]])) == 2.5


@pytest.mark.parametrize(("size", "expected"), [((16, 16), (448, 448)), ((3000, 10), (640, 2))])
def test_the_map_is_large_enough_to_see_and_no_larger(size, expected):
    wide = explanation()
    object.__setattr__(wide, "image", np.zeros((size[1], size[0], 3), np.uint8))
    assert map_over_image(wide, (448, 640)).size == expected


@pytest.mark.filterwarnings("error")
def test_the_picture_takes_any_name(tmp_path):
    save_picture(explanation(), HOSTILE + "\u753b\u50cf" * 40, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 800


# As pages


class Text(HTMLParser):
    """Elements, attributes that load something, and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.loaded: list[str] = []
        self.text = ""
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data):
        self.text += data


def test_the_page_needs_nothing_else():
    html = page(explanation(), "a.png")
    parsed = Text(html)
    assert len(parsed.loaded) == 3
    assert all(value.startswith("data:") for value in parsed.loaded)
    assert not {"script", "iframe", "object", "form"} & set(parsed.elements)
    assert "url(" not in html and "@import" not in html


def test_the_page_shows_a_hostile_name_as_text():
    parsed, plain = (Text(page(explanation(), name)) for name in (HOSTILE, "a.png"))
    assert parsed.elements == plain.elements
    assert r'<img src=x onerror="alert(1)">\n{{ 7 * 7 }}$\u202e&.png' in parsed.text


def test_the_page_has_the_figures():
    text = Text(page(explanation(), "a.png")).text
    differences = (f"{MINUS}0.05", "+0.07", f"{MINUS}0.97")
    for figure in ("1.50", "2.45", *differences, "percentile 40 among", "no diagnosis"):
        assert figure in text
    raw = Text(page(explanation(place=None), "a.png")).text
    for figure in ("1.50", "+0.80", "+0.90", f"{MINUS}0.20", "no praise"):
        assert figure in raw


@given(st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=3))
def test_bars_stay_within_their_track(shares):
    from pyiqa_ma_agiqa.explaining.page import _bars

    explained = explanation(shares)
    for bar in _bars(explained, sum_as_shown(explained).parts):
        assert bar["start"] >= -0.02 and bar["start"] + bar["length"] <= 100.02
        assert bar["low"] - 1e-4 <= bar["value"] <= bar["high"] + 1e-4
        edge = bar["start"] + bar["length"] if bar["kind"] == "less" else bar["start"]
        assert abs(edge - bar["zero"]) < 0.02


def test_large_images_are_shown_smaller():
    small, large = (Text(page(explanation(side=side), "a.png")) for side in (1024, 1100))
    assert "1024 × 1024 pixels." in small.text
    assert "1100 × 1100 pixels, shown smaller." in large.text


# The command


def test_the_command(tmp_path, capfd):
    folders = [tmp_path / "one", tmp_path / "two"]
    for number, folder in enumerate(folders):
        folder.mkdir()
        Image.fromarray(np.full((40, 40, 3), 90 * number, np.uint8)).save(folder / "same.png")
    hostile = tmp_path / HOSTILE.replace("/", "")
    hostile.write_bytes((folders[0] / "same.png").read_bytes())
    broken = tmp_path / "bro\nken.png"
    broken.write_bytes(EXAMPLES[0].read_bytes()[:5000])
    out = tmp_path / "not" / "there"
    images = [folders[0] / "same.png", broken, folders[1] / "same.png", "nowhere.png", hostile]
    assert main(["explain", *map(str, images), "--out", str(out), "--device", "cpu"]) == 1

    printed = capfd.readouterr()
    errors = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert r"bro\nken.png: the image is truncated" in errors[0]
    assert "nowhere.png: no such file" in errors[1]
    assert sum(".html" in line for line in printed.out.splitlines()) == 3
    stems = {"same_explained", "same_explained_2", "_img_src_x_onerror_alert_1_7_7__explained"}
    assert {path.name for path in out.iterdir()} == {
        stem + end for stem in stems for end in (".html", ".png")
    }
    for path in out.glob("*.png"):
        with Image.open(path) as picture:
            picture.load()
    for path in out.glob("*.html"):
        assert "script" not in Text(path.read_text(encoding="utf-8")).elements


def test_all_images_explained_is_success(tmp_path, capfd):
    assert main(["explain", str(EXAMPLES[0]), "--out", str(tmp_path), "--device", "cpu"]) == 0
    assert "2.64, percentile 5" in capfd.readouterr().out


def test_limits_can_be_set(tmp_path, capfd):
    arguments = ["explain", str(EXAMPLES[0]), "--out", str(tmp_path), "--device", "cpu"]
    assert main([*arguments, "--max-pixels", "1000"]) == 1
    assert "512 x 512 pixels are more than --max-pixels 1000" in capfd.readouterr().err
    assert main([*arguments, "--max-bytes", "1000"]) == 1
    assert "more than --max-bytes 1000" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capfd):
    (tmp_path / "file").touch()
    out = str(tmp_path / "file")
    assert main(["explain", str(EXAMPLES[0]), "--out", out, "--device", "cpu"]) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert out in errors[0]


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["explain", "--help"])
    assert stopped.value.code == 0
    assert "pyiqa-ma-agiqa explain examples/*.png --out explained" in capsys.readouterr().out


def test_no_input_is_overwritten(tmp_path):
    for name in ("a.png", "a_explained.png", "A.jpg"):
        (tmp_path / name).touch()
    sources = [str(tmp_path / name) for name in ("a.png", "a_explained.png", "A.jpg")]
    assert output_stems(sources, tmp_path) == ["a_explained_2", "a_explained_explained", "A_explained_3"]


FILE_NAMES = st.one_of(st.text(st.characters(exclude_categories=["Cs"])).map(str.encode), st.binary())


@given(st.lists(FILE_NAMES.map(lambda name: os.fsdecode(name.replace(b"\0", b"") or b"x")), max_size=6))
def test_output_names_are_safe_and_unique(sources):
    stems = output_stems(sources, Path("out"))
    assert len({stem.casefold() for stem in stems}) == len(sources)
    for stem in stems:
        assert len(f"{stem}.html".encode()) <= 255
        assert not set(stem) & set('/\\<>:"|?*\n\r\t #%&')


def test_the_picture_is_a_plain_png(tmp_path):
    save_picture(explanation(place=None), "a.png", tmp_path / "a.bin")
    assert Image.open(io.BytesIO((tmp_path / "a.bin").read_bytes())).format == "PNG"
