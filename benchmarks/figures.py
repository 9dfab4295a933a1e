"""Draws docs/predicted_vs_mos.png, of the result files, and docs/expert_shares.png, of examples/.

python benchmarks/figures.py
"""

from __future__ import annotations

import argparse
import json
from itertools import cycle
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from machine import RESULTS
from matplotlib.figure import Figure
from PIL import Image
from scoring import create

from pyiqa_ma_agiqa.experts import EXPERTS

ROOT = Path(__file__).resolve().parent.parent
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Colours that the colour-blind tell apart (Okabe and Ito, 2008)."""
MARKERS = ("o", "^", "s", "D")


def predicted_vs_mos(results: Path) -> Figure:
    """Scatter of the official test part: colour by model, marker by its setting."""
    scores = pd.read_csv(results / "scores_ma_agiqa_official.csv")
    result = json.loads((results / "accuracy_ma_agiqa_official.json").read_text(encoding="utf-8"))
    figure, axes = plt.subplots(figsize=(7.5, 5.5), layout="constrained")
    models = scores["generator"].str.partition("_")[0]
    colours = dict(zip(models.sort_values().unique(), cycle(OKABE_ITO)))
    used: dict[str, int] = {}
    for name, group in scores.groupby("generator"):
        model, _, setting = str(name).partition("_")
        marker = MARKERS[used.get(model, 0) % len(MARKERS)]
        used[model] = used.get(model, 0) + 1
        axes.scatter(
            group["score"],
            group["mos"],
            s=20,
            marker=marker,
            color=colours[model],
            alpha=0.75,
            linewidths=0,
            label=f"{model}, {setting}",
        )
    limits = [
        min(scores["score"].min(), scores["mos"].min()),
        max(scores["score"].max(), scores["mos"].max()),
    ]
    axes.plot(limits, limits, color="0.5", linewidth=1, linestyle="--", zorder=0)
    axes.set(xlabel="predicted score", ylabel="mean opinion score", aspect="equal")
    agreement = {name: result["agreement"][name]["value"] for name in ("srcc", "plcc")}
    axes.set_title(
        f"AGIQA-3K, official test part, {result['images']} images: "
        f"SRCC {agreement['srcc']:.3f}, PLCC {agreement['plcc']:.3f}",
        fontsize="medium",
    )
    figure.legend(loc="outside right center", frameon=False, title="generator")
    return figure


def expert_shares(paths: list[Path], weights: Path | None = None) -> Figure:
    """For each image: the image, its quality map laid over it, and each expert's share of the score."""
    metric = create("ma_agiqa", weights)
    parts = []
    for path in paths:
        output = metric(str(path), return_parts=True)
        parts.append({name: value[0].numpy() for name, value in output.items()})
    maps = [part["quality_map"] for part in parts]
    low, high = min(values.min() for values in maps), max(values.max() for values in maps)
    shares = np.stack([part["shares"] for part in parts])
    figure, grid = plt.subplots(
        len(paths), 3, figsize=(9.5, 2.7 * len(paths)), layout="constrained", squeeze=False
    )
    for row, (path, part) in enumerate(zip(paths, parts, strict=True)):
        with Image.open(path) as file:
            image = np.asarray(file.convert("RGB"))
        height, width = image.shape[:2]
        plain, laid, bars = grid[row]
        plain.imshow(image)
        plain.set_title(path.name, fontsize="medium")
        laid.imshow(image.mean(2), cmap="gray", vmin=0, vmax=255)
        shown = laid.imshow(
            part["quality_map"],
            cmap="viridis",
            vmin=low,
            vmax=high,
            alpha=0.6,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            interpolation="nearest",
        )
        for axes in (plain, laid):
            axes.set_axis_off()
        figure.colorbar(shown, ax=laid, label="share of quality, by patch")
        drawn = bars.barh(EXPERTS, part["shares"], color=OKABE_ITO[: len(EXPERTS)])
        bars.bar_label(drawn, fmt="%+.2f", padding=3)
        bars.axvline(0, color="0.3", linewidth=1)
        room = 0.25 * max(float(np.ptp(np.append(shares, 0))), 1e-3)
        bars.set_xlim(min(shares.min(), 0) - room, max(shares.max(), 0) + room)
        bars.invert_yaxis()
        bars.spines[["top", "right", "left"]].set_visible(False)
        bars.tick_params(axis="y", length=0)
        bars.set_title(f"score {part['score'].item():.2f} = sum of shares", fontsize="medium")
    return figure


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--images", type=Path, nargs="+", help="default: those of examples/")
    parser.add_argument("--weights", type=Path, help="weights of another training run")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    options = parser.parse_args()
    examples = (
        path for path in (ROOT / "examples").iterdir() if path.suffix.lower() in {".png", ".jpg", ".jpeg"}
    )
    images = options.images or sorted(examples)
    options.out.mkdir(parents=True, exist_ok=True)
    drawn = {
        "predicted_vs_mos": predicted_vs_mos(options.results),
        "expert_shares": expert_shares(images, options.weights),
    }
    for name, figure in drawn.items():
        figure.savefig(options.out / f"{name}.png", dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    main()
