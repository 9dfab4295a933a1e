"""A comparison as a picture: how both sides' scores are spread, and the differences of pairs."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..names import printable
from .comparison import Comparison, Estimate
from .report import Result, direction
from .score_sets import ScoreSet

COLOURS = ("#6E6E6E", "#0072B2")
BINS = 30
NARROWEST = 0.1
"""Least width of what all bins cover."""
LONGEST_NAME = 40


def save_plot(result: Result, path: Path) -> None:
    """Write the PNG.

    Raises:
        OSError: it cannot be written.
    """
    comparison = result.comparison
    panels = 2 if comparison.pairs else 1
    figure = Figure(figsize=(5 * panels + 1, 4), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _spread(axes[0], [result.a, result.b], [comparison.mean_a, comparison.mean_b])
    axes[0].set_xlabel(f"{_plain(direction(result))}\nlines: means of all, bands: their 95 % intervals")
    if comparison.pairs:
        _differences(axes[1], comparison)
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_ylabel("images" if panel is axes[0] else "pairs")
        panel.yaxis.get_major_locator().set_params(integer=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names may be in any script
        figure.savefig(path, format="png", dpi=150, metadata={"Software": None})


def _spread(axes: Axes, sides: list[ScoreSet], means: list[Estimate]) -> None:
    edges = _edges(np.concatenate([side.scores for side in sides]))
    for letter, side, mean, colour in zip("AB", sides, means, COLOURS, strict=True):
        name = printable(side.source)
        name = name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}"
        label = _plain(f"{letter}  {name}\nmean {mean.value:.3f}")
        axes.hist(side.scores, edges, histtype="stepfilled", alpha=0.45, color=colour, label=label)
        _mark(axes, mean, colour)
    axes.legend(frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)


def _plain(text: str) -> str:
    """The text with no sign that would begin a formula."""
    return text.replace("$", r"\$")


def _differences(axes: Axes, comparison: Comparison) -> None:
    axes.hist(comparison.leads, _edges(comparison.leads), color=COLOURS[1], alpha=0.45)
    axes.axvline(0, color="0.3", linewidth=1)
    _mark(axes, comparison.difference, COLOURS[1])
    axes.set_xlabel("score of B minus score of A")
    axes.set_title(
        f"{comparison.pairs} pairs: mean {comparison.difference.value:+.3f}, "
        f"win rate of B {comparison.win_rate.value:.0%}",
        fontsize="medium",
    )


def _edges(values: np.ndarray) -> list[float]:
    """Edges of equal bins around all values, which may be all the same."""
    room = max(NARROWEST - float(np.ptp(values)), 0) / 2
    return np.linspace(values.min() - room, values.max() + room, BINS + 1).tolist()


def _mark(axes: Axes, estimate: Estimate, colour: str) -> None:
    """The mean as a line and its interval as a band."""
    axes.axvline(estimate.value, color=colour, linewidth=2)
    if not np.isnan(estimate.low):
        axes.axvspan(estimate.low, estimate.high, color=colour, alpha=0.25, linewidth=0)
