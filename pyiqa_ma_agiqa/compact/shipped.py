"""The weights file that the package carries, checked against the manifest."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import WeightsError
from ..weights.manifest import PACKAGE_WEIGHTS_DIR, entry

NAME = "ma_agiqa.safetensors"


def shipped_weights() -> Path:
    """Path of the shipped weights.

    Raises:
        WeightsError: the file is missing, or its SHA-256 is not that of the manifest.
    """
    path = PACKAGE_WEIGHTS_DIR / NAME
    expected = entry(NAME)["sha256"]
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror}; reinstall pyiqa-ma-agiqa") from None
    if digest != expected:
        raise WeightsError(
            f"{path}: damaged (its SHA-256 is not that of the manifest); reinstall pyiqa-ma-agiqa"
        )
    return path
