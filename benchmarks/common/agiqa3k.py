"""AGIQA-3K, on which the benchmarks run by default."""

from __future__ import annotations

import os
from pathlib import Path

DEFAULT_DATA = Path(os.environ.get("AGIQA3K", "../shared/agiqa3k"))
"""Folder of AGIQA-3K: images/, data.csv as released, splits.csv with columns name and the splits."""

FAMILY = "^([^_]+)_"
"""Finds in a file name which of the six generators made the image: AttnGAN, ..., xl2.2."""


def generator(name: str) -> str:
    """Generator and its variant, of an AGIQA-3K file name: what stands before the running number."""
    return name.rsplit("_", 1)[0]
