"""How far did agreement with MOS move between two weights files?

    python -m benchmarks.accuracy.shifts --commit COMMIT

Holds the figures that the training runs wrote into `weights_manifest.json` against those of the manifest
of an earlier commit. Writes shifts.json beside itself.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.common.machine import circumstances, write_json
from benchmarks.common.places import ROOT
from pyiqa_ma_agiqa.compact.shipped import NAME
from pyiqa_ma_agiqa.weights.manifest import NAME as MANIFEST

SPLITS = ("official", "prompt_disjoint")


def figures(manifest: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Figures by split and part.

    Args:
        manifest: of any commit; its entries begin with "AGIQA-3K SPLIT".
    """
    metrics = next(file for file in manifest["files"] if file["name"] == NAME)["metrics"]
    return {
        split: next(parts for name, parts in metrics.items() if name.split()[1].strip(",") == split)
        for split in SPLITS
    }


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commit", required=True, help="with the earlier manifest")
    options = parser.parse_args()
    shown = ["git", "-C", str(ROOT), "show", f"{options.commit}:{MANIFEST}"]
    earlier = json.loads(subprocess.run(shown, capture_output=True, check=True, text=True).stdout)
    now = json.loads((ROOT / MANIFEST).read_text(encoding="utf-8"))
    result = {"earlier": options.commit, "before": figures(earlier), "after": figures(now), **circumstances()}
    write_json(Path(__file__).with_suffix(".json"), result)


if __name__ == "__main__":
    main()
