"""What does the gate do: means of gate and shares on the test part, as a table and as a picture."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmarks.ablations.data import Data
from benchmarks.common.colours import OKABE_ITO
from pyiqa_ma_agiqa.experts import EXPERTS


def gate_and_shares(data: Data) -> pd.DataFrame:
    """Gate and shares of the shipped model for the test images, with generator and MOS."""
    rows = data.parts["test"]
    mixture = data.mixture(rows)
    table = pd.DataFrame({"generator": data.generators[rows], "mos": data.mos[rows]})
    for column, name in enumerate(EXPERTS):
        table[f"gate {name}"] = mixture.gate[:, column].numpy()
        table[f"share {name}"] = mixture.shares[:, column].numpy()
    return table


def by_group(table: pd.DataFrame) -> pd.DataFrame:
    """Mean gate and share of each expert by generator and by tenth of the MOS, the lowest first."""
    columns = [column for column in table if column.startswith(("gate ", "share "))]
    tenth = pd.qcut(table["mos"].rank(method="first"), 10, labels=[str(number) for number in range(1, 11)])
    keys = {"generator": table["generator"], "MOS tenth": tenth}
    grouped = {kind: table.groupby(key, observed=True)[columns] for kind, key in keys.items()}
    means = {
        kind: group.mean().assign(images=group.size()).rename_axis("group") for kind, group in grouped.items()
    }
    return pd.concat(means, names=["kind"]).reset_index()


def draw_gate(groups: pd.DataFrame) -> Figure:
    """Mean shares of the experts, and the gate that they include, by generator and by tenth of the MOS."""
    figure, grid = plt.subplots(2, 2, figsize=(11, 6.5), layout="constrained", sharex="col", sharey="row")
    for column, (kind, part) in enumerate(groups.groupby("kind", sort=False)):
        place = np.arange(len(part))
        for row, (measure, centre) in enumerate((("share", 0.0), ("gate", 1.0))):
            axes = grid[row, column]
            for expert, name in enumerate(EXPERTS):
                heights = part[f"{measure} {name}"] - centre
                offset = place + (expert - 1) * 0.27
                axes.bar(offset, heights, 0.25, bottom=centre, color=OKABE_ITO[expert], label=name)
            axes.axhline(centre, color="0.3", linewidth=1)
            axes.spines[["top", "right"]].set_visible(False)
        turned = {"rotation": 45, "ha": "right"} if kind == "generator" else {}
        grid[1, column].set_xticks(place, part["group"], **turned)
        grid[1, column].set_xlabel(f"{kind}, lowest first" if kind == "MOS tenth" else kind)
    grid[0, 0].set_ylabel("mean share of the score")
    grid[1, 0].set_ylabel("mean gate (1: no change)")
    grid[0, 0].legend(frameon=False)
    return figure
