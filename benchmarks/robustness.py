"""Does the score fall steadily as a real photograph gets worse, and what do size and shape do to it?

    python benchmarks/robustness.py

The colour photographs of everyday subjects that the wheel of scikit-image carries (its others show
tissue, a retina or stars). Every degradation has eight levels, the untouched photograph the first.
Downscaling is done twice: scaled back up, and left small. Writes results/robustness.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from machine import RESULTS, circumstances, write_json
from scipy.stats import spearmanr
from scoring import create, oriented, tensor, weights_sha256
from skimage import data
from tqdm import tqdm

from pyiqa_ma_agiqa.degradations import DEGRADATIONS

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "stereo_motorcycle")
LEVELS = 8
STEADY = -0.9
"""A pair of photograph and degradation is steady at this rank correlation or below."""
SCALES = (0.5, 0.75, 1.0, 1.5, 2.0)
ASPECTS = (1 / 3, 1 / 2, 9 / 16, 3 / 4, 1.0, 4 / 3, 16 / 9, 2.0, 3.0)
"""Width over height of central crops."""


def photograph(name: str) -> np.ndarray:
    """(H, W, 3) uint8; of the stereo pair the left one."""
    image = getattr(data, name)()
    return image[0] if isinstance(image, tuple) else image


def left_small(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Area downscaling by 1.5 to 8, as `degradations.downscale`, but not scaled back."""
    factor = 1.5 + 6.5 * strength
    height, width = image.shape[:2]
    size = (max(16, round(width / factor)), max(16, round(height / factor)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def resized(image: np.ndarray, factor: float) -> np.ndarray:
    """The whole photograph at another size."""
    kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=kind)


def cropped(image: np.ndarray, aspect: float) -> np.ndarray:
    """The largest central crop of an aspect ratio (width over height)."""
    height, width = image.shape[:2]
    wide, high = min(width, round(height * aspect)), min(height, round(width / aspect))
    top, left = (height - high) // 2, (width - wide) // 2
    return image[top : top + high, left : left + wide]


KINDS = DEGRADATIONS | {"downscale, left small": left_small}


def levels(metric: torch.nn.Module, name: str) -> pd.DataFrame:
    """Scores of a photograph at every level of every degradation, one row each."""
    image = photograph(name)
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
    """Rank correlation of level and score, and the scores, for each pair of photograph and degradation."""
    rows = []
    for (photo, kind), pair in table.groupby(["photo", "kind"], sort=False):
        scores = pair.sort_values("level")["score"].tolist()
        # Of a constant score the rank correlation is undefined: the score did not react.
        correlation = float(spearmanr(range(len(scores)), scores)[0]) if len(set(scores)) > 1 else 0.0
        rows.append({"photo": photo, "kind": kind, "rank_correlation": correlation, "scores": scores})
    pairs = pd.DataFrame(rows)
    pairs["steady"] = pairs["rank_correlation"] <= STEADY + 1e-9
    return pairs


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--metric", default="ma_agiqa", help="a no-reference metric of pyiqa")
    parser.add_argument("--weights", type=Path, help="weights of another training run")
    parser.add_argument("--photos", nargs="+", choices=PHOTOS, default=PHOTOS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()

    metric = create(options.metric, options.weights)
    pairs = summary(pd.concat([levels(metric, name) for name in tqdm(options.photos, options.metric)]))
    images = {name: photograph(name) for name in options.photos}
    result = {
        "metric": options.metric,
        "steady_means": f"rank correlation of level and score <= {STEADY}",
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
        **weights_sha256(metric, options.weights),
        **circumstances(),
    }
    write_json(options.out / "robustness.json", result)
    print(pairs.pivot(index="photo", columns="kind", values="rank_correlation").round(3).to_string())
    print(f"{result['steady_pairs']} of {result['pairs']} pairs are steady")


if __name__ == "__main__":
    main()
