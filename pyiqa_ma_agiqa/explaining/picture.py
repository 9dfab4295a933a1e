"""An explanation as one picture: the image, its map, the score on its scale and the shares."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from ..names import printable
from .explanation import Explanation
from .overlay import COLOURS, LESS, MORE, RAW, colour_limit, map_over_image
from .wording import (
    COLUMN_WIDTH,
    SCALE,
    acquaintance,
    expected,
    map_of,
    parts_of,
    spread,
    standing,
    sum_as_shown,
)

SIDES = (448, 1024)
LONGEST_NAME = 60


def save_picture(explanation: Explanation, name: str, path: Path) -> None:
    """Write the PNG.

    Args:
        explanation: of an image.
        name: what to call the image.
        path: of the PNG.

    Raises:
        OSError: it cannot be written.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names may be in any script
        _figure(explanation, name).savefig(path, format="png", dpi=150, metadata={"Software": None})


def _figure(explanation: Explanation, name: str) -> Figure:
    figure = Figure(figsize=(9, 7.2), layout="constrained")
    plain, laid, scale, bars = figure.subplots(2, 2, height_ratios=(2.1, 1)).flat
    _images(explanation, plain, laid)
    _scale(explanation, scale)
    _bars(explanation, bars)
    name = printable(name)
    shortened = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    figure.suptitle(shortened, fontweight="bold", parse_math=False)
    return figure


def _images(explanation: Explanation, plain: Axes, laid: Axes) -> None:
    image = Image.fromarray(explanation.image)
    image.thumbnail((SIDES[1], SIDES[1]), Image.Resampling.LANCZOS)
    plain.imshow(np.asarray(image))
    plain.set_title("the image as it was scored", fontsize="medium")
    laid.imshow(np.asarray(map_over_image(explanation, SIDES)))
    referred = explanation.typical is not None
    title = "quality by patch, against a typical share" if referred else "share of quality by patch"
    laid.set_title(title, fontsize="medium")
    for axes in (plain, laid):
        axes.set_axis_off()
    limit = colour_limit(map_of(explanation))
    colours = ScalarMappable(Normalize(-limit, limit), COLOURS)
    assert laid.figure is not None
    laid.figure.colorbar(colours, ax=laid, shrink=0.9)


def _scale(explanation: Explanation, axes: Axes) -> None:
    score = sum_as_shown(explanation).score
    if explanation.percentile is not None:
        edges, heights = spread()
        axes.bar(edges[:-1], heights, COLUMN_WIDTH * np.diff(edges), align="edge", color="0.78")
    if explanation.interval is not None:
        axes.axvspan(*np.clip(explanation.interval, *SCALE), color=MORE, alpha=0.2, linewidth=0)
    if explanation.typical is not None:
        axes.axvline(explanation.typical, color="0.4", linewidth=1.5, linestyle=(0, (3, 2)))
    axes.axvline(float(np.clip(explanation.score, *SCALE)), color="black", linewidth=2)
    axes.set_xlim(*SCALE)
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title(f"score {score}", fontweight="bold")
    within, known, place = expected(explanation), acquaintance(explanation), standing(explanation)
    lines = [
        "MOS scale of AGIQA-3K",
        f"shaded: {within}" if within else None,
        known.replace(" (", "\n(").replace(": ", ":\n") if known else None,
        place.replace(" for ", "\nfor ") if place else None,
    ]
    axes.set_xlabel("\n".join(filter(None, lines)), fontsize="small")


def _bars(explanation: Explanation, axes: Axes) -> None:
    score, typical, texts = sum_as_shown(explanation)
    values = np.array(list(parts_of(explanation).values()))
    colours = [RAW if typical is None else LESS if value < 0 else MORE for value in values]
    drawn = axes.barh(list(texts), values, color=colours)
    axes.bar_label(drawn, list(texts.values()), padding=3)
    axes.axvline(0, color="0.3", linewidth=1)
    room = 0.25 * max(float(np.ptp(np.append(values, 0))), 0.1)
    axes.set_xlim(min(values.min(), 0) - room * (values.min() < 0), max(values.max(), 0) + room)
    axes.invert_yaxis()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if typical is None:
        title = f"shares of the experts, sum {score}\n(no typical shares are known to hold them against)"
    else:
        title = f"against typical shares: {typical} and these make {score}"
    axes.set_title(title, fontsize="medium")
