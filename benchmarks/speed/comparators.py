"""pyiqa's learned metrics with random weights, read from files but never downloaded.

Layers, crops and input handling are those of pyiqa's configuration; their speed and memory do not
depend on the values of the weights.
"""

from __future__ import annotations

from pathlib import Path

import pyiqa
import torch
from pyiqa import archs
from pyiqa.default_model_configs import DEFAULT_CONFIGS

from benchmarks.common.metrics import pkg_resources_at_hand
from benchmarks.speed.random_files import random_files

PEERS = (
    *("clipiqa+", "clipiqa", "topiq_nr", "topiq_iaa_res50", "musiq", "hyperiqa", "maniqa", "dbcnn", "tres"),
    *("liqe", "laion_aes", "nima", "paq2piq", "cnniqa", "metaiqa", "wadiqam_nr", "unique", "uranker"),
    "arniqa",
)
"""Metrics to compare with: one of each learned architecture of which `random_files` knows the files.

Of other names of the same architecture only the values of the weights differ. Left out: maclip, which asks
for CUDA by name; qualiclip, which reads a checkpoint of which `random_files` does not know the content; and
without a try afine_nr and fgresq, which read checkpoints of their own, clipscore, which needs a caption, and
qalign, qrealign and compare2score, which are language models of billions of weights."""
CROPS = ("num_crop", "test_sample", "num_patch")
"""Names under which pyiqa's architectures keep how many crops of an image they score."""


def import_architecture(name: str) -> None:
    """Import the module of a metric, so that building the metric imports nothing more."""
    with pkg_resources_at_hand():
        archs._lazy_import_arch(DEFAULT_CONFIGS[name]["metric_opts"]["type"])


def create_random(name: str, device: str, folder: Path) -> torch.nn.Module:
    """A metric of pyiqa with random weights, read from files that the first call writes to a folder.

    Raises:
        OSError: it needs a file of which only the real content would do.
    """
    import_architecture(name)
    with pkg_resources_at_hand(), random_files(folder):
        metric = pyiqa.create_metric(name, device=device)
    hidden = getattr(metric.net, "clip_model", None)  # in a list, where pyiqa's own eval() does not reach it
    for model in hidden if isinstance(hidden, list) else []:
        model.eval()
    return metric


def crops_of(metric: torch.nn.Module) -> int:
    """How many crops of an image a metric scores; 1 where it scores the image as a whole."""
    return next((getattr(metric.net, name) for name in CROPS if hasattr(metric.net, name)), 1)
