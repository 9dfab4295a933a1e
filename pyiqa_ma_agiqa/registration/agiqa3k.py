"""AGIQA-3K for pyiqa's tools: its entry in their list of data sets and its split.

Imports neither pyiqa nor torch; the class that reads the images is in `agiqa3k_dataset.py`.
"""

from __future__ import annotations

import functools
import random
import sys
from contextlib import suppress
from copy import deepcopy
from types import ModuleType
from typing import Any

DATASET = "AGIQA3KDataset"
"""Name of the class in pyiqa's data set registry."""
IMPORT_PATH = f"pyiqa_ma_agiqa.registration.agiqa3k_dataset:{DATASET}"
DATASETS: dict[str, dict[str, Any]] = {
    "agiqa3k": {
        "name": "AGIQA-3K",
        "type": DATASET,
        "dataroot_target": "./datasets/agiqa3k/images",
        "meta_info_file": "./datasets/agiqa3k/data.csv",
        "split_index": "official_split",
        "phase": "test",
        "mos_range": [0, 5],
        "lower_better": False,
    },
}
"""Written as in `default_dataset_configs.yml` of pyiqa."""
_IMPORTERS = ("pyiqa", "pyiqa.data.dataset_api")
"""Modules of pyiqa that hold `get_dataset_info` under their own name."""


def shuffled_split(count: int) -> list[str]:
    """Part of each row: the split of the paper, Python's shuffle by seed 20 into 70 / 10 / 20 %."""
    rows = list(range(count))
    random.Random(20).shuffle(rows)
    parts = [""] * count
    for place, row in enumerate(rows):
        parts[row] = "train" if place < int(0.7 * count) else "val" if place < int(0.8 * count) else "test"
    return parts


def register(module: ModuleType) -> None:
    """Make the class known to pyiqa's registry. Safe to repeat.

    Args:
        module: `pyiqa.utils.registry`, after its import.
    """
    registry = getattr(module, "DATASET_REGISTRY", None)
    if registry is not None:
        with suppress(AssertionError):  # registered before, by us or by pyiqa, which then keeps its own
            registry.register_lazy(DATASET, IMPORT_PATH)


def list_datasets(module: ModuleType) -> None:
    """Let pyiqa's `get_dataset_info`, and so `load_dataset`, know the data sets. Safe to repeat.

    pyiqa reads its list anew from a file of its own at every call, so there is no table to add to.
    A data set that pyiqa lists itself stays pyiqa's.

    Args:
        module: `pyiqa.api_helpers`, after its import.
    """
    theirs = getattr(module, "get_dataset_info", None)
    if theirs is None or hasattr(theirs, "lists_agiqa3k"):
        return

    @functools.wraps(theirs)
    def get_dataset_info(dataset_name: str | None = None) -> dict[str, Any]:
        known = deepcopy(DATASETS) | theirs()
        if dataset_name is None:
            return known
        return known[dataset_name] if dataset_name in known else theirs(dataset_name)

    get_dataset_info.lists_agiqa3k = True  # type: ignore[attr-defined]
    for name in (module.__name__, *_IMPORTERS):
        importer = sys.modules.get(name)
        if getattr(importer, "get_dataset_info", None) is theirs:
            importer.get_dataset_info = get_dataset_info  # type: ignore[union-attr]
