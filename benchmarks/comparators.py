"""pyiqa's learned metrics with random weights, built without a download.

Layers, crops and input handling are those of pyiqa's configuration; their speed and memory do not
depend on the values of the weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any
from unittest import mock

import pyiqa
import timm
import torch
from scoring import pkg_resources_at_hand

MODULES = {
    "clipiqa+": "pyiqa.archs.clipiqa_arch",
    "topiq_nr": "pyiqa.archs.topiq_arch",
    "musiq": "pyiqa.archs.musiq_arch",
    "hyperiqa": "pyiqa.archs.hypernet_arch",
    "maniqa": "pyiqa.archs.maniqa_arch",
}
"""Metric to the module of its architecture."""


def import_architecture(name: str) -> ModuleType:
    """Import the module of a metric, so that building the metric imports nothing more."""
    with pkg_resources_at_hand():
        return import_module(MODULES[name])


@contextlib.contextmanager
def _no_downloads() -> Iterator[None]:
    create_model = timm.create_model

    def random_model(*args: Any, **kwargs: Any) -> torch.nn.Module:
        return create_model(*args, **kwargs | {"pretrained": False})

    with mock.patch.object(timm, "create_model", random_model):
        yield


def _random_clip(name: str, device: str) -> torch.nn.Module:
    """OpenAI's CLIP RN50 (Radford et al., ICML 2021, appendix F) as `pyiqa.archs.clip_model` has it."""
    from pyiqa.archs.clip_model import CLIP

    if name != "RN50":
        raise ValueError(f"CLIP {name} is not RN50")
    model = CLIP(
        embed_dim=1024,
        image_resolution=224,
        vision_layers=(3, 4, 6, 3),
        vision_width=64,
        vision_patch_size=None,
        context_length=77,
        vocab_size=49408,
        transformer_width=512,
        transformer_heads=8,
        transformer_layers=12,
    )
    return model.to(device).eval()  # pyiqa keeps it in a list, out of reach of its own eval()


def create_random(name: str, device: str) -> torch.nn.Module:
    """A metric of `MODULES` with random weights."""
    module = import_architecture(name)
    clip = mock.patch.object(module, "load", _random_clip) if name == "clipiqa+" else contextlib.nullcontext()
    with _no_downloads(), clip:
        return pyiqa.create_metric(name, device=device, pretrained=False)
