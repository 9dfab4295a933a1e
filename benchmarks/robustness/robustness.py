"""Does the score fall steadily as an image gets worse, and what do size and shape do to it?

    python -m benchmarks.robustness.robustness

On photographs: the colour ones of everyday subjects that the wheel of scikit-image carries (its
others show tissue, a retina or stars). On generated images: of each generator of AGIQA-3K the image
of the official test part with the highest MOS, where the folder is there. Every degradation has
eight levels, the untouched image the first. Downscaling is done twice: scaled back up, and left
small. Writes robustness.json and robustness.png beside itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import spearmanr
from skimage import data
from tqdm import tqdm

from benchmarks.common.agiqa3k import DEFAULT_DATA, generator
from benchmarks.common.colours import OKABE_ITO
from benchmarks.common.degraded_series import KINDS, LEVELS, STEADY, is_steady
from benchmarks.common.machine import circumstances, write_json
from benchmarks.common.metrics import create, oriented, tensor, weights_sha256

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "stereo_motorcycle")
SCALES = (0.5, 0.75, 1.0, 1.5, 2.0)
ASPECTS = (1 / 3, 1 / 2, 9 / 16, 3 / 4, 1.0, 4 / 3, 16 / 9, 2.0, 3.0)
"""Width over height of central crops."""


def photograph(name: str) -> np.ndarray:
    """(H, W, 3) uint8; of the stereo pair the left one."""
    image = getattr(data, name)()
    return image[0] if isinstance(image, tuple) else image


def generated(folder: Path) -> dict[str, np.ndarray]:
    """Of each generator of AGIQA-3K the official test image with the highest MOS, (H, W, 3) uint8."""
    table = pd.read_csv(folder / "data.csv").merge(pd.read_csv(folder / "splits.csv"), on="name")
    table = table[table["official"] == "test"]
    best = table.loc[table.groupby(table["name"].map(generator))["mos_quality"].idxmax()]
    images = {}
    for name in best["name"]:
        with Image.open(folder / "images" / name) as file:
            images[generator(name)] = np.array(file.convert("RGB"))
    return images


def resized(image: np.ndarray, factor: float) -> np.ndarray:
    """The whole image at another size."""
    kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=kind)


def cropped(image: np.ndarray, aspect: float) -> np.ndarray:
    """The largest central crop of an aspect ratio (width over height)."""
    height, width = image.shape[:2]
    wide, high = min(width, round(height * aspect)), min(height, round(width / aspect))
    top, left = (height - high) // 2, (width - wide) // 2
    return image[top : top + high, left : left + wide]


def levels(metric: torch.nn.Module, name: str, image: np.ndarray) -> pd.DataFrame:
    """Scores of an image at every level of every degradation, one row each."""
    clean = oriented(metric, tensor(image))
    rows = []
    for kind, degrade in KINDS.items():
        rng = np.random.default_rng(0)
        rows.append({"photo": name, "kind": kind, "level": 0, "score": clean})
        for level, strength in enumerate(np.linspace(0, 1, LEVELS - 1), start=1):
            value = oriented(metric, tensor(degrade(image, float(strength), rng)))
            rows.append({"photo": name, "kind": kind, "level": level, "score": value})
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation of level and score, and the scores, for each pair of image and degradation."""
    rows = []
    for (photo, kind), pair in table.groupby(["photo", "kind"], sort=False):
        scores = pair.sort_values("level")["score"].tolist()
        # Of a constant score the rank correlation is undefined: the score did not react.
        correlation = float(spearmanr(range(len(scores)), scores)[0]) if len(set(scores)) > 1 else 0.0
        rows.append({"photo": photo, "kind": kind, "rank_correlation": correlation, "scores": scores})
    pairs = pd.DataFrame(rows)
    pairs["steady"] = is_steady(pairs["rank_correlation"])
    return pairs


def measure(metric: torch.nn.Module, images: dict[str, np.ndarray], label: str) -> dict[str, Any]:
    """Scores of the images by degradation, size and aspect ratio."""
    pairs = summary(pd.concat([levels(metric, name, image) for name, image in tqdm(images.items(), label)]))
    return {
        "pairs": len(pairs),
        "steady_pairs": int(pairs["steady"].sum()),
        "by_kind": {
            kind: {
                "pairs": len(group),
                "steady_pairs": int(group["steady"].sum()),
                "highest_rank_correlation": float(group["rank_correlation"].max()),
            }
            for kind, group in pairs.groupby("kind", sort=False)
        },
        "by_pair": pairs.to_dict("records"),
        "score_by_scale": {
            name: {f"{factor:g}": oriented(metric, tensor(resized(image, factor))) for factor in SCALES}
            for name, image in images.items()
        },
        "score_by_aspect": {
            name: {f"{aspect:.3g}": oriented(metric, tensor(cropped(image, aspect))) for aspect in ASPECTS}
            for name, image in images.items()
        },
    }


def draw(measured: dict[str, dict[str, Any]]) -> Figure:
    """Score against level, a column for each degradation, a row for each kind of image."""
    figure, grid = plt.subplots(
        len(measured),
        len(KINDS),
        figsize=(2.3 * len(KINDS), 2.6 * len(measured)),
        layout="constrained",
        sharey=True,
        squeeze=False,
    )
    for axes_row, (title, result) in zip(grid, measured.items(), strict=True):
        for axes, kind in zip(axes_row, KINDS, strict=True):
            pairs = [pair for pair in result["by_pair"] if pair["kind"] == kind]
            for pair in pairs:
                axes.plot(pair["scores"], color="0.7", linewidth=1)
            axes.plot(np.mean([pair["scores"] for pair in pairs], 0), color=OKABE_ITO[0], linewidth=2)
            axes.set_title(kind, fontsize="small")
            axes.spines[["top", "right"]].set_visible(False)
        axes_row[0].set_ylabel(f"score, {title}")
    for axes in grid[-1]:
        axes.set_xlabel("level, 0: untouched")
    return figure


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--metric", default="ma_agiqa", help="a no-reference metric of pyiqa")
    parser.add_argument("--weights", type=Path, help="weights of another training run")
    parser.add_argument("--photos", nargs="+", choices=PHOTOS, default=PHOTOS)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of AGIQA-3K (or $AGIQA3K)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()

    metric = create(options.metric, options.weights)
    photos = {name: photograph(name) for name in options.photos}
    result = {
        "metric": options.metric,
        "steady_means": f"rank correlation of level and score <= {STEADY}",
        **measure(metric, photos, "photographs"),
    }
    measured = {"photographs": result}
    if (options.data / "data.csv").is_file():
        result["generated"] = measure(metric, generated(options.data), "generated images")
        measured["generated images"] = result["generated"]
    else:
        print(f"{options.data}: no AGIQA-3K there, generated images are left out")
    result |= weights_sha256(metric, options.weights) | circumstances()
    write_json(options.out / "robustness.json", result)
    draw(measured).savefig(options.out / "robustness.png", dpi=110, metadata={"Software": None})
    for title, part in measured.items():
        print(f"{title}: {part['steady_pairs']} of {part['pairs']} pairs are steady")


if __name__ == "__main__":
    main()
