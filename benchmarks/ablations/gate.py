"""What does the gate of the quality expert do, by generator, by MOS and by familiarity?"""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmarks.common.colours import OKABE_ITO
from benchmarks.common.folds import Fold
from pyiqa_ma_agiqa.experts import EXPERTS
from pyiqa_ma_agiqa.training.data import Ratings

SHARES = [f"share {name}" for name in EXPERTS]


def gate_and_shares(ratings: Ratings, fold: Fold) -> pd.DataFrame:
    """Score, gate, familiarity and shares of a fold's test images, with generator and MOS."""
    table = fold.table[["score", "gate", "familiarity", *SHARES]]
    table = table.assign(generator=ratings.generators[fold.asked], mos=ratings.mos[fold.asked])
    return table[ratings.part[fold.asked] == "test"].reset_index(drop=True)


def by_group(table: pd.DataFrame) -> pd.DataFrame:
    """Means by generator and by tenth of the MOS, the lowest first."""
    tenth = pd.qcut(table["mos"].rank(method="first"), 10, labels=[str(number) for number in range(1, 11)])
    keys = {"generator": table["generator"], "MOS tenth": tenth}
    grouped = {
        kind: table.groupby(key, observed=True)[["gate", "familiarity", *SHARES]]
        for kind, key in keys.items()
    }
    means = {
        kind: group.mean().assign(images=group.size()).rename_axis("group") for kind, group in grouped.items()
    }
    return pd.concat(means, names=["kind"]).reset_index()


def draw_gate(table: pd.DataFrame) -> Figure:
    """Mean shares and gate by generator and by tenth of the MOS, and each image's gate by familiarity."""
    figure, grid = plt.subplots(2, 3, figsize=(14, 6.5), layout="constrained")
    for column, (kind, part) in enumerate(by_group(table).groupby("kind", sort=False)):
        place = np.arange(len(part))
        for expert, name in enumerate(EXPERTS):
            offset = place + (expert - 1) * 0.27
            grid[0, column].bar(offset, part[SHARES[expert]], 0.25, color=OKABE_ITO[expert], label=name)
        grid[1, column].bar(place, part["gate"], 0.6, color=OKABE_ITO[EXPERTS.index("quality")])
        grid[1, column].set_ylim(0, 1)
        grid[1, column].set_xlabel(f"{kind}, lowest first" if kind == "MOS tenth" else kind)
        for axes in grid[:, column]:
            axes.set_xticks(place, part["group"])
    grid[0, 0].legend(frameon=False)
    grid[0, 0].set_ylabel("mean share of the score")
    grid[1, 0].set_ylabel("mean gate of quality")
    quality = table[SHARES[EXPERTS.index("quality")]]
    for axes, values, label in zip(
        grid[:, 2], (quality, table["gate"]), ("share of quality", "gate of quality"), strict=True
    ):
        axes.plot(table["familiarity"], values, ".", color=OKABE_ITO[EXPERTS.index("quality")], alpha=0.5)
        axes.set_ylabel(label)
    grid[1, 2].set_xlabel("familiarity of an image")
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
    return figure
