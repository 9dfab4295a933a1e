"""The ablations of `ma_agiqa` on data whose truth is known."""

from __future__ import annotations

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.ablations import ablations, gate, precision
from benchmarks.common import tables
from benchmarks.common.folds import KNOWN, Fold
from benchmarks.common.lights import Images, Variant
from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.compact.arithmetic import floats
from pyiqa_ma_agiqa.input_checks import read_tensor
from pyiqa_ma_agiqa.training.experts_stage import LATE

from ..images import picture
from ..passed_by import with_a_short_tower
from ..rated import write_images
from .seen_images import BLEND, CONFIG, folds_of, informed, rated

RECIPE = Variant(CONFIG, BLEND)
SEMANTIC, COHERENCE, QUALITY = "semantic content", "coherence", "quality"
READ = {
    SEMANTIC: LATE & ablations.CLASS_TOKENS,
    COHERENCE: LATE & ~ablations.CLASS_TOKENS,
    QUALITY: ~LATE,
}
"""What each expert alone reads."""


def images(where: np.ndarray) -> Images:
    """Images of which some summaries (18432,) alone tell the MOS."""
    mos = np.random.default_rng(0).uniform(0, 4, 180)
    part = np.array(["train", "train", "train", "val", "test"] * 36)
    ratings = rated(np.array(["one", "two", "three"] * 60), mos, part)
    return Images(ratings, informed(ratings, where, strength=0.4))


@pytest.fixture(scope="module")
def whole_model():
    return MAAGIQA()


@pytest.fixture(scope="module")
def model(whole_model):
    return with_a_short_tower(whole_model)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def late() -> tuple[Images, dict[str, Fold]]:
    seen = images(LATE)
    return seen, folds_of(seen, ablations.PARTS)


@pytest.fixture(scope="module")
def found_late(late):
    return ablations.rows(*late, RECIPE)


@pytest.mark.parametrize("where", READ)
def test_leaving_out_the_expert_that_knows_costs(where, monkeypatch):
    """In both lights; what the others' experts read says nothing."""
    seen = images(READ[where])
    fold = folds_of(seen, ablations.PARTS)
    for one in fold.values():
        one.table["branch"] = 0.0  # which says nothing, too
    wanted = {
        name: one for name, one in ablations.variants(RECIPE).items() if "expert" in name or "open" in name
    }
    monkeypatch.setattr(ablations, "variants", lambda _: wanted)
    found = ablations.rows(seen, fold, RECIPE)
    for left_out in READ:
        row = next(row for name, row in found.items() if f"without the {left_out} expert" in name)
        for value in (row["test"]["srcc"], row["unseen"]["mean_srcc"]):
            assert (value < 0.5) if left_out == where else (value > 0.6)
    assert found["gate always open"]["test"]["srcc"] > 0.8


def test_rows_of_the_recipe_and_of_the_branch(late, found_late):
    """The first are of the trained models, which were fitted without copies, as the second is."""
    (seen, fold), found = late, found_late
    whole, again = found[ablations.WHOLE], found[ablations.WITHOUT_COPIES]
    assert whole["test"]["srcc"] == pytest.approx(again["test"]["srcc"], abs=1e-3)
    assert whole["unseen"]["pooled_srcc"] == pytest.approx(again["unseen"]["pooled_srcc"], abs=1e-3)
    scores = fold[KNOWN].table["branch"].to_numpy()[:36]
    rank = pd.Series(scores).corr(pd.Series(seen.ratings.mos[seen.ratings.rows("val")]), method="spearman")
    assert found["the branch alone"]["val"]["srcc"] == pytest.approx(rank)
    # The view of another size has a gate of its own; here it is the same view.
    other = ablations.other_view(seen, fold, RECIPE)
    assert other["test"]["srcc"] == pytest.approx(again["test"]["srcc"], abs=5e-3)


def test_rows_reach_the_table(late, found_late, tmp_path):
    seen, _ = late
    mos = seen.ratings.mos[:20].astype(float)
    result = {
        "rows": found_late,
        "images": {"train": 108},
        "precision": precision.compared(
            {"first": mos, "second": mos + 0.25}, mos, seen.ratings.generators[:20]
        ),
        "command": "python x.py",
        **{"date": "2026-11-21", "cpu": "a CPU", "cores": 2, "threads": 1},
        "versions": {"pyiqa": "1", "torch": "2"},
    }
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations" / "ablations.json").write_text(json.dumps(result))
    row = result["rows"]["without rater weights"]
    text = tables.TABLES["ablations"](tmp_path)
    assert f"| without rater weights | {row['val']['srcc']:.4f} / {row['val']['plcc']:.4f} |" in text
    assert f"| {row['unseen']['mean_srcc']:.3f} | {row['unseen']['pooled_srcc']:.3f} |" in text
    assert "108 train images" in text
    assert "| 0.2500 | 0.2500 | 1.0000 |" in tables.TABLES["precision"](tmp_path)


