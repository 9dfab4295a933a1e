"""Explanations: exact as data, what they are compared with, and the command that writes them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyiqa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from scipy.stats import percentileofscore

import pyiqa_ma_agiqa
from benchmarks.accuracy.reference_scores import PREDICTIONS, reference
from pyiqa_ma_agiqa.command.explain import output_stems
from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.compact.reference_scores import TABLE, percentile, reference_scores
from pyiqa_ma_agiqa.errors import InputError
from pyiqa_ma_agiqa.experts import EXPERTS
from pyiqa_ma_agiqa.explaining.explanation import explain
from pyiqa_ma_agiqa.explaining.page import page
from pyiqa_ma_agiqa.explaining.wording import acquaintance, expected, spread
from pyiqa_ma_agiqa.weights.manifest import load_manifest

from ..conftest import ROOT
from ..passed_by import with_a_short_tower
from ..published_nets import quick_patch_features, random_semantic
from .made import HOSTILE, Text

EXAMPLES = sorted((ROOT / "examples").glob("*.png"))


@pytest.fixture(scope="module")
def metric():
    return with_a_short_tower(pyiqa.create_metric("ma_agiqa", device="cpu"))


@pytest.fixture
def at_hand(metric, monkeypatch):
    """The command takes the metric of these tests."""
    monkeypatch.setattr(pyiqa, "create_metric", lambda name, device: {"ma_agiqa": metric}[name])


def told(example: Path) -> float:
    """The score that the manifest tells of an example."""
    return load_manifest()["files"][0]["example_scores"][f"examples/{example.name}"]


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
        assert explained.interval == tuple(parts["interval"][0].tolist())
        assert explained.familiarity == parts["familiarity"].item()
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


def test_a_blurred_quarter_lowers_the_map_there(metric):
    image = Image.open(EXAMPLES[0]).convert("RGB")
    spoiled, corner = image.copy(), (image.width // 2, image.height // 2)
    quarter = image.crop((*corner, *image.size)).filter(ImageFilter.GaussianBlur(4))
    spoiled.paste(quarter, corner)
    whole, change = (explain(one, metric) for one in (image, spoiled))
    before, after = (
        (one.quality_map - one.shares["quality"]) / one.gate["quality"] for one in (whole, change)
    )
    rows, columns = (side // 2 for side in before.shape)
    inside = np.zeros(before.shape, bool)
    inside[rows:, columns:] = True
    assert (after - before)[inside].mean() < (after - before)[~inside].mean()


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
    assert first.score == second.score == pytest.approx(told(EXAMPLES[0]), abs=0.05)


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


def test_a_loss_is_refused():
    loss = pyiqa.create_metric("ma_agiqa", as_loss=True, pretrained=False, device="cpu")
    with pytest.raises(InputError, match=r"ma_agiqa was made as a loss, .*give one without as_loss"):
        explain(torch.rand(1, 3, 32, 32), loss)


def test_the_published_system_is_explained_without_a_percentile(monkeypatch):
    from pyiqa_ma_agiqa.published.branch import QualityBranch

    monkeypatch.setattr(QualityBranch, "patch_features", quick_patch_features)
    published = pyiqa.create_metric("ma_agiqa_owl2", pretrained=False, device="cpu")
    published.net.semantic_encoder = lambda pixels: random_semantic(len(pixels))
    explained = explain(EXAMPLES[0], published)
    assert explained.score == published(str(EXAMPLES[0])).item()
    assert explained.percentile is explained.typical is explained.differences is None
    assert explained.interval is explained.familiarity is explained.difference_map is None
    assert explained.quality_map.shape == (28, 28)
    text = Text(page(explained, "landscape.png")).text
    assert "There is no percentile: these weights of ma_agiqa_owl2 have not been run" in text
    assert "No typical shares of ma_agiqa_owl2 are known" in text
    assert "Percentile and typical" not in text


def test_other_weights_have_no_reference(tmp_path, metric):
    from pyiqa_ma_agiqa.compact.shipped import shipped_weights

    copy = shutil.copy(shipped_weights(), tmp_path / "mine.safetensors")
    tuned = pyiqa.create_metric("ma_agiqa", pretrained_model_path=copy, device="cpu")
    explained = explain(EXAMPLES[1], with_a_short_tower(tuned))
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


# The command


def test_the_command(at_hand, tmp_path, capfd):
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
    explained, said = explain(EXAMPLES[0]), capfd.readouterr().out
    assert f"{explained.score:.2f}, {expected(explained)}; {acquaintance(explained)}; percentile " in said


def test_limits_can_be_set(at_hand, tmp_path, capfd):
    arguments = ["explain", str(EXAMPLES[0]), "--out", str(tmp_path), "--device", "cpu"]
    assert main([*arguments, "--max-pixels", "1000"]) == 1
    assert "512 x 512 pixels are more than --max-pixels 1000" in capfd.readouterr().err
    assert main([*arguments, "--max-bytes", "1000"]) == 1
    assert "more than --max-bytes 1000" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_one_line(at_hand, tmp_path, capfd):
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
