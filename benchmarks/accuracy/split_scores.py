"""Keeps the scores of a training run on the test part of its own split of AGIQA-3K.

    python -m benchmarks.accuracy.split_scores --run runs/m3 [--data FOLDER]

The package carries the weights of `official` alone. For another split, `pyiqa-ma-agiqa train --split SPLIT`
makes them; this scores the test part with them and writes scores_ma_agiqa_SPLIT.csv beside itself, from which
`accuracy.py --scores` works out its figures without the weights. About two minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

import pyiqa_ma_agiqa
from benchmarks.accuracy.rated_folder import generator_of
from benchmarks.common.agiqa3k import DEFAULT_DATA
from benchmarks.common.metrics import create
from pyiqa_ma_agiqa.errors import InputError
from pyiqa_ma_agiqa.experts import EXPERTS


def split_of(run: Path) -> str:
    """The split that a run was trained on.

    Raises:
        InputError: it is no finished run.
    """
    try:
        return json.loads((run / "metrics.json").read_text(encoding="utf-8"))["recipe"]["data"][
            "split_column"
        ]
    except (OSError, ValueError, LookupError):
        raise InputError(f"{run}: no finished run of pyiqa-ma-agiqa train; finish it first") from None


def scores(weights: Path, data: Path, split: str) -> pd.DataFrame:
    """A row for each test image: name, MOS, generator, and what the score is made of.

    Args:
        weights: of a run on this split.
        data: folder of AGIQA-3K.
    """
    parts = pd.read_csv(data / "splits.csv").set_index("name")[split]
    ratings = pd.read_csv(data / "data.csv")
    ratings = ratings[ratings["name"].map(parts) == "test"]
    metric = create("ma_agiqa", weights)
    rows = []
    with torch.inference_mode():
        for name, mos in tqdm(list(zip(ratings["name"], ratings["mos_quality"], strict=True)), split):
            found = metric(str(data / "images" / name), return_parts=True)
            row = {"name": name, "mos": mos, "generator": generator_of(name)}
            row |= {"score": found["score"].item(), "gate quality": found["gate"][0, 2].item()}
            row |= dict(
                zip((f"share {expert}" for expert in EXPERTS), found["shares"][0].tolist(), strict=True)
            )
            row |= {"familiarity": found["familiarity"].item()}
            row |= dict(zip(("low", "high"), found["interval"][0].tolist(), strict=True))
            rows.append(row)
    return pd.DataFrame(rows).round(5)


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="folder that training wrote")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of AGIQA-3K (or $AGIQA3K)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    try:
        split = split_of(options.run)
    except InputError as error:
        sys.exit(f"split_scores.py: {error}")
    weights = options.run / "weights.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
    told = (
        f"pyiqa-ma-agiqa {pyiqa_ma_agiqa.__version__}; weights {digest}; trained on the train part of {split}"
    )
    table = scores(weights, options.data, split).to_csv(index=False)
    (options.out / f"scores_ma_agiqa_{split}.csv").write_text(f"# {told}\n{table}", encoding="utf-8")


if __name__ == "__main__":
    main()