def test_groups_are_means_of_their_images(late):
    seen, fold = late
    table = gate.gate_and_shares(seen.ratings, fold[KNOWN])
    assert np.array_equal(table["mos"], seen.ratings.mos[seen.ratings.rows("test")])
    np.testing.assert_allclose(table[gate.SHARES].sum(axis=1), table["score"], atol=1e-5)
    groups = gate.by_group(table)
    assert list(groups["kind"].value_counts()) == [10, 3]
    of_one = groups[groups["group"] == "one"].iloc[0]
    own = table[table["generator"] == "one"]
    assert of_one["gate"] == pytest.approx(own["gate"].mean())
    assert of_one["share coherence"] == pytest.approx(own["share coherence"].mean())
    figure = gate.draw_gate(table)
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights[0] == pytest.approx(groups["share semantic content"][0])
    (points,) = figure.axes[5].lines
    assert points.get_xdata().tolist() == table["familiarity"].tolist()
    assert points.get_ydata().tolist() == table["gate"].tolist()


def test_tenths_of_the_mos_begin_with_the_lowest():
    rng = np.random.default_rng(3)
    table = pd.DataFrame({"generator": ["a", "b"] * 30, "mos": rng.permutation(60).astype(float)})
    table = table.assign(gate=table["mos"], familiarity=0.5, **dict.fromkeys(gate.SHARES, 1.0))
    groups = gate.by_group(table)
    tenths = groups[groups["kind"] == "MOS tenth"]
    assert tenths["gate"].tolist() == [2.5 + 6 * tenth for tenth in range(10)]
    assert tenths["images"].tolist() == [6] * 10


@torch.inference_mode()
def test_fewer_bits_change_the_weights_more(model):
    """Of a linear map and of both kinds of convolutions, which count in steps of their own."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    fewer_bits = {bits: precision.restored(model, bits) for bits in (8, 6, 4)}
    for name in ("encoder.blocks.0.fc1", "branch.blocks.3.expand", "branch.blocks.3.project"):
        layer = model.get_submodule(name)
        others = {bits: other.get_submodule(name) for bits, other in fewer_bits.items()}
        change = {bits: (other.matrix() - layer.matrix()).abs().max() for bits, other in others.items()}
        assert change[8] < change[6] < change[4]
        assert len(others[4].matrix()[0].unique()) <= 15
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
    # What is zero stays zero: levels of 128 give the same as before, but for the rounding of biases.
    expand, fewer = (net.branch.blocks[3].expand for net in (model, fewer_bits[4]))
    middle = torch.full((1, expand.weight.shape[1], 8, 8), 128.0)
    assert fewer.matrix().sub(expand.matrix()).abs().max() > 0.01
    apart = floats.convolve(fewer, middle) - floats.convolve(expand, middle)
    assert apart.abs().mean() < 0.1
    pixels = torch.from_numpy(picture(64, 64)).permute(2, 0, 1)[None].float() / 255
    assert fewer_bits[8](pixels).item() == pytest.approx(model(pixels).item(), abs=0.1)


@torch.inference_mode()
def test_activations_that_are_not_rounded_score_nearly_the_same(whole_model):
    pixels = torch.from_numpy(picture(64, 64)).permute(2, 0, 1)[None].float() / 255
    expected = whole_model(pixels)
    found = precision.without_rounding(whole_model)(pixels)
    assert found.shape == (1, 1) and not torch.equal(found, expected)
    assert found.item() == pytest.approx(expected.item(), abs=0.1)


def test_precision_compares_with_the_scores_as_shipped(model, tmp_path, monkeypatch):
    names = [f"{row}.png" for row in range(5)]
    mos = np.array(write_images(tmp_path, names))
    ratings = rated(np.array(["one"] * 5), mos, np.array(["test"] * 5))
    ratings.paths = [tmp_path / name for name in names]
    monkeypatch.setattr(precision, "BITS", (4,))
    with torch.inference_mode():
        shipped = np.array([model(read_tensor(path)).item() for path in ratings.paths])
    found = precision.precision(model, ratings, shipped)
    assert list(found) == [
        "integers: as shipped",
        "the same weights, activations not rounded",
        "weights of 4 bits",
    ]
    _, smooth, coarse = found.values()
    assert 0 < smooth["mean_change"] < coarse["mean_change"]
