"""Explanations in words, on pictures and on pages: figures that add up, and text that cannot do harm."""

from __future__ import annotations

import io
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pyiqa_ma_agiqa.compact.reference_scores import percentile
from pyiqa_ma_agiqa.explaining.overlay import colour_limit, map_over_image
from pyiqa_ma_agiqa.explaining.page import page
from pyiqa_ma_agiqa.explaining.picture import save_picture
from pyiqa_ma_agiqa.explaining.wording import (
    MINUS,
    acquaintance,
    expected,
    map_in_words,
    parts_of,
    standing,
    sum_as_shown,
)

from .made import HOSTILE, Text, explanation

# In words

STRANGE = "unlike the training images (fewer than one known image in twenty is stranger)"
FEWER, LIKE = "less familiar than most known images", "like the training images"


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
        (0.36, "percentile 1 among the 597 "),
        (2.6, "percentile 45 among the 597 "),
    ],
)
def test_where_a_score_stands(score, words):
    assert standing(explanation((score, 0, 0), place=percentile(score))).startswith(words)


@pytest.mark.parametrize(
    ("interval", "words"),
    [((2.14, 3.35), "2.1 to 3.4"), ((-0.31, 0.5), f"{MINUS}0.4 to 0.5"), ((4.2, 5.01), "4.2 to 5.1")],
)
def test_the_interval_in_words_is_no_narrower(interval, words):
    assert expected(explanation(interval=interval)) == f"90 % of people's means within {words}"
    assert expected(explanation(place=None)) is None


@pytest.mark.parametrize(
    ("familiarity", "gate", "words"),
    [
        (0.0, 0.02, f"{STRANGE}: the quality expert is closed"),
        (0.049, 0.2, f"{STRANGE}: the quality expert is mostly closed"),
        (0.05, 0.5, f"{FEWER} (5 % of known images are stranger): the quality expert is mostly open"),
        (0.249, 0.8, f"{FEWER} (25 % of known images are stranger): the quality expert is mostly open"),
        (0.25, 0.8, f"{LIKE} (25 % of known images are stranger): the quality expert is mostly open"),
        (0.9, 0.97, f"{LIKE} (90 % of known images are stranger): the quality expert is open"),
    ],
)
def test_familiarity_in_words(familiarity, gate, words):
    assert acquaintance(explanation(familiarity=familiarity, gate=gate)) == words
    assert acquaintance(explanation(place=None)) is None


def test_the_page_tells_what_the_interval_covers():
    text = Text(page(explanation(familiarity=0.01, gate=0.2), "a.png")).text
    for words in ("within 1.0 to 2.2", "unlike the training images", "counts little", "for photographs"):
        assert words in text
    assert "counts little" not in Text(page(explanation(), "a.png")).text
    without = Text(page(explanation(place=None), "a.png")).text
    assert "within" not in without and "training images" not in without


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


def test_the_picture_is_a_plain_png(tmp_path):
    save_picture(explanation(place=None), "a.png", tmp_path / "a.bin")
    assert Image.open(io.BytesIO((tmp_path / "a.bin").read_bytes())).format == "PNG"


# As pages


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
