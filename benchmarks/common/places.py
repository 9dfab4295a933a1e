"""Where the scripts and their results lie."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""Top of the checkout, from which the scripts are run."""
BENCHMARKS = ROOT / "benchmarks"
"""Each result lies here in the folder of its question, beside the script that makes it."""


def module_name(path: Path) -> str:
    """What `python -m` calls a file by, given relative to the top of the checkout."""
    return ".".join(path.with_suffix("").parts)
