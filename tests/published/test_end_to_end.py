"""ma_agiqa_owl2 as a user meets it: by name, from a picture to a score, with a tiny large model."""

from __future__ import annotations

import json
import pickle
import traceback
from pathlib import Path

import numpy as np
import pandas as pd
import pyiqa
import pytest
import torch
import yaml
from PIL import Image

from pyiqa_ma_agiqa import InputError, WeightsError
from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.published import checkpoint
from pyiqa_ma_agiqa.published.arch import PUBLISHED_ENCODER, MAAGIQAOwl2
from pyiqa_ma_agiqa.published.files import CHECKPOINT
from pyiqa_ma_agiqa.training import recipe as recipes

from ..images import batch, picture
from ..published_nets import light_branch, quick_patch_features
from ..tiny_lmm import save_tiny_lmm

NAME = "ma_agiqa_owl2"
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module", autouse=True)
def quick_branch():
    with light_branch(quick_patch_features):
        yield


@pytest.fixture(scope="module")
def create(tiny_owl2):
    """`pyiqa.create_metric` on the CPU with the tiny large model in float32 and random experts."""

    def created(name=NAME, **options):
        return pyiqa.create_metric(name, device="cpu", **{**tiny_owl2, "dtype": "fp32", **options})

    return created


@pytest.fixture(scope="module")
def metric(create):
    return create()


@pytest.fixture
def files(tmp_path):
    """Three pictures of three shapes."""
    paths = []
    for number, (height, width) in enumerate([(60, 90), (96, 64), (80, 80)]):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(picture(height, width, number)).save(paths[-1])
    return paths


def as_tensor(path):
    with Image.open(path) as file:
        return torch.from_numpy(np.array(file)).permute(2, 0, 1)[None].float() / 255


def test_path_pillow_image_tensor_and_bytes_score_the_same(metric, files):
    for path in files:
        sources = [str(path), path, path.read_bytes(), Image.open(path), as_tensor(path)]
        scores = [metric(source).item() for source in sources]
        assert scores == [scores[0]] * len(scores)


def test_a_batch_scores_as_its_images_do(metric):
    images = batch(11, 72, 100)
    alone = torch.cat([metric(image[None]) for image in images])
    together = metric(images)
    assert together.shape == (11, 1)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert together.std() > 1e-3


def test_the_vectors_are_those_of_the_large_model(metric, create):
    images = batch(2, 72, 100)
    vectors = metric.net.semantic_encoder(images)
    assert vectors.shape == (2, 2, 4096) and vectors.dtype == torch.float32
    given = create(semantic_encoder=None)
    torch.testing.assert_close(given(images, semantic=vectors), metric(images), rtol=1e-6, atol=1e-6)
    swapped = given(images, semantic=vectors.flip(1))
    assert not torch.allclose(swapped, metric(images), atol=1e-4), "the order of the prompts counts"


def test_the_parts_add_up(metric):
    parts = metric(batch(2, 64, 96), return_parts=True)
    torch.testing.assert_close(parts["shares"].sum(1, keepdim=True), parts["score"])
    torch.testing.assert_close(parts["quality_map"].mean((1, 2)), parts["shares"][:, 2], rtol=1e-4, atol=1e-4)


def test_the_cache_changes_no_score(metric, create, tmp_path, monkeypatch, files):
    cached = create(semantic_cache=tmp_path / "vectors")
    first = [cached(path).item() for path in files]
    assert len([path for path in (tmp_path / "vectors").rglob("*") if path.is_file()]) == len(files)

    def refused(*_):
        raise AssertionError("the large model was asked again")

    again = create(semantic_cache=tmp_path / "vectors")
    monkeypatch.setattr("pyiqa_ma_agiqa.mplug_owl2.encoder.Owl2Encoder.__call__", refused)
    assert [again(path).item() for path in files] == first
    monkeypatch.undo()
    assert [metric(path).item() for path in files] == first


def test_a_metric_with_a_cache_goes_through_a_pickle(create, tmp_path, files):
    cached = create(semantic_cache=tmp_path / "vectors")
    expected = cached(files[0]).item()
    assert pickle.loads(pickle.dumps(cached))(files[0]).item() == expected


