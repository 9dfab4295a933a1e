"""Training of ma_agiqa: from a folder and a CSV to weights, with resume, and its parts one by one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyiqa
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.compact.arch import MAAGIQA
from pyiqa_ma_agiqa.compact.preprocessing import branch_view
from pyiqa_ma_agiqa.compact.semantic import SUMMARY
from pyiqa_ma_agiqa.training import compact as train
from pyiqa_ma_agiqa.training import crops
from pyiqa_ma_agiqa.training.agreement import agreement, logistic
from pyiqa_ma_agiqa.training.crops import Crops, degraded_pair, random_crop
from pyiqa_ma_agiqa.training.data import DataConfig, Images, read_ratings
from pyiqa_ma_agiqa.training.degradations import DEGRADATIONS, GRADES, DegradedCopies, noise
from pyiqa_ma_agiqa.training.experts_stage import fit_experts, predict_experts
from pyiqa_ma_agiqa.training.float_networks import FloatBranch
from pyiqa_ma_agiqa.training.joining import join_branch
from pyiqa_ma_agiqa.training.objective import correlation_loss, degradation_loss, order_loss
from pyiqa_ma_agiqa.training.quality_stage import (
    QualityRegressor,
    QualityStageConfig,
    branch_features,
    centre_head,
    predict_branch,
)
from pyiqa_ma_agiqa.training.recipe import Recipe
from pyiqa_ma_agiqa.training.rounding import integer_branch
from pyiqa_ma_agiqa.training.summaries import Summaries

from ..images import batch, picture

LITTLE = QualityStageConfig(epochs=2, batch=4, crop=64, degraded=1, rate=3e-3, frozen_stages=7, average=0.5)
"""A first stage of seconds."""
PICTURES = 8
"""The train images are this many, each twice: the tower reads one once."""
VAL = np.arange(16, 20)


@pytest.fixture(scope="module", autouse=True)
def little(short_towers):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "FINE_TUNING", LITTLE)
        patch.setattr(train, "CALIBRATION", 2)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """24 rated images of three sizes: 16 train, 4 val, 4 test."""
    folder = tmp_path_factory.mktemp("ratings")
    rows = []
    for number in range(24):
        seed = number % PICTURES if number < 16 else number
        height, width = [(64, 64), (64, 128), (96, 64)][seed % 3]
        strength = seed % 5 / 4
        noisy = noise(picture(height, width, seed), strength, np.random.default_rng(seed))
        Image.fromarray(noisy).save(folder / f"{number}.png")
        part = "train" if number < 16 else "val" if number < 20 else "test"
        rows.append((f"{number}.png", 4.5 - 3 * strength + number % 2 / 4, part))
    pd.DataFrame(rows, columns=["name", "mos", "split"]).to_csv(folder / "ratings.csv", index=False)
    return folder


def call(folder: Path, out: Path, *words: str) -> int:
    """The command as a user gives it; the table may be another one."""
    table = [] if "--table" in words else ["--table", str(folder / "ratings.csv")]
    return main(["train", "--images", str(folder), *table, "--out", str(out), *words])


@pytest.fixture(scope="module")
def whole_run(folder):
    assert call(folder, folder / "whole") == 0
    return folder / "whole"


def a_copy(run: Path, out: Path, *, first_stage: bool = True) -> Path:
    """What a run keeps of the tower and, unless it is not wanted, of its first stage."""
    shutil.copytree(run / "summaries", out / "summaries")
    if first_stage:
        shutil.copy(run / "quality.pt", out)
    return out


def of_tower(run: Path) -> list[Path]:
    """The files of what the tower says."""
    every = sorted(path for path in (run / "summaries").rglob("*") if path.is_file())
    return [path for path in every if "crops" not in path.parts]


def other_table(folder: Path, path: Path, part: str, mos: np.ndarray) -> Path:
    """The ratings with other MOS for one part."""
    table = pd.read_csv(folder / "ratings.csv")
    table.loc[table["split"] == part, "mos"] = mos
    table.to_csv(path, index=False)
    return path


def figures_of(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


@pytest.fixture(scope="module")
def parts(folder, whole_run):
    """Experts fitted once more to what the tower says of train, the tuned branch, and both of val."""
    recipe = Recipe(DataConfig(str(folder), str(folder / "ratings.csv")), str(whole_run), quality=LITTLE)
    ratings = read_ratings(folder, folder / "ratings.csv")
    fitted, images = ratings.rows("train"), Images(ratings.paths)
    model = MAAGIQA()
    quality = QualityRegressor(FloatBranch(), 0.0, LITTLE.frozen_stages)
    state = torch.load(whole_run / "quality.pt", weights_only=True)["average"]
    quality.load_state_dict(
        {name.removeprefix("module."): value for name, value in state.items() if name != "n_averaged"}
    )
    model.branch = integer_branch(
        quality.branch, map(branch_view, train.calibration_images(ratings, images)())
    )
    summaries = Summaries(model.encoder, whole_run / "summaries")

    def summarise(source, rows):
        return summaries(source, rows).reshape(len(rows), -1)

    fit_experts(model, train.seen_by(summarise, images, ratings, recipe), recipe.experts)
    centre_head(quality, branch_features(model.branch, images, fitted), ratings.mos[fitted])
    return model, quality, branch_features(model.branch, images, VAL), summarise(images, VAL)


def test_a_fine_tuned_model_scores_through_pyiqa_as_its_metrics_say(folder, whole_run, parts):
    """Experts of train, joined by the branch at the blend: by hand, by the metric, and in metrics.json."""
    metric = pyiqa.create_metric(
        "ma_agiqa", pretrained_model_path=str(whole_run / "weights.safetensors"), device="cpu"
    )
    scores = np.array([metric(str(folder / f"{row}.png")).item() for row in VAL])

    blend = figures_of(whole_run)["recipe"]["blend"]
    assert 0 < blend < 1
    model, quality, features, summaries = parts
    judged = model.judge(torch.from_numpy(summaries).reshape(-1, *SUMMARY), torch.from_numpy(features))
    gate, shares, bias = judged.gate[:, 2].detach(), judged.shares.detach(), model.bias.item()
    meaning = (shares[:, 0] + shares[:, 1] + bias / 3).numpy()
    before = predict_experts(model, features, summaries) - meaning
    of_branch = gate.numpy() * (predict_branch(quality, features) - meaning)
    by_hand = meaning + (1 - blend) * before + blend * of_branch
    np.testing.assert_allclose(scores, by_hand, atol=1e-4)

    mos = read_ratings(folder, folder / "ratings.csv").mos[VAL]
    told, found = figures_of(whole_run)["agreement"]["val"], agreement(scores, mos)
    assert told == pytest.approx(agreement(by_hand, mos), abs=1e-3)
    assert found == pytest.approx(told, abs=1e-3)


def test_val_chooses_nothing(folder, whole_run, tmp_path):
    out = a_copy(whole_run, tmp_path / "other")
    table = other_table(folder, tmp_path / "table.csv", "val", np.array([9.0, 1.0, 5.0, 3.0]))
    assert call(folder, out, "--table", str(table)) == 0
    assert (out / "weights.safetensors").read_bytes() == (whole_run / "weights.safetensors").read_bytes()
    assert figures_of(out)["agreement"]["val"] != figures_of(whole_run)["agreement"]["val"]


def test_the_test_part_is_read_only_when_asked_for_and_changes_nothing(folder, whole_run, tmp_path, capsys):
    assert set(figures_of(whole_run)["agreement"]) == {"val"}
    read = set(of_tower(whole_run))
    copies = 16 * len(GRADES)
    assert len(read) <= PICTURES + copies + len(VAL), "test is not read"
    assert len(read) > PICTURES + copies // 2

    out = a_copy(whole_run, tmp_path / "asked")
    table = other_table(folder, tmp_path / "table.csv", "test", np.array([9.0, 1.0, 5.0, 3.0]))
    assert call(folder, out, "--table", str(table), "--test") == 0
    assert (out / "weights.safetensors").read_bytes() == (whole_run / "weights.safetensors").read_bytes()
    before, after = figures_of(whole_run), figures_of(out)
    assert after["agreement"]["val"] == before["agreement"]["val"]
    assert set(after["agreement"]["test"]) == {"srcc", "plcc", "krcc", "rmse"}
    assert set(json.loads(capsys.readouterr().out)) == {"val", "test"}


def test_train_ratings_are_what_is_learned(folder, whole_run, tmp_path, capsys):
    table = other_table(folder, tmp_path / "table.csv", "train", np.linspace(1, 5, 16))
    taken = a_copy(whole_run, tmp_path / "taken")
    assert call(folder, taken, "--table", str(table)) == 2
    assert "quality.pt: of a run with other MOS; repeat" in capsys.readouterr().err
    assert not (taken / "weights.safetensors").exists()

    out = a_copy(whole_run, tmp_path / "learned", first_stage=False)
    assert call(folder, out, "--table", str(table)) == 0
    before, after = (load_file(run / "weights.safetensors") for run in (whole_run, out))
    for name in ("semantic_expert.weight", "quality_expert.weight", "bias"):
        assert not torch.equal(before[name], after[name])
    head = "branch.head.weight"
    assert not torch.equal(before[head], after[head])


def test_an_interrupted_run_goes_on_to_the_same_weights(folder, whole_run, tmp_path, monkeypatch, capsys):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    def interrupted_after(owner, name: str, calls: int) -> int:
        real, left = getattr(owner, name), [calls]

        def counted(*args, **kwargs):
            left[0] -= 1
            return interrupted() if left[0] < 0 else real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, counted)
            return call(folder, out)

    out = a_copy(whole_run, tmp_path / "again", first_stage=False)
    of_tower(out)[0].unlink()
    first_crop = next((out / "summaries" / "crops").rglob("*.npy"))
    first_crop.unlink()
    assert interrupted_after(crops, "random_crop", 1) == 130  # while the crops of an image are made
    assert not first_crop.exists()
    assert interrupted_after(Crops, "crop", 20) == 130  # in the second epoch
    assert torch.load(out / "quality.pt", weights_only=True)["epoch"] == 1
    assert f"goes on with what is in {out}" in capsys.readouterr().err
    (out / "quality.part.pt").write_bytes(b"of a run that was killed")
    assert interrupted_after(Images, "__getitem__", 2 * 16 + 12) == 130  # when the branch has learned
    assert torch.load(out / "quality.pt", weights_only=True)["epoch"] == 2
    assert not (out / "weights.safetensors").exists()
    with monkeypatch.context() as patch:  # stage 1 must not run again
        patch.setattr(Crops, "crop", interrupted)
        assert call(folder, out) == 0
    assert (out / "weights.safetensors").read_bytes() == (whole_run / "weights.safetensors").read_bytes()
    assert not list(out.glob("*.part*"))


def test_summaries_are_of_these_images_and_this_tower(folder, tmp_path):
    """The same name with other pixels, or another tower, has no summary yet; the same pixels have."""
    encoder = MAAGIQA().encoder
    image = Images([folder / "0.png"])[0]
    rows = np.array([0])
    first = Summaries(encoder, tmp_path)([image], rows)
    other = Summaries(encoder, tmp_path)([image // 2], rows)
    assert not np.array_equal(first, other)

    def asked(*_):
        raise AssertionError("the tower was asked")

    encoder.forward = asked
    np.testing.assert_array_equal(Summaries(encoder, tmp_path)([image], rows), first)
    with torch.no_grad():
        encoder.class_token += 1
    with pytest.raises(AssertionError, match="was asked"):
        Summaries(encoder, tmp_path)([image], rows)


def test_without_a_split_it_is_70_10_20_and_seeded(folder, tmp_path):
    table = tmp_path / "table.csv"
    pd.read_csv(folder / "ratings.csv")[["name", "mos"]].to_csv(table, index=False)
    ratings = read_ratings(folder, table, seed=3)
    counts = [len(ratings.rows(part)) for part in ("train", "val", "test")]
    assert counts == [16, 3, 5]
    assert (ratings.part == read_ratings(folder, table, seed=3).part).all()


@pytest.mark.parametrize("scale", [0.1, 20])
def test_mos_on_another_scale_are_refused(folder, tmp_path, capsys, scale):
    """The falls of degraded copies and the margins of the losses are on the scale of the MOS."""
    mos = scale * read_ratings(folder, folder / "ratings.csv").mos[:16]
    table = other_table(folder, tmp_path / "table.csv", "train", mos)
    assert call(folder, tmp_path / "out", "--table", str(table)) == 2
    assert "have a standard deviation of" in (told := capsys.readouterr().err) and "adapt" in told


def test_the_branch_joins_at_the_stated_weight():
    torch.manual_seed(0)
    model = MAAGIQA(pretrained=False)
    quality = QualityRegressor(FloatBranch(), 2.5, 4).eval()
    torch.nn.init.normal_(quality.head.weight, std=0.1)
    image = batch(1, 448, 448)
    with torch.inference_mode():
        before = model(image, return_parts=True)
        branch = quality.head(model.branch(image).mean((2, 3)))[:, 0]
        join_branch(model, quality, 0.3)
        after = model(image, return_parts=True)
    assert torch.equal(after["gate"], before["gate"])
    content, coherence, quality_share = before["shares"][0]
    third = model.bias / 3
    meaning = content + coherence + third
    expected = meaning + 0.7 * (quality_share - third) + 0.3 * before["gate"][0, 2] * (branch - meaning)
    torch.testing.assert_close(after["score"][0], expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(after["shares"][:, :2], before["shares"][:, :2])


def test_copies_are_of_these_images_and_grow_worse():
    images = [picture(64, 64, seed) for seed in range(6)]
    copies = DegradedCopies(images, np.array([1, 3, 4, 5]))
    assert len(copies) == 4 * len(GRADES)
    for place, row in enumerate((1, 3, 4, 5)):
        errors = [np.mean((copies[place * 4 + grade].astype(float) - images[row]) ** 2) for grade in range(4)]
        assert 0 < errors[0] < errors[1] < errors[2] < errors[3]
    assert np.array_equal(copies[5], copies[5])


def test_crops_hide_the_generator_and_not_the_picture():
    """Same seed, same crop; over seeds there are scales, mirrors and compression."""
    image = picture(512, 512)
    views = [random_crop(image, 64, np.random.default_rng(seed)) for seed in range(40)]
    assert {view.shape for view in views} == {(64, 64, 3)}
    assert np.array_equal(views[3], random_crop(image, 64, np.random.default_rng(3)))
    assert len({view.tobytes() for view in views}) == 40
    small = random_crop(picture(40, 90), 64, np.random.default_rng(0))
    assert small.shape == (64, 64, 3)


def test_kept_crops_are_those_of_the_image_whatever_its_row(tmp_path):
    def see(crops: torch.Tensor) -> torch.Tensor:
        return crops[:, ::4, ::4].permute(0, 3, 1, 2) / 255

    images = [picture(448, 448, seed) for seed in range(6)]
    settings = {"epochs": 4, "side": 64, "one_in": 2, "seed": 1}
    first, second = (Crops(see, tmp_path / name, "same", **settings) for name in "ab")
    kept = list(first.keep(images, range(6)).values())
    turned = list(second.keep(images[::-1], range(6)).values())[::-1]
    paired = 0
    for one, other in zip(kept, turned, strict=True):
        for epoch in range(4):
            clean, pair = first.crop(one, epoch)
            assert np.array_equal(clean, second.crop(other, epoch).clean)
            assert clean.shape == (3, 16, 16)
            paired += pair is not None
            assert pair is None or pair.shape == (2, 3, 16, 16)
    assert paired == 6 * 4 / 2
    by_hand = random_crop(images[2], 64, np.random.default_rng([1, 3, int(kept[2].stem[:16], 16)]))
    np.testing.assert_allclose(
        first.crop(kept[2], 3).clean, see(torch.from_numpy(by_hand[None]))[0], atol=1e-3
    )
    assert Crops(see, tmp_path / "a", "other", **settings).folder != first.folder


def test_a_degraded_pair_falls():
    view = picture(128, 128)
    for seed in range(8):
        mild, strong = degraded_pair(view, np.random.default_rng(seed))
        errors = [np.mean((copy.astype(float) - view) ** 2) for copy in (mild, strong)]
        assert 0 < errors[0] < errors[1]


def test_objective():
    mos = torch.tensor([1.0, 2.0, 4.0])
    assert correlation_loss(3 * mos + 1, mos).item() == pytest.approx(0, abs=1e-6)
    assert correlation_loss(-mos, mos).item() == pytest.approx(2)
    assert order_loss(mos, mos).item() == 0
    assert order_loss(torch.zeros(3), mos).item() == pytest.approx(0.5)
    falling = [torch.tensor([3.0]), torch.tensor([2.0]), torch.tensor([1.0])]
    assert degradation_loss(*falling).item() == 0
    assert degradation_loss(*falling[::-1]).item() == pytest.approx(2.4)


def test_agreement_on_hand_made_scores():
    mos = np.linspace(0, 5, 50)
    scores = logistic(mos, 9, -3, 2.5, 0.8)
    exact = agreement(scores, mos)
    assert exact["srcc"] == pytest.approx(1)
    assert exact["krcc"] == pytest.approx(1)
    assert exact["plcc"] > 0.99
    assert agreement(-scores, mos)["srcc"] == pytest.approx(-1)


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_degradations_grow_with_strength(kind):
    image = picture(96, 96)
    errors = []
    for strength in (0.0, 0.5, 1.0):
        degraded = DEGRADATIONS[kind](image, strength, np.random.default_rng(0))
        assert degraded.shape == image.shape
        assert degraded.dtype == np.uint8
        errors.append(np.mean((degraded.astype(float) - image) ** 2))
    assert 0 < errors[0] < errors[1] < errors[2]
