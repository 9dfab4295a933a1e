"""The weights file that the package carries, checked against the manifest."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .errors import WeightsError
from .manifest import PACKAGE_WEIGHTS_DIR, load_manifest

NAME = "ma_agiqa.safetensors"


def shipped_weights() -> Path:
    """Path of the shipped weights.

    Raises:
        WeightsError: the file is missing, or its SHA-256 is not that of the manifest.
    """
    path = PACKAGE_WEIGHTS_DIR / NAME
    entry = next((entry for entry in load_manifest()["files"] if entry["name"] == NAME), None)
    if entry is None:
        raise WeightsError(f"weights_manifest.json does not list {NAME}; reinstall pyiqa-ma-agiqa")
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror}; reinstall pyiqa-ma-agiqa") from None
    if digest != entry["sha256"]:
        raise WeightsError(
            f"{path}: damaged (its SHA-256 is not that of the manifest); reinstall pyiqa-ma-agiqa"
        )
    return path
