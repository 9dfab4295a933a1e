"""The ablations of `ma_agiqa` on data whose truth is known."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.ablations import ablations, gate, precision, second_stage
from benchmarks.ablations import tower_ablations as tower
from benchmarks.common import tables
from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.compact.arithmetic import floats
from pyiqa_ma_agiqa.compact.preprocessing import encoder_view
from pyiqa_ma_agiqa.compact.semantic import EARLY_AND_MIDDLE
from pyiqa_ma_agiqa.training.float_networks import float_tower
from pyiqa_ma_agiqa.training.rounding import integer_tower

from ..images import picture

IMAGES = 240
FITTED, CHOSEN, TEST = np.arange(140), np.arange(140, 190), np.arange(190, IMAGES)
PARTS = {
    second_stage.SEMANTIC: (slice(EARLY_AND_MIDDLE, None), slice(0, 1)),
    second_stage.COHERENCE: (slice(EARLY_AND_MIDDLE, None), slice(1, None)),
    second_stage.QUALITY: (slice(None, EARLY_AND_MIDDLE), slice(None)),
}
"""What of a summary each expert reads."""


def stage(informed: int, branch: np.ndarray | None = None):
    """A second stage in which the summaries of one expert alone tell the MOS."""
    rng = np.random.default_rng(0)
    mos = rng.uniform(0, 5, IMAGES).astype(np.float32)
    summaries = rng.standard_normal((IMAGES, 6, 3, 768), np.float32)
    depths, kinds = PARTS[informed]
    summaries[:, depths, kinds] += (mos - 2.5)[:, None, None, None] * rng.choice((-0.3, 0.3), 768)
    branch = rng.uniform(0, 5, IMAGES) if branch is None else branch
    return second_stage.Stage(summaries, summaries[FITTED], branch, mos, FITTED, CHOSEN)


@pytest.fixture(scope="module")
def model():
    return MAAGIQA()


@pytest.mark.parametrize("informed", second_stage.ALL)
def test_leaving_out_the_expert_that_knows_costs(informed):
    known = stage(informed)
    mos = known.mos[TEST]
    for left_out in second_stage.ALL:
        others = tuple(expert for expert in second_stage.ALL if expert != left_out)
        agreement = ablations.srcc(known.predict(known.fit(others), others)[TEST], mos)
        assert (agreement < 0.4) if left_out == informed else (agreement > 0.8)


def test_the_gate_multiplies_verdicts_and_a_plain_mean_is_a_gate_of_one():
    known = stage(second_stage.SEMANTIC)
    fit = known.fit()
    verdicts = [part @ weight for part, weight in zip(known.plain, fit.weights, strict=True)]
    factors = second_stage.gates(fit, known.plain)
    assert np.ptp(factors) > 0
    np.testing.assert_allclose(
        known.predict(fit), fit.mean_mos + (factors * np.stack(verdicts, 1)).sum(1), rtol=1e-4, atol=1e-4
    )
    plain = second_stage.without_gate(fit)
    assert (second_stage.gates(plain, known.plain) == 1).all()
    np.testing.assert_allclose(known.predict(plain), fit.mean_mos + sum(verdicts), rtol=1e-4, atol=1e-4)


def test_a_branch_that_knows_joins_at_the_largest_weight():
    mos = stage(second_stage.QUALITY).mos
    known = stage(second_stage.QUALITY, branch=mos.astype(float))
    fit = second_stage.without_gate(known.fit())
    row = known.join(fit)
    assert row.blend == pytest.approx(0.9)
    np.testing.assert_allclose(row.scores, 0.1 * known.predict(fit) + 0.9 * mos, rtol=1e-4, atol=1e-4)
    without = known.fit((0, 1))
    ungated = known.join(without, (0, 1))
    expected = (1 - ungated.blend) * known.predict(without, (0, 1)) + ungated.blend * mos
    np.testing.assert_allclose(ungated.scores, expected, rtol=1e-4, atol=1e-4)


def test_the_same_view_twice_changes_nothing():
    known = stage(second_stage.COHERENCE)
    fit = known.fit()
    once, twice = known.join(fit), known.join(fit, views=[known.plain, known.plain])
    assert once.blend == twice.blend
    np.testing.assert_allclose(once.scores, twice.scores, rtol=1e-5, atol=1e-5)


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.integers(8, 60))
def test_the_lead_is_a_difference_with_an_interval_around_it(seed, count):
    rng = np.random.default_rng(seed)
    mos, noise = rng.standard_normal(count), rng.standard_normal(count)
    itself = ablations.lead(mos, mos, mos)
    assert (itself["value"], itself["low"], itself["high"]) == pytest.approx((0, 0, 0), abs=1e-12)
    assert itself["probability_whole_is_better"] == 0.5
    ahead, behind = ablations.lead(mos, noise, mos), ablations.lead(noise, mos, mos)
    assert ahead["low"] <= ahead["high"] and ahead["high"] > 0
    assert ahead["value"] == pytest.approx(-behind["value"])


def test_rows_reach_the_table(tmp_path):
    known = stage(second_stage.SEMANTIC)
    fit = known.fit()
    data = SimpleNamespace(
        parts={"train": FITTED, "val": CHOSEN, "test": TEST},
        mos=known.mos,
        generators=np.array(["one", "two"] * (IMAGES // 2)),
    )
    rows = {ablations.WHOLE: known.join(fit), "branch": second_stage.Row(known.branch)}
    result = {
        "rows": ablations.reported(data, rows),
        "images": {"train": 140},
        "trainings": {"queries": {"epochs": 3, "epoch_chosen_on_val": 2}},
        "precision": precision.compared(
            {"first": known.mos[TEST], "second": known.mos[TEST] + 0.25},
            known.mos[TEST],
            data.generators[TEST],
        ),
        "command": "python x.py",
        **{"date": "2026-11-21", "cpu": "a CPU", "cores": 2, "threads": 1},
        "versions": {"pyiqa": "1", "torch": "2"},
    }
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations" / "ablations.json").write_text(json.dumps(result))
    found = result["rows"]["branch"]
    assert found["lead_of_whole"]["low"] > 0
    assert "lead_of_whole" not in result["rows"][ablations.WHOLE]
    text = tables.TABLES["ablations"](tmp_path)
    assert f"| {found['val']['srcc']:.4f} | {found['test']['srcc']:.4f} |" in text
    assert f"{found['lead_of_whole']['value']:.4f} [" in text
    assert "queries: 3 epochs, number 2 chosen on val" in text
    assert "| second | 1.0000 | " in tables.TABLES["precision"](tmp_path)
    assert "| 0.2500 | 0.2500 | 1.0000 |" in tables.TABLES["precision"](tmp_path)


def test_groups_are_means_of_their_images():
    rng = np.random.default_rng(3)
    table = pd.DataFrame({"generator": ["a", "b"] * 30, "mos": rng.permutation(60).astype(float)})
    for name in gate.EXPERTS:
        table[f"gate {name}"], table[f"share {name}"] = table["mos"], rng.random(60)
    groups = gate.by_group(table)
    assert list(groups["kind"].value_counts()) == [10, 2]
    tenths = groups[groups["kind"] == "MOS tenth"]
    assert tenths["gate quality"].tolist() == [2.5 + 6 * tenth for tenth in range(10)]
    assert tenths["images"].tolist() == [6] * 10
    of_a = groups[groups["group"] == "a"]["share coherence"].item()
    assert of_a == pytest.approx(table[table["generator"] == "a"]["share coherence"].mean())
    figure = gate.draw_gate(groups)
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights[0] == pytest.approx(groups["share semantic content"][0])


@torch.inference_mode()
def test_fewer_bits_change_the_weights_more(model):
    """Of a linear map and of both kinds of convolutions, which count in steps of their own."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for name in ("encoder.blocks.11.fc1", "branch.blocks.3.expand", "branch.blocks.3.project"):
        layer = model.get_submodule(name)
        others = {bits: precision.restored(model, bits).get_submodule(name) for bits in (8, 6, 4)}
        change = {bits: (other.matrix() - layer.matrix()).abs().max() for bits, other in others.items()}
        assert change[8] < change[6] < change[4]
        assert len(others[4].matrix()[0].unique()) <= 15
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
    # What is zero stays zero: levels of 128 give the same as before, but for the rounding of biases.
    expand, fewer = (net.branch.blocks[3].expand for net in (model, precision.restored(model, 4)))
    middle = torch.full((1, expand.weight.shape[1], 8, 8), 128.0)
    assert fewer.matrix().sub(expand.matrix()).abs().max() > 0.01
    apart = floats.convolve(fewer, middle) - floats.convolve(expand, middle)
    assert apart.abs().mean() < 0.1
    pixels = torch.from_numpy(picture(64, 64)).permute(2, 0, 1)[None].float() / 255
    assert precision.restored(model, 8)(pixels).item() == pytest.approx(model(pixels).item(), abs=0.1)


