"""All that the rows of a run depend on, so that an interrupted run goes on only with the same."""

from __future__ import annotations

import os
from functools import cache
from importlib import metadata
from typing import Any

from ..places import without_secrets
from ..version import __version__
from ..weights.manifest import load_manifest
from .request import Request
from .scorer import Job

SCORES_DEPEND_ON = (
    *("pyiqa", "torch", "torchvision", "timm", "transformers", "accelerate", "bitsandbytes", "safetensors"),
    *("openai-clip", "einops", "facexlib", "numpy", "scipy", "scikit-image", "pillow"),
    *("opencv-python", "opencv-python-headless", "sentencepiece", "tokenizers"),
)
"""Packages without which, or with another version of which, a score may be another one."""


def settings(request: Request, job: Job) -> dict[str, Any]:
    """By the name that the user knows each by."""
    return {
        "INPUT": [without_secrets(text) for text in request.inputs],
        "folder": os.getcwd(),
        "--column": request.column,
        "--metric": request.metric,
        "--device": job.device.partition(":")[0],
        "--batch-size": job.batch_size,
        "--shares": request.shares,
        "--interval": request.interval,
        "--max-pixels": request.limits.max_pixels,
        "--max-bytes": request.limits.max_bytes,
        "weights": {
            entry["name"]: entry["sha256"]
            for entry in load_manifest()["files"]
            if request.metric in entry["metric_names"]
        },
        "pyiqa-ma-agiqa": __version__,
    } | {name: version(name) for name in SCORES_DEPEND_ON}


def differing(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What of two settings differs, as text."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return "; ".join(f"{name} was {before.get(name)}, is {now.get(name)}" for name in names)


@cache
def version(package: str) -> str | None:
    """Of an installed package, else nothing. Kept, since it takes milliseconds to find."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
