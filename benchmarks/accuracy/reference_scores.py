"""Writes pyiqa_ma_agiqa/compact/reference_scores.json: what is typical of ma_agiqa on AGIQA-3K.

    python -m benchmarks.accuracy.reference_scores --images ../shared/agiqa3k

Scores the official test part with the shipped weights (some minutes; an interrupted run goes on), keeps
the rows in reference_predictions.parquet beside itself, and makes the table of them. Without --images only
the table is made anew.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pyiqa_ma_agiqa.command.main import main as command
from pyiqa_ma_agiqa.compact.reference_scores import METRIC, PERCENTS, TABLE
from pyiqa_ma_agiqa.compact.shipped import NAME
from pyiqa_ma_agiqa.errors import InputError
from pyiqa_ma_agiqa.experts import EXPERTS
from pyiqa_ma_agiqa.weights.manifest import entry

PREDICTIONS = Path(__file__).with_name("reference_predictions.parquet")


def predict(agiqa3k: Path, out: Path) -> None:
    """Score the official test part with `pyiqa-ma-agiqa score --shares`.

    Raises:
        InputError: not all images could be scored.
    """
    splits = pd.read_csv(agiqa3k / "splits.csv")
    names = splits.loc[splits["official"] == "test", "name"]
    out.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "test.csv"
        pd.DataFrame({"path": [str((agiqa3k / "images" / name).resolve()) for name in names]}).to_csv(table)
        scored = Path(folder) / "scored.parquet"
        if command(["score", str(table), "--out", str(scored), "--shares"]):
            raise InputError(f"{agiqa3k}: not all images could be scored")
        rows = pd.read_parquet(scored)
    rows["path"] = [Path(path).name for path in rows["path"]]
    rows.to_parquet(out, index=False)


def reference(predictions: Path) -> dict[str, Any]:
    """The table, of the rows of `predict`.

    Raises:
        InputError: the predictions were made by other weights than the package carries.
    """
    rows = pd.read_parquet(predictions)
    weights = entry(NAME)["sha256"]
    made_by = set(zip(rows["metric"], rows["weights"], strict=True))
    if made_by != {(METRIC, weights[:12])}:
        raise InputError(
            f"{predictions}: made by {sorted(made_by)}, not by weights {weights[:12]}; give --images"
        )
    return {
        "what": f"of the predictions of {METRIC}: quantiles 0, 1, ..., 100 % of the scores, mean shares",
        "images": len(rows),
        "of": "AGIQA-3K, official test part",
        "weights": weights[:12],
        "command": "python -m benchmarks.accuracy.reference_scores --images ../shared/agiqa3k",
        "scores": [round(score, 4) for score in np.percentile(rows["score"], PERCENTS).tolist()],
        "shares": {name: round(float(rows[f"share_{name.replace(' ', '_')}"].mean()), 6) for name in EXPERTS},
    }


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="AGIQA-3K: images/ and splits.csv")
    parser.add_argument("--predictions", type=Path, default=PREDICTIONS)
    parser.add_argument("--out", type=Path, default=TABLE)
    options = parser.parse_args()
    if options.images:
        predict(options.images, options.predictions)
    options.out.write_text(json.dumps(reference(options.predictions)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
