"""Metrics by name, through pyiqa alone; scores that are higher for better images."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pyiqa
from pyiqa.default_model_configs import DEFAULT_CONFIGS
from tqdm import tqdm

import pyiqa_ma_agiqa
from benchmarks.accuracy.packaged import PACKAGED, packaged_version
from benchmarks.accuracy.score_cache import ScoreCache, content_hash
from benchmarks.common.metrics import create
from pyiqa_ma_agiqa.compact.shipped import shipped_weights
from pyiqa_ma_agiqa.errors import InputError
from pyiqa_ma_agiqa.registration.configs import CONFIGS
from pyiqa_ma_agiqa.weights.manifest import load_manifest


class Unavailable(Exception):
    """A metric that cannot be measured here; the message says why in a few words."""


def expand(names: list[str]) -> list[str]:
    """Metric names, each once; ``all`` stands for every no-reference metric of pyiqa.

    Raises:
        InputError: a name is not known, or needs a reference image.
    """
    known = pyiqa.list_models(metric_mode="NR")
    wanted: list[str] = []
    for name in names:
        if name in DEFAULT_CONFIGS and name not in known:
            raise InputError(f"{name} needs a reference image; ratings are of single images")
        if name != "all" and name not in known and name not in PACKAGED:
            close = get_close_matches(name, [*known, *PACKAGED], n=3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise InputError(f"pyiqa has no metric {name}{hint}")
        wanted += known if name == "all" else [name]
    return list(dict.fromkeys(wanted))


def lower_better(name: str) -> bool:
    """Whether a lower score of the metric is a better one."""
    return name in PACKAGED or DEFAULT_CONFIGS[name].get("lower_better", False)


def version(name: str, weights: Path | None = None) -> str:
    """What scores of a metric depend on besides the image: package and, for ours, weights."""
    if name in PACKAGED:
        return f"{packaged_version(name)}, pyiqa {pyiqa.__version__}"
    ours = name in CONFIGS
    package = f"pyiqa-ma-agiqa {pyiqa_ma_agiqa.__version__}" if ours else f"pyiqa {pyiqa.__version__}, {name}"
    if weights:
        content = weights.read_bytes()
    elif name == "ma_agiqa":
        content = shipped_weights().read_bytes()
    elif ours:
        content = json.dumps(load_manifest(), sort_keys=True).encode()
    else:
        return package
    return f"{package}, weights {hashlib.sha256(content).hexdigest()[:12]}"


def scorer(name: str, weights: Path | None, device: str) -> Callable[[str], float]:
    """Raw scores of image files by a metric.

    Raises:
        Unavailable: it cannot be built here, as where its weights cannot be reached.
    """
    try:
        if name in PACKAGED:
            return PACKAGED[name][1]()
        metric = create(name, weights, device)
    except Exception as error:  # whatever a metric raises becomes a row of the table
        raise Unavailable(why(error)) from error
    return lambda path: metric(path).item()


def why(error: Exception) -> str:
    """A few words on why a metric cannot be built."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, ModuleNotFoundError):
        return f"needs the package {error.name}"
    if isinstance(error, OSError | pyiqa_ma_agiqa.WeightsError):
        return f"weights not reachable: {text[:100]}"
    return f"{type(error).__name__}: {text[:100]}"


def score_images(
    name: str, paths: list[Path], cache: Path, weights: Path | None = None, device: str = "cpu"
) -> np.ndarray:
    """Scores (N,) of image files, higher is better; only those not in the cache are computed.

    Args:
        name: a no-reference metric of pyiqa or one of `packaged.PACKAGED`.
        paths: N image files.
        cache: folder of `ScoreCache`.
        weights: of another training run.
        device: of torch.

    Raises:
        Unavailable: the metric cannot be built, or does not score one of the images.
    """
    kept = ScoreCache(cache, name, f"{version(name, weights)}, {device}")
    hashes = [content_hash(path) for path in paths]
    missing = {image: path for image, path in zip(hashes, paths, strict=True) if image not in kept.scores}
    if missing:
        score = scorer(name, weights, device)
        done = len(paths) - len(missing)
        for image, path in tqdm(missing.items(), name, total=len(paths), initial=done, unit="image"):
            try:
                value = score(str(path))
            except Exception as error:
                raise Unavailable(f"fails on {path.name}: {why(error)}") from error
            if not math.isfinite(value):
                raise Unavailable(f"score of {path.name} is {value}")
            kept.add(image, value)
    sign = -1 if lower_better(name) else 1
    return sign * np.array([kept.scores[image] for image in hashes])
