"""Writes pyiqa_ma_agiqa/reference_scores.json: quantiles of ma_agiqa's predictions for AGIQA-3K.

python benchmarks/reference_scores.py

The predictions are those of the official test part, as `accuracy.py` left them in results/.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import RESULTS

from pyiqa_ma_agiqa.errors import InputError
from pyiqa_ma_agiqa.reference_scores import METRIC, PERCENTS, TABLE
from pyiqa_ma_agiqa.shipped import shipped_weights


def reference(results: Path) -> dict[str, Any]:
    """The table, of a folder that `accuracy.py` wrote.

    Raises:
        InputError: the predictions were made by other weights than the package carries.
    """
    result = json.loads((results / "result.json").read_text(encoding="utf-8"))
    made_by = result["metrics"][METRIC]["version"]
    weights = hashlib.sha256(shipped_weights().read_bytes()).hexdigest()[:12]
    if not made_by.endswith(f"weights {weights}"):
        raise InputError(f"{results}: made by {made_by}, not by weights {weights}; run accuracy.py again")
    scores = pd.read_parquet(results / "scores.parquet")[METRIC].to_numpy(float)
    return {
        "what": f"quantiles 0, 1, ..., 100 % of the scores of {METRIC}",
        "images": len(scores),
        "of": "AGIQA-3K, official test part",
        "made_by": made_by,
        "command": "python benchmarks/reference_scores.py",
        "scores": [round(score, 4) for score in np.percentile(scores, PERCENTS).tolist()],
    }


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS / "accuracy_official")
    parser.add_argument("--out", type=Path, default=TABLE)
    options = parser.parse_args()
    table = reference(options.results)
    options.out.write_text(json.dumps(table) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
