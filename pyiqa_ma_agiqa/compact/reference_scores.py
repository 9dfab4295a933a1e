"""What is typical of ma_agiqa: its predictions for AGIQA-3K, which a score or a share is held against."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import nn

from ..experts import EXPERTS
from ..own_network import own_network

TABLE = Path(__file__).resolve().parent / "reference_scores.json"
"""Written by `benchmarks/accuracy/reference_scores.py`."""
METRIC = "ma_agiqa"
"""The one metric that has been run on the whole test part."""
PERCENTS = np.arange(101)


class ReferenceScores(NamedTuple):
    """Predictions of the shipped weights.

    Attributes:
        quantiles: (101,) of the scores, at 0, 1, ..., 100 %.
        shares: mean share of each expert.
        images: how many the predictions are of.
        dataset: the images they are of.
    """

    quantiles: np.ndarray
    shares: dict[str, float]
    images: int
    dataset: str

    @property
    def typical(self) -> float:
        """The mean score, which is the sum of the mean shares."""
        return sum(self.shares.values())


@functools.cache
def reference_scores() -> ReferenceScores:
    """The predictions of the shipped weights for the official test part of AGIQA-3K."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    shares = {name: table["shares"][name] for name in EXPERTS}
    return ReferenceScores(np.array(table["scores"]), shares, table["images"], table["of"])


def has_reference(metric: nn.Module) -> bool:
    """Whether the reference predictions are this metric's own: those of ma_agiqa with the shipped weights."""
    return bool(getattr(own_network(metric), "has_shipped_weights", False))


def percentile(score: float) -> float:
    """Percentage, 0 to 100, of the reference predictions that lie below a score."""
    return float(np.interp(score, reference_scores().quantiles, PERCENTS))


def differences(shares: dict[str, float]) -> dict[str, float]:
    """What each share has more, or less, than the mean share of its expert in the reference predictions."""
    typical = reference_scores().shares
    return {name: share - typical[name] for name, share in shares.items()}
