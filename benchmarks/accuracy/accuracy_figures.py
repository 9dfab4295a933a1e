"""What `accuracy.py` measured, as pictures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.common.colours import OKABE_ITO
from benchmarks.common.statistics_of_scores import logistic_parameters, mapped

MARKERS = ("o", "^", "s", "D", "v", "P", "X")
LABELLED = 16
"""Generators that a legend can hold."""


def styles(generators: list[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each generator: colour by what stands before the first underscore."""
    models = sorted({name.partition("_")[0] for name in generators})
    colours = {model: OKABE_ITO[place % len(OKABE_ITO)] for place, model in enumerate(models)}
    used: dict[str, int] = {}
    chosen = {}
    for name in sorted(generators):
        model = name.partition("_")[0]
        chosen[name] = colours[model], MARKERS[used.get(model, 0) % len(MARKERS)]
        used[model] = used.get(model, 0) + 1
    return chosen


def scatter(axes: Axes, scores: pd.DataFrame, metric: str) -> None:
    """MOS over predicted score by generator, with the fitted logistic."""
    chosen = styles(list(scores["generator"].unique()))
    for name, group in scores.groupby("generator"):
        colour, marker = chosen[str(name)]
        axes.scatter(
            group[metric],
            group["mos"],
            s=16,
            marker=marker,
            color=colour,
            alpha=0.7,
            linewidths=0,
            label=str(name).replace("_", ", "),
        )
    values, mos = scores[metric].to_numpy(float), scores["mos"].to_numpy(float)
    order = np.argsort(values)
    fitted = mapped(values, mos, logistic_parameters(values, mos))
    axes.plot(values[order], fitted[order], color="0.3", linewidth=1)
    axes.set(xlabel=f"{metric}, predicted score", ylabel="mean opinion score")


def predicted_vs_mos(scores: pd.DataFrame, metrics: list[str], title: str = "") -> Figure:
    """A panel for each metric; one legend of the generators."""
    columns = min(3, len(metrics))
    rows = math.ceil(len(metrics) / columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(2.2 + 4.6 * columns, 4.4 * rows), layout="constrained", squeeze=False
    )
    for axes, metric in zip(grid.flat, metrics, strict=False):
        scatter(axes, scores, metric)
    for axes in grid.flat[len(metrics) :]:
        axes.set_axis_off()
    handles, labels = grid.flat[0].get_legend_handles_labels()
    if 1 < len(labels) <= LABELLED:
        figure.legend(handles, labels, loc="outside right center", frameon=False, title="generator")
    if title:
        figure.suptitle(title, fontsize="medium")
    return figure


def bars(result: dict[str, Any]) -> Figure:
    """SRCC and PLCC of each measured metric with their intervals."""
    entries = {name: entry["agreement"] for name, entry in result["metrics"].items() if entry["measured"]}
    figure, axes = plt.subplots(figsize=(7.5, 0.9 + 0.6 * len(entries)), layout="constrained")
    places = np.arange(len(entries))
    for shift, key, colour in ((-0.2, "srcc", OKABE_ITO[0]), (0.2, "plcc", OKABE_ITO[4])):
        values = np.array(
            [[entry[key][side] for side in ("value", "low", "high")] for entry in entries.values()]
        )
        middle, low, high = np.nan_to_num(values.astype(float)).T
        reach = np.maximum([middle - low, high - middle], 0)
        axes.barh(places + shift, middle, 0.36, xerr=reach, color=colour, label=key.upper())
    axes.set_yticks(places, list(entries))
    axes.invert_yaxis()
    axes.set_xlabel(f"agreement with MOS, {result['images']} images, 95 % intervals")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", frameon=False, ncols=2)
    return figure


def heat_map(result: dict[str, Any]) -> Figure:
    """SRCC between the scores of every two metrics."""
    names = list(result["rank_agreement"])
    values = np.array([[result["rank_agreement"][row][column] for column in names] for row in names], float)
    side = 2.5 + 0.7 * len(names)
    figure, axes = plt.subplots(figsize=(side + 1, side), layout="constrained")
    shown = axes.imshow(values, cmap="RdBu", vmin=-1, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    for row in range(len(names)):
        for column in range(len(names)):
            value = values[row, column]
            colour = "white" if abs(value) > 0.6 else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize="small")
    figure.colorbar(shown, ax=axes, label="SRCC between metrics", shrink=0.8)
    return figure


def draw_all(result: dict[str, Any], scores: pd.DataFrame, folder: Path) -> None:
    """Save the pictures of a run; none where nothing was measured."""
    metrics = [name for name, entry in result["metrics"].items() if entry["measured"]]
    if not metrics:
        return
    drawn = {
        "predicted_vs_mos": predicted_vs_mos(scores, metrics),
        "agreement": bars(result),
        "rank_agreement": heat_map(result),
    }
    for name, figure in drawn.items():
        save(figure, folder / f"{name}.png")


def save(figure: Figure, path: Path) -> None:
    """Write a picture that is the same bytes for the same content, and close it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
