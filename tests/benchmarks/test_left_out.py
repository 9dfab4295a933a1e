"""The recipe without a generator, on small images."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.common import left_out
from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.errors import InputError
from pyiqa_ma_agiqa.training import compact
from pyiqa_ma_agiqa.training.experts_stage import ExpertsStageConfig
from pyiqa_ma_agiqa.training.float_networks import FloatBranch
from pyiqa_ma_agiqa.training.quality_stage import QualityStageConfig

from ..rated import rated_folder


@pytest.fixture(scope="module", autouse=True)
def little(short_towers):
    """A recipe of seconds, from a branch with random weights."""
    torch.manual_seed(0)
    state = FloatBranch().network.state_dict()
    quality = QualityStageConfig(
        epochs=1, batch=4, crop=64, degraded=1, rate=3e-3, frozen_stages=7, average=0.5
    )
    experts = ExpertsStageConfig(folds=2)
    recipe = dataclasses.replace(left_out.shipped_recipe(), degraded=2, quality=quality, experts=experts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compact, "branch_from_wheel", lambda *_: state)
        patch.setattr(left_out, "shipped_recipe", lambda: recipe)
        patch.setattr(compact, "CALIBRATION", 2)
        patch.setattr(compact, "CENTRING", 2)
        yield recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = rated_folder(tmp_path_factory.mktemp("rated"), count=32)
    table = pd.read_csv(folder / "data.csv")
    table.assign(std_quality=np.linspace(0.5, 1, len(table))).to_csv(folder / "data.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    left_out.model_without("two", data, runs)
    return runs


def weights(model: MAAGIQA) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: MAAGIQA, other: MAAGIQA) -> bool:
    state = weights(other)
    return all(torch.equal(value, state[name]) for name, value in weights(one).items())


def test_nothing_of_the_generator_is_read_but_its_names(data, runs, tmp_path):
    """Its MOS may be anything, and what the other generator's are counts."""
    split = pd.read_csv(runs / "without_two" / "splits.csv").set_index("name")
    assert set(split.columns) == {"official", "other", "without"}
    assert (split["without"] == "train").sum() == 16
    assert all(split["without"].filter(like="two_") == "test")
    model = left_out.model_without("two", data, runs)
    changed = tmp_path / "changed"
    changed.mkdir()
    (changed / "images").symlink_to(data / "images")
    shutil.copy(data / "splits.csv", changed)
    table = pd.read_csv(data / "data.csv")
    for generator, equal in (("two", True), ("one", False)):
        own = table["name"].str.startswith(generator)
        other = table.assign(mos_quality=table["mos_quality"].where(~own, table["mos_quality"][::-1].values))
        other.to_csv(changed / "data.csv", index=False)
        # What the tower says of images has nothing to do with their MOS.
        shutil.copytree(runs / "summaries", tmp_path / generator / "summaries")
        again = left_out.model_without("two", changed, tmp_path / generator)
        assert same(again, model) == equal


def test_a_finished_run_is_taken_as_it_is(data, runs, monkeypatch, little):
    monkeypatch.setattr(left_out, "train", lambda _: pytest.fail("trained again"))
    model = left_out.model_without("two", data, runs, branch="no wheel")
    assert model.encoder is not None and not model.has_shipped_weights
    changed = dataclasses.replace(little, blend=0.5)
    monkeypatch.setattr(left_out, "shipped_recipe", lambda: changed)
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        left_out.model_without("two", data, runs)


def test_a_generator_without_images_is_an_error(data, tmp_path):
    with pytest.raises(InputError, match="no image of three"):
        left_out.model_without("three", data, tmp_path)