def test_convolutions_keep_all_digits_on_a_gpu(metric):
    """pyiqa's call of a network lets them be cut to TF32."""
    seen = []
    handle = metric.net.fc_score.register_forward_hook(
        lambda *_: seen.append(torch.backends.cudnn.allow_tf32)
    )
    before = torch.backends.cudnn.allow_tf32
    metric(batch(1, 32, 32))
    handle.remove()
    assert seen == [False] and torch.backends.cudnn.allow_tf32 is before


def test_the_cache_knows_precisions_apart(create, tmp_path, files):
    scores = {
        dtype: create(semantic_cache=tmp_path, dtype=dtype)(files[0]).item() for dtype in ("fp32", "bf16")
    }
    assert scores["fp32"] != scores["bf16"]
    assert scores["fp32"] == pytest.approx(scores["bf16"], abs=0.3)


def test_a_loss_has_the_gradient_of_both_ways_to_the_score(create, tmp_path):
    loss = create(as_loss=True, semantic_cache=tmp_path)
    images = batch(1, 64, 64).requires_grad_()
    loss(images).backward()
    whole = images.grad.clone()
    assert whole.isfinite().all()
    images.grad = None
    vectors = loss.net.semantic_encoder(images).detach()
    create(as_loss=True, semantic_encoder=None)(images, semantic=vectors).backward()
    assert images.grad.abs().sum() > 0
    assert (whole - images.grad).abs().sum() > 1e-6, "the large model's part is missing"
    assert not any(path.is_file() for path in tmp_path.rglob("*")), "vectors with a gradient are not kept"


def test_the_log_says_which_system_it_is(create, logged):
    create()
    [line] = [text for text in logged if text.startswith(f"{NAME}:")]
    assert "published system" in line and "in fp32" in line


