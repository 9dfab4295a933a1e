"""Metrics of pyiqa for the benchmarks: built by name, scoring one image."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from types import ModuleType

import numpy as np
import packaging.version
import pyiqa
import torch

from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.compact.shipped import shipped_weights


def create(name: str, weights: Path | None = None, device: str = "cpu") -> torch.nn.Module:
    """The metric as pyiqa configures it, with the weights of another training run if given."""
    extra = {"pretrained_model_path": str(weights)} if weights else {}
    with pkg_resources_at_hand():
        return pyiqa.create_metric(name, device=device, **extra)


@contextlib.contextmanager
def pkg_resources_at_hand() -> Iterator[None]:
    """openai-clip asks pkg_resources for `packaging`; newer setuptools have no pkg_resources."""
    if util.find_spec("pkg_resources") is not None:
        yield
        return
    stand_in = ModuleType("pkg_resources")
    stand_in.packaging = packaging  # type: ignore[attr-defined]
    sys.modules["pkg_resources"] = stand_in
    try:
        yield
    finally:
        del sys.modules["pkg_resources"]


def weights_sha256(metric: torch.nn.Module, weights: Path | None = None) -> dict[str, str]:
    """What a result file says of the weights; nothing for pyiqa's own metrics with their own weights."""
    if weights is None and not isinstance(metric.net, MAAGIQA):
        return {}
    return own_weights_sha256(weights)


def own_weights_sha256(weights: Path | None = None) -> dict[str, str]:
    """What a result file says of the weights of `ma_agiqa`, by default those that the package carries."""
    return {"weights_sha256": hashlib.sha256((weights or shipped_weights()).read_bytes()).hexdigest()}


def oriented(metric: torch.nn.Module, image: str | torch.Tensor) -> float:
    """Score of one image, a path or (1, 3, H, W) in [0, 1]; negated where lower is better."""
    return (-1 if metric.lower_better else 1) * metric(image).item()


def tensor(image: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 to (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255
