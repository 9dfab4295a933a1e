"""The words and figures of an explanation, the same on the picture and on the page."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..compact.reference_scores import PERCENTS, reference_scores
from ..compact.unfamiliar import UNFAMILIAR
from .explanation import Explanation

SCALE = (0, 5)
"""Ends of the MOS scale as drawn."""
COLUMNS = 25
COLUMN_WIDTH = 0.86
MINUS = "\u2212"
SELDOM = 0.25
"""Below this familiarity, three in four known images are more familiar."""
OPENNESS = ((0.9, "open"), (0.5, "mostly open"), (0.1, "mostly closed"), (-math.inf, "closed"))
"""From which gate on an expert is called so."""
_FLAT = 0.005
"""A map whose range is below half a unit of the last digit shown counts as the same everywhere."""


def signed(value: float) -> str:
    """A share with two decimals and its sign, which zero has not."""
    return _signed(round(100 * value))


def _signed(hundredths: int) -> str:
    sign = "" if hundredths == 0 else "+" if hundredths > 0 else MINUS
    return f"{sign}{abs(hundredths) / 100:.2f}"


class Sum(NamedTuple):
    """A score and what it is the sum of, as text with two decimals; `typical` is None without reference."""

    score: str
    typical: str | None
    parts: dict[str, str]


def parts_of(explanation: Explanation) -> dict[str, float]:
    """What is shown of each expert: its difference from the typical share, or its share without reference."""
    return explanation.shares if explanation.differences is None else explanation.differences


def map_of(explanation: Explanation) -> np.ndarray:
    """What is shown by patch: as for the experts."""
    difference = explanation.difference_map
    return explanation.quality_map if difference is None else difference


def sum_as_shown(explanation: Explanation) -> Sum:
    """Score and parts with two decimals, rounded so that what is shown sums to the score shown.

    Score and typical score are rounded as usual. Parts are rounded down, and those with the largest
    remainders up, as many as the sum asks for; none is off by a whole unit of the last digit.
    """
    parts = parts_of(explanation)
    total = round(100 * explanation.score)
    typical = round(100 * (explanation.typical or 0))
    units = {name: math.floor(100 * part) for name, part in parts.items()}
    by_remainder = sorted(units, key=lambda name: units[name] - 100 * parts[name])
    for name in by_remainder[: total - typical - sum(units.values())]:
        units[name] += 1
    return Sum(
        _plain(total),
        None if explanation.typical is None else _plain(typical),
        {name: _signed(value) for name, value in units.items()},
    )


def _plain(hundredths: int) -> str:
    return f"{MINUS if hundredths < 0 else ''}{abs(hundredths) / 100:.2f}"


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


def expected(explanation: Explanation) -> str | None:
    """The interval in words, its ends rounded outwards; None where there is none."""
    if explanation.interval is None:
        return None
    low, high = explanation.interval
    ends = _tenths(math.floor(10 * low)), _tenths(math.ceil(10 * high))
    return f"90 % of people's means within {ends[0]} to {ends[1]}"


def _tenths(tenths: int) -> str:
    return f"{MINUS if tenths < 0 else ''}{abs(tenths) / 10:.1f}"


def acquaintance(explanation: Explanation) -> str | None:
    """How familiar the image is, and what the gate makes of it; None where that is not known."""
    familiarity = explanation.familiarity
    if familiarity is None:
        return None
    stranger = f"{100 * familiarity:.0f} % of known images are stranger"
    if is_unfamiliar(explanation):
        alike = "unlike the training images"
        stranger = "fewer than one known image in twenty is stranger"
    else:
        seldom = familiarity < SELDOM
        alike = "less familiar than most known images" if seldom else "like the training images"
    return f"{alike} ({stranger}): the quality expert is {openness(explanation.gate['quality'])}"


def is_unfamiliar(explanation: Explanation) -> bool:
    """Whether the image is told to be unlike the training images."""
    return explanation.familiarity is not None and explanation.familiarity < UNFAMILIAR


def openness(gate: float) -> str:
    """A gate from 0 to 1 in words."""
    return next(word for least, word in OPENNESS if gate >= least)


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