@pytest.mark.parametrize(
    ("semantic", "message"),
    [
        (None, "needs the semantic vectors.*semantic_encoder="),
        (torch.zeros(1, 4096), r"shape \(1, 4096\), not \(1, 2, 4096\)"),
        (torch.zeros(2, 2, 4096), r"shape \(2, 2, 4096\)"),
        (torch.full((1, 2, 4096), torch.nan), "NaN or infinite"),
        (np.zeros((1, 2, 4096)), "ndarray, not a tensor"),
        (torch.zeros(1, 2, 4096, dtype=torch.int64), "not dense floating point"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(semantic, message):
    random = pyiqa.create_metric(NAME, device="cpu", pretrained=False)
    with pytest.raises(InputError, match=message):
        random(batch(1, 64, 64), semantic=semantic)


def test_a_large_model_of_another_width_is_refused(create, tmp_path):
    narrow = create(semantic_encoder=save_tiny_lmm(tmp_path / "narrow", hidden=64))
    with pytest.raises(InputError, match=r"shape \(1, 2, 64\), not \(1, 2, 4096\)"):
        narrow(batch(1, 64, 64))


def test_an_unknown_precision_is_refused(create):
    with pytest.raises(InputError, match="dtype 'int3' is not one of fp32, bf16, fp16, 8bit, 4bit"):
        create(dtype="int3")


def test_bad_files_are_named_as_for_the_default_metric(metric, tmp_path):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(InputError, match=r"cut\.png"):
        metric(str(tmp_path / "cut.png"))


@pytest.fixture
def caches(tmp_path, tiny_owl2, monkeypatch):
    """Both caches as after a download: pyiqa's with the checkpoint, the hub's with the large model."""
    weights = tmp_path / "pyiqa"
    weights.mkdir()
    (weights / CHECKPOINT).symlink_to(tiny_owl2["pretrained_model_path"])
    hub = tmp_path / "hub" / f"models--{PUBLISHED_ENCODER.replace('/', '--')}"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs" / "main").write_text(REVISION)
    (hub / "snapshots").mkdir()
    (hub / "snapshots" / REVISION).symlink_to(tiny_owl2["semantic_encoder"])
    monkeypatch.setattr("pyiqa_ma_agiqa.weights.downloads.cache_folder", lambda: weights)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_both_come_from_the_caches(caches, create, files):
    found = pyiqa.create_metric(NAME, device="cpu")
    assert found(files[0]).item() == create(dtype=None)(files[0]).item()


def test_without_a_network_one_error_says_what_is_missing_and_how_to_bring_it(tmp_path, monkeypatch):
    monkeypatch.setattr("pyiqa_ma_agiqa.weights.downloads.cache_folder", lambda: tmp_path)
    monkeypatch.setattr("pyiqa_ma_agiqa.weights.downloads.RETRIES", 1)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(WeightsError) as caught:
        pyiqa.create_metric(NAME, device="cpu")
    for text in ("1YT9Fryok-ozYPIvT1V3gEnEF-Ij3UxPp", "weights import", "`ma_agiqa`"):
        assert text in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value))
    assert "During handling" not in shown and shown.splitlines()[-1].endswith("runs without it.")


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """24 rated images of two sizes: 16 train, 4 val, 4 test."""
    folder = tmp_path_factory.mktemp("rated")
    rows = []
    for number in range(24):
        Image.fromarray(picture(64, [64, 96][number % 2], number)).save(folder / f"{number}.png")
        part = "train" if number < 16 else "val" if number < 20 else "test"
        rows.append((f"{number}.png", 1 + number % 5 * 0.7, part))
    pd.DataFrame(rows, columns=["name", "mos", "split"]).to_csv(folder / "ratings.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def recipe(rated, tiny_owl2):
    content = {
        "metric": NAME,
        "data": {"images": str(rated), "table": str(rated / "ratings.csv")},
        "out": str(rated / "whole"),
        "start": {"checkpoint": str(tiny_owl2["pretrained_model_path"])},
        "encoder": {"semantic_encoder": str(tiny_owl2["semantic_encoder"]), "dtype": "fp32"},
        "stage": {"epochs": 2, "rate": 1e-4},
    }
    path = rated / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_published_recipe_trains_what_pyiqa_then_loads(recipe, rated, create, monkeypatch):
    out = rated / "whole"

    def interrupted(*_):
        raise KeyboardInterrupt

    # Once in the middle of the vectors, once after the first epoch, then to the end.
    asked = []
    encode = "pyiqa_ma_agiqa.mplug_owl2.encoder.Owl2Encoder.__call__"
    from pyiqa_ma_agiqa.mplug_owl2.encoder import Owl2Encoder

    real = Owl2Encoder.__call__

    def counted(self, pixels):
        asked.append(len(pixels))
        return interrupted() if len(asked) == 10 else real(self, pixels)

    monkeypatch.setattr(encode, counted)
    assert main(["train", "--config", str(recipe)]) == 130
    with monkeypatch.context() as patch:
        patch.setattr("pyiqa_ma_agiqa.training.published.predict", interrupted)
        assert main(["train", "--config", str(recipe)]) == 130
    assert len(asked) == 21, "no image was read twice but the one that was interrupted, none of test at all"
    assert main(["train", "--config", str(recipe)]) == 0
    assert len(asked) == 21

    result = json.loads((out / "metrics.json").read_text())
    assert len(result["epochs"]) == 2
    assert result["epochs"][1]["loss"] < result["epochs"][0]["loss"]
    assert set(result["recipe"]["stage"]) >= {"rate", "decay", "period", "augmented"}
    monkeypatch.undo()
    trained = create(pretrained_model_path=out / "weights.safetensors")
    image = rated / "20.png"
    assert trained(image).item() != create()(image).item()


def test_the_published_recipe_is_the_default():
    from pyiqa_ma_agiqa.training.published import PublishedStageConfig

    found = recipes.read_recipe(Path(recipes.__file__).with_name("agiqa3k_owl2.yaml"))
    assert found.stage == PublishedStageConfig(
        epochs=30, batch=8, rate=1e-5, decay=1e-5, period=50, augmented=0.7, seed=20
    )
    assert found.start.imagenet and found.encoder.semantic_encoder == PUBLISHED_ENCODER


def test_random_weights_need_no_network_and_no_large_model():
    net = MAAGIQAOwl2(pretrained=False)
    assert net.semantic_encoder is None
    assert set(net.state_dict()) == set(checkpoint.used_layout())
    with pytest.raises(WeightsError, match="no such"):
        MAAGIQAOwl2(pretrained_model_path="none.pth", semantic_encoder=None)