@torch.inference_mode()
def test_variants_in_floats_score_nearly_the_same(model):
    pixels = torch.from_numpy(picture(64, 64)).permute(2, 0, 1)[None].float() / 255
    tower = float_tower()
    expected = model(pixels)
    found = precision.without_rounding(model)(pixels)
    assert found.shape == (1, 1) and not torch.equal(found, expected)
    assert found.item() == pytest.approx(expected.item(), abs=0.1)

    # A float tower and the integers that it becomes, of weights that nobody has trained.
    torch.manual_seed(0)
    view = encoder_view(pixels)
    other = MAAGIQA(pretrained=False)
    other.branch, other.encoder = model.branch, integer_tower(tower, [view])
    summary = precision.float_summary(tower, view)
    assert summary.shape == (1, 6, 3, 768)
    rounded = other.encoder(view)
    assert (summary - rounded).abs().max() < 0.05 * rounded.abs().max()
    found = precision.with_float_tower(other, tower.state_dict())(pixels)
    assert found.item() == pytest.approx(other(pixels).item(), abs=0.1)


def test_rows_are_computed_once(tmp_path):
    asked = []

    def make(row: int) -> np.ndarray:
        asked.append(row)
        return np.full(2, row)

    for _ in range(2):
        rows = tower.cached(tmp_path / "rows.npy", 3, (2,), np.float32, make)
        assert rows.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert asked == [0, 1, 2]


