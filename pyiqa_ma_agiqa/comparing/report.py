"""A comparison as text for people and as JSON for programs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..names import printable, unescape
from .comparison import RESAMPLES, SEED, Comparison, Estimate
from .pairing import Matching
from .score_sets import ScoreSet

NAMED = 5
"""Images of a kind that are named in the text; the JSON has all."""


class Result(NamedTuple):
    """All that there is to tell.

    Attributes:
        a: one side.
        b: the other side.
        metric: of both; empty where neither side says it.
        lower_better: whether lower scores are better; None where that is not known, and higher ones count
            as better.
        matching: which images belong together.
        comparison: the figures.
    """

    a: ScoreSet
    b: ScoreSet
    metric: str
    lower_better: bool | None
    matching: Matching
    comparison: Comparison


def as_text(result: Result) -> str:
    """The comparison for people."""
    a, b, matching, figures = result.a, result.b, result.matching, result.comparison
    lines = [
        direction(result),
        f"A  {printable(a.source)}: {_count(a)}, mean {_with_interval(figures.mean_a)}{_strangers(a)}",
        f"B  {printable(b.source)}: {_count(b)}, mean {_with_interval(figures.mean_b)}{_strangers(b)}",
        *(f"note: {note}" for note in notes(result)),
        "",
    ]
    if figures.paired_means:
        lines += [
            f"B - A ({figures.pairs} pairs of the same {matching.by})",
            f"  mean of A      {_with_interval(figures.paired_means[0])}",
            f"  mean of B      {_with_interval(figures.paired_means[1])}",
        ]
    else:
        fewer = min(len(a.paths), len(b.paths))
        lines.append(f"B - A (separate sets: {matching.matched} of {fewer} names match, less than half)")
    lines += [
        f"  difference     {_with_interval(figures.difference, '+.3f')}",
        f"  win rate of B  {_with_interval(figures.win_rate)}",
        "",
        f"in brackets: 95 % bootstrap intervals, {RESAMPLES} resamples of the images",
    ]
    for side, other, scores, alone, ambiguous in _by_side(result):
        for rows, why in (
            (alone, f"without partner in {other}"),
            (ambiguous, "with a name that comes more than once"),
        ):
            first = [_name(scores.paths[row]) for row in rows[:NAMED]]
            lines += _listed(f"in no pair of {side}: {len(rows)} {why}", first, len(rows))
        first = [f"{_name(path)}: {printable(reason)}" for path, reason in scores.failures[:NAMED]]
        lines += _listed(f"without score in {side}: {len(scores.failures)}", first, len(scores.failures))
    return "\n".join(lines)


def direction(result: Result) -> str:
    """The metric, and which of its scores are better."""
    better = {None: "higher counts as better", False: "higher is better", True: "lower is better"}
    return f"{printable(result.metric) or 'metric unknown'}: {better[result.lower_better]}"


def notes(result: Result) -> list[str]:
    """What makes the comparison less certain than its figures look, a line each."""
    found = []
    for scores in (result.a, result.b):
        source = printable(scores.source)
        if not any(origin.metric for origin in scores.origins):
            taken = f"taken to be {printable(result.metric)}" if result.metric else "higher counts as better"
            found.append(f"{source} does not say its metric, {taken}")
        twice = len(scores.paths) - len(set(scores.paths))
        if twice:
            found.append(f"{source} has {twice} scores of images that it has already; the mean counts each")
        if 2 * (scores.unfamiliar or 0) > len(scores.scores):
            found.append(
                f"most images of {source} are unlike the training images: {result.metric} may be off by the "
                "same for all of them, which no interval of a mean tells"
            )
    if result.metric and result.lower_better is None:
        found.append(f"pyiqa has no metric {printable(result.metric)}, higher counts as better")
    versions = {version: None for scores in (result.a, result.b) for version in _versions(scores)}
    if len(versions) > 1:
        listed = ", ".join(printable(version) for version in versions)
        found.append(f"scored by several versions ({listed}); to be sure, score both sides with one")
    return found


def _by_side(result: Result) -> Iterator[tuple[str, str, ScoreSet, np.ndarray, np.ndarray]]:
    """Letters of the side and of the other one, its scores, its rows without partner, and the ambiguous."""
    matching = result.matching
    yield "A", "B", result.a, matching.without_partner[0], matching.ambiguous[0]
    yield "B", "A", result.b, matching.without_partner[1], matching.ambiguous[1]


def _listed(title: str, first: list[str], count: int) -> list[str]:
    """A title with the first few of what it counts; nothing where there are none."""
    if not count:
        return []
    more = [f"  and {count - NAMED} more; --json lists all"] if count > NAMED else []
    return ["", title, *(f"  {line}" for line in first), *more]


def _name(path: str) -> str:
    return printable(unescape(path))


def _count(scores: ScoreSet) -> str:
    failed = f" and {len(scores.failures)} without score" if scores.failures else ""
    return f"{len(scores.scores)} images{failed}"


def _strangers(scores: ScoreSet) -> str:
    count = scores.unfamiliar
    return "" if count is None else f"; {count} unlike the training images"


def _with_interval(estimate: Estimate, form: str = ".3f") -> str:
    # Adding 0 takes the sign from what is rounded to -0.
    value, low, high = (f"{round(number, 3) + 0.0:{form}}" for number in estimate)
    return f"{value} [no interval: one image]" if math.isnan(estimate.low) else f"{value} [{low}, {high}]"


def as_json(result: Result) -> dict[str, Any]:
    """The comparison for programs; the keys are stable, null is what does not exist or is not known."""
    figures = result.comparison
    sides = {
        side.lower(): {
            "source": printable(scores.source),
            "images": len(scores.scores),
            "mean": _plain(mean),
            "unfamiliar": scores.unfamiliar,
            "versions": _versions(scores),
            "failures": [{"path": path, "error": reason} for path, reason in scores.failures],
            "without_partner": [scores.paths[row] for row in alone],
            "ambiguous": [scores.paths[row] for row in ambiguous],
        }
        for (side, _, scores, alone, ambiguous), mean in zip(
            _by_side(result), (figures.mean_a, figures.mean_b), strict=True
        )
    }
    paired = figures.paired_means
    weights = {origin.weights for scores in (result.a, result.b) for origin in scores.origins}
    return {
        **sides,
        "metric": result.metric or None,
        "weights": max(weights) or None,
        "lower_better": result.lower_better,
        "pairs": figures.pairs,
        "paired_by": result.matching.by if paired else None,
        "paired_means": {"a": _plain(paired[0]), "b": _plain(paired[1])} if paired else None,
        "difference": _plain(figures.difference),
        "win_rate": _plain(figures.win_rate),
        "resamples": RESAMPLES,
        "seed": SEED,
        "notes": notes(result),
    }


def _versions(scores: ScoreSet) -> list[str]:
    return list(dict.fromkeys(origin.version for origin in scores.origins if origin.version))


def _plain(estimate: Estimate) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in estimate._asdict().items()}
