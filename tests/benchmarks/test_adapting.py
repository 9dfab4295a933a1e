"""The benchmark of adapting, on made-up generators whose truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.adapting import adapting, adapting_tables
from benchmarks.common import features, left_out
from pyiqa_ma_agiqa.compact.arch import MAAGIQA
from pyiqa_ma_agiqa.training.data import Ratings
from pyiqa_ma_agiqa.training.experts_stage import LATE

OF_EACH = 60
SAME_TASTE = slice(9000, 9300)
DATA, RUNS = Path("data"), Path("runs")


@pytest.fixture(scope="module")
def measured():
    """Two generators, judged alike by some of what the tower says; and what was asked for, in turn."""
    rng = np.random.default_rng(0)
    summaries = rng.standard_normal((2 * OF_EACH, len(LATE)), np.float32)
    pixels = rng.standard_normal((2 * OF_EACH, 1280), np.float32)
    mos = rng.uniform(0, 5, len(summaries)).astype(np.float32)
    summaries[:, SAME_TASTE] += 2 * (mos - 2.5)[:, None]
    names = np.array(["one", "other"] * OF_EACH)
    part, ones = np.full(len(mos), "train"), np.ones(len(mos), np.float32)
    paths = [Path(str(row)) for row in range(len(mos))]
    ratings = Ratings(paths, mos, part, part == "train", names, ones)
    asked = []

    def model_without(generator, data, runs):
        asked.append((generator, data, runs))
        model = MAAGIQA()
        adapting.fit_alone(model, summaries[names != generator], mos[names != generator])
        return model

    def seen(model, some, cache):
        asked.append((set(some.generators), cache))
        rows = [int(path.name) for path in some.paths]
        return features.Seen(some, summaries[rows], pixels[rows])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(left_out, "model_without", model_without)
        patch.setattr(features, "seen", seen)
        patch.setattr(adapting, "COUNTS", (20,))
        return adapting.measure(ratings, DATA, RUNS, draws=2), asked


@pytest.fixture
def result(measured):
    return measured[0]


def test_each_generator_is_new_to_the_model_that_is_asked(measured):
    _, asked = measured
    assert asked[::2] == [(name, DATA, RUNS) for name in ("one", "other")]
    assert asked[1::2] == [({name}, RUNS) for name in ("one", "other")]


def test_what_generators_share_is_known_without_ratings(result):
    assert result["without_ratings"]["mean"] > 0.8
    figures = result["mean"]["20"]
    assert figures["shipped"]["mean"] > 0.8 and figures["adapted"]["mean"] > 0.8
    assert figures["lead_over_shipped"]["mean"] == pytest.approx(
        figures["adapted"]["mean"] - figures["shipped"]["mean"]
    )


def test_the_experts_fitted_alone_know_nothing_else():
    """Neither of the earlier fit nor of the branch: they say what a new model says, which saw as much."""
    rng = np.random.default_rng(1)
    summaries = rng.standard_normal((40, len(LATE)), np.float32)
    mos = rng.uniform(0, 5, 40).astype(np.float32)
    used, new = MAAGIQA(), MAAGIQA()
    adapting.fit_alone(used, summaries[20:], mos[20:])
    for model in (used, new):
        adapting.fit_alone(model, summaries[:20], mos[:20])
    predicted = [
        adapting.predict_experts(model, np.full((40, 1280), fill, np.float32), summaries)
        for model, fill in ((used, 0), (new, 9))
    ]
    assert np.array_equal(*predicted)
    assert np.corrcoef(predicted[0][:20], mos[:20])[0, 1] > 0.9


def test_the_tables_tell_it(result):
    about = {"cpu": "a CPU", "cores": 2, "threads": 1, "versions": {"pyiqa": "1", "torch": "2"}}
    about |= {"command": "python -m benchmarks.adapting.adapting", "date": "2026-11-26", "draws": 2}
    text = adapting_tables.adapting(result | about)
    assert text.startswith("| ratings of the new generator |")
    assert f"| 20 | {result['mean']['20']['shipped']['mean']:.3f} |" in text
    assert "| other |" in adapting_tables.by_generator(result | about)
