"""Draws predicted_vs_mos.png beside itself: MOS over the score of ma_agiqa on the official test part.

    python -m benchmarks.accuracy.predicted_vs_mos

Draws what `accuracy.py` left in official/; nothing is scored.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from benchmarks.accuracy.accuracy_figures import predicted_vs_mos


def official_test_part(folder: Path) -> Figure:
    """MOS over the score of ma_agiqa, of the folder that `accuracy.py` wrote for the paper's split."""
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    figures = result["metrics"]["ma_agiqa"]["agreement"]
    title = (
        f"AGIQA-3K, official test part, {result['images']} images: "
        f"SRCC {figures['srcc']['value']:.3f}, PLCC {figures['plcc']['value']:.3f}"
    )
    return predicted_vs_mos(pd.read_parquet(folder / "scores.parquet"), ["ma_agiqa"], title)


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "official")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"))
    options = parser.parse_args()
    figure = official_test_part(options.results)
    figure.savefig(options.out, dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    main()
