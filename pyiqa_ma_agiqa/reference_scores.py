"""Where a score of ma_agiqa stands among its predictions for AGIQA-3K."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

TABLE = Path(__file__).resolve().parent / "reference_scores.json"
"""Written by `benchmarks/reference_scores.py`."""
METRIC = "ma_agiqa"
"""The one metric that has been run on the whole test part."""
PERCENTS = np.arange(101)


class ReferenceScores(NamedTuple):
    """Quantiles (101,) of predictions, at 0, 1, ..., 100 %, and the images they are of."""

    quantiles: np.ndarray
    images: int
    dataset: str


@functools.cache
def reference_scores() -> ReferenceScores:
    """The predictions of the shipped weights for the official test part of AGIQA-3K."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    return ReferenceScores(np.array(table["scores"]), table["images"], table["of"])


def percentile(score: float) -> float:
    """Percentage, 0 to 100, of the reference predictions that lie below a score."""
    return float(np.interp(score, reference_scores().quantiles, PERCENTS))
