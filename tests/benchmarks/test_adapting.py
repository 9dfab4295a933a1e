"""The benchmark of adapting, on made-up generators whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.adapting import adapting, adapting_tables
from pyiqa_ma_agiqa.compact.arch import EVERYTHING, MAAGIQA
from pyiqa_ma_agiqa.training.data import Ratings
from pyiqa_ma_agiqa.training.experts_stage import ExpertsStageConfig

OF_EACH = 60
SAME_TASTE = slice(9000, 9300)


@pytest.fixture(scope="module")
def result():
    """Two generators that are judged alike by some of what the networks say."""
    rng = np.random.default_rng(0)
    said = rng.standard_normal((2 * OF_EACH, EVERYTHING), np.float32)
    mos = rng.uniform(0, 5, len(said)).astype(np.float32)
    said[:, SAME_TASTE] += 2 * (mos - 2.5)[:, None]
    names = np.array(["one"] * OF_EACH + ["other"] * OF_EACH)
    part = np.full(len(said), "train")
    ratings = Ratings([], mos, part, part == "train", names, np.ones(len(said), np.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapting, "COUNTS", (20,))
        return adapting.measure(MAAGIQA(pretrained=False), said, ratings, ExpertsStageConfig(), draws=2)


def test_what_generators_share_is_known_without_ratings(result):
    assert result["without_ratings"]["mean"] > 0.8
    figures = result["mean"]["20"]
    assert figures["shipped"]["mean"] > 0.8 and figures["adapted"]["mean"] > 0.8
    assert figures["lead_over_shipped"]["mean"] == pytest.approx(
        figures["adapted"]["mean"] - figures["shipped"]["mean"]
    )


def test_the_tables_tell_it(result):
    about = {"cpu": "a CPU", "cores": 2, "threads": 1, "versions": {"pyiqa": "1", "torch": "2"}}
    about |= {"command": "python -m benchmarks.adapting.adapting", "date": "2026-11-26", "draws": 2}
    text = adapting_tables.adapting(result | about)
    assert text.startswith("| ratings of the new generator |")
    assert f"| 20 | {result['mean']['20']['shipped']['mean']:.3f} |" in text
    assert "| other |" in adapting_tables.by_generator(result | about)
