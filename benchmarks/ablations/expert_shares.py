"""Draws expert_shares.png beside itself: what each expert adds to the scores of examples/.

python -m benchmarks.ablations.expert_shares
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.common.colours import OKABE_ITO
from benchmarks.common.metrics import create
from benchmarks.common.places import ROOT
from pyiqa_ma_agiqa.experts import EXPERTS


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
    parser.add_argument("--images", type=Path, nargs="+", help="default: those of examples/")
    parser.add_argument("--weights", type=Path, help="weights of another training run")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"))
    options = parser.parse_args()
    examples = (
        path for path in (ROOT / "examples").iterdir() if path.suffix.lower() in {".png", ".jpg", ".jpeg"}
    )
    figure = expert_shares(options.images or sorted(examples), options.weights)
    figure.savefig(options.out, dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    main()
