"""The weights file that the package carries, checked against the manifest."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import WeightsError
from ..weights.manifest import PACKAGE_WEIGHTS_DIR, entry

NAME = "ma_agiqa.safetensors"
PART = 2**20


def shipped_weights() -> Path:
    """Path of the shipped weights.

    Raises:
        WeightsError: the file is missing, or its SHA-256 is not that of the manifest.
    """
    path = PACKAGE_WEIGHTS_DIR / NAME
    expected = entry(NAME)["sha256"]
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while part := file.read(PART):  # the whole file would count in the memory that a score takes
                digest.update(part)
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror}; reinstall pyiqa-ma-agiqa") from None
    if digest.hexdigest() != expected:
        raise WeightsError(
            f"{path}: damaged (its SHA-256 is not that of the manifest); reinstall pyiqa-ma-agiqa"
        )
    return path
