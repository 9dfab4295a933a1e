"""`weights_manifest.json`: names, origins and checksums of the weights files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import WeightsError

PACKAGE_WEIGHTS_DIR = Path(__file__).resolve().parent
"""Folder of the weights files that come with the package."""
PACKAGE = PACKAGE_WEIGHTS_DIR.parent
NAME = "weights_manifest.json"


def load_manifest() -> dict[str, Any]:
    """Read the manifest: the copy a wheel carries, or the one at the top of the checkout.

    Raises:
        WeightsError: there is no manifest, or it is not a JSON object.
    """
    for path in (PACKAGE / NAME, PACKAGE.parent / NAME):
        if path.is_file():
            break
    else:
        raise WeightsError(f"{PACKAGE / NAME}: no such file; reinstall pyiqa-ma-agiqa")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: not readable JSON ({error}); reinstall pyiqa-ma-agiqa") from None
    if not isinstance(manifest, dict):
        raise WeightsError(f"{path}: not a JSON object; reinstall pyiqa-ma-agiqa")
    return manifest


def entry(name: str) -> dict[str, Any]:
    """The manifest's entry of a file.

    Raises:
        WeightsError: the manifest does not list it.
    """
    for found in load_manifest()["files"]:
        if found["name"] == name:
            return found
    raise WeightsError(f"weights_manifest.json does not list {name}; reinstall pyiqa-ma-agiqa")