def test_upper_blocks_go_on_where_the_tower_was_left(model, tmp_path):
    """Tokens, upper blocks and their summary are the second half of the shipped encoder."""
    pixels = torch.from_numpy(picture(224, 224)).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        expected = model.encoder(encoder_view(pixels))
    summaries = expected.numpy()
    start = tower.GradientAblations(
        model.encoder,
        [picture(224, 224), picture(224, 224, 1)],
        np.ones(2, np.float32),
        np.array([0]),
        np.array([1]),
        summaries,
        summaries,
        tmp_path,
    )
    assert start.tokens.shape == (2, 197, 768) and start.mirrored.shape == (1, 197, 768)
    upper = tower.UpperBlocks(model.encoder).eval()
    names = [name for name, _ in upper.named_parameters()]
    assert len(names) == 4 * 4 * 2, "weight and bias of each linear map are to be learned"
    late = tower.in_batches(lambda tokens: tower.summed_up(upper(tokens)), start.tokens[:1])
    wanted = summaries[:, EARLY_AND_MIDDLE:]
    assert np.abs(late - wanted).max() < 0.02 * np.abs(wanted).max()
    assert np.abs(start.mirrored[0].astype(float) - start.tokens[0]).max() > 0.1


def late_tokens(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Late tokens of which one patch, elsewhere in each image, tells the MOS; and the MOS."""
    rng = np.random.default_rng(1)
    tokens = rng.standard_normal((count, 2, 10, 768)).astype(np.float32)
    mos = rng.uniform(0, 5, count).astype(np.float32)
    marked = rng.integers(1, 10, count)
    tokens[np.arange(count), :, marked] += 3 * np.eye(768, dtype=np.float32)[0] * 10
    tokens[np.arange(count), :, marked, 1:200] += (mos - 2.5)[:, None, None]
    return tokens, mos


class Stops(tower.PromptQueries):
    """Is interrupted after some calls."""

    left = 7

    def forward(self, late: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().forward(late)


def test_queries_learn_and_an_interrupted_training_goes_on(tmp_path):
    tokens, mos = late_tokens(112)
    fitted, chosen = np.arange(80), np.arange(80, 112)
    config = dataclasses.replace(tower.QUERIES, epochs=4, head_rate=1e-3, rate=1e-2, average=0.5)

    def run(kind: type, folder: str) -> tuple[list, torch.nn.Module]:
        torch.manual_seed(0)
        model = kind(float(mos[fitted].mean()), config.dropout)
        inputs = (tokens, tokens[fitted], mos, fitted, chosen, config, tmp_path / folder)
        return tower.train(model, *inputs), model

    epochs, model = run(tower.PromptQueries, "whole")
    assert len(epochs) == 4
    assert max(epoch["srcc"] for epoch in epochs) > 0.5
    best = max(epochs, key=lambda epoch: epoch["srcc"] + epoch["plcc"])
    predicted = tower.in_batches(model, tokens[chosen])
    assert ablations.srcc(predicted, mos[chosen]) == pytest.approx(best["srcc"])

    with pytest.raises(KeyboardInterrupt):
        run(Stops, "stopped")
    again, resumed = run(tower.PromptQueries, "stopped")
    assert again == epochs
    assert torch.equal(resumed.queries, model.queries)


def test_tuning_leaves_the_shipped_tower_alone(model):
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    tokens = torch.randn(3, 197, 768)
    late = np.random.default_rng(0).standard_normal((4, 2, 3, 768)).astype(np.float32)
    tuned = tower.TunedTower(model.encoder, late, 2.5, 0.5).train()
    optimizer = torch.optim.SGD(tuned.parameters(), 0.1)
    assert tuned(tokens).tolist() == [2.5] * 3
    tower.mos_loss(tuned(tokens) + tuned.head.weight.sum(), torch.tensor([1.0, 2.0, 4.0])).backward()
    moved = tuned.upper.blocks[0].qkv.weight.clone()
    optimizer.step()
    # The head says the mean MOS until its weights are set, and hands nothing down before.
    tower.mos_loss(tuned(tokens), torch.tensor([1.0, 2.0, 4.0])).backward()
    optimizer.step()
    assert not torch.equal(moved, tuned.upper.blocks[0].qkv.weight)
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, before[name])
    assert tuned.head.weight.abs().max() > 0
