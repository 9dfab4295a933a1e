"""The words and figures of an explanation, the same on the picture and on the page."""

from __future__ import annotations

import math

import numpy as np

from ..explanation import Explanation
from ..reference_scores import PERCENTS, reference_scores

SCALE = (0, 5)
"""Ends of the MOS scale as drawn."""
COLUMNS = 25
COLUMN_WIDTH = 0.86
MINUS = "\u2212"
_FLAT = 0.005
"""A map whose range is below half a unit of the last digit shown counts as the same everywhere."""


def signed(value: float) -> str:
    """A share with two decimals and its sign, which zero has not."""
    return _signed(round(100 * value))


def _signed(hundredths: int) -> str:
    sign = "" if hundredths == 0 else "+" if hundredths > 0 else MINUS
    return f"{sign}{abs(hundredths) / 100:.2f}"


def sum_as_shown(explanation: Explanation) -> tuple[str, dict[str, str]]:
    """Score and shares with two decimals, rounded so that the shares shown sum to the score shown.

    The score is rounded as usual. Shares are rounded down, and those with the largest remainders up,
    as many as the sum asks for; none is off by a whole unit of the last digit.
    """
    total = round(100 * explanation.score)
    units = {name: math.floor(100 * share) for name, share in explanation.shares.items()}
    by_remainder = sorted(units, key=lambda name: units[name] - 100 * explanation.shares[name])
    for name in by_remainder[: total - sum(units.values())]:
        units[name] += 1
    score = f"{MINUS if total < 0 else ''}{abs(total) / 100:.2f}"
    return score, {name: _signed(value) for name, value in units.items()}


def standing(explanation: Explanation) -> str | None:
    """Where the score stands among the reference predictions; None where there are none."""
    if explanation.percentile is None:
        return None
    reference = reference_scores()
    which = f"{reference.images} predictions of ma_agiqa for {reference.dataset}"
    if explanation.score < reference.quantiles[0]:
        return f"lower than all {which}"
    if explanation.score > reference.quantiles[-1]:
        return f"higher than all {which}"
    return f"percentile {whole_percentile(explanation.percentile)} among the {which}"


def whole_percentile(percentile: float) -> int:
    """Between 1 and 99, since 0 and 100 would say "none" and "all" of a score that lies between them."""
    return min(max(round(percentile), 1), 99)


def spread() -> tuple[np.ndarray, np.ndarray]:
    """Edges (26,) of columns along the scale, and the percentage (25,) of reference predictions in each."""
    edges = np.linspace(*SCALE, COLUMNS + 1)
    below = np.interp(edges, reference_scores().quantiles, PERCENTS, left=0, right=100)
    return edges, np.diff(below)


def map_in_words(quality_map: np.ndarray) -> str:
    """What the map shows, for those who do not see it."""
    low, high = float(quality_map.min()), float(quality_map.max())
    if high - low < _FLAT:
        return f"about {signed(low)} everywhere"
    return (
        f"from {signed(low)}, lowest in the {_place(quality_map, int(quality_map.argmin()))}, "
        f"to {signed(high)}, highest in the {_place(quality_map, int(quality_map.argmax()))}"
    )


def _place(quality_map: np.ndarray, index: int) -> str:
    height, width = quality_map.shape
    row, column = divmod(index, width)
    vertical = ("upper", "middle", "lower")[3 * row // height]
    horizontal = ("left", "centre", "right")[3 * column // width]
    return "centre" if (vertical, horizontal) == ("middle", "centre") else f"{vertical} {horizontal}"
