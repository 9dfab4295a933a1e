"""Scores with one version of the package, as `against_commit.py` asks for it line by line.

    python -m benchmarks.speed.version_worker TREE [--no-integer-products]

TREE is the top of a checkout. What has been installed does not count, whatever its version.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from benchmarks.common.timing import SLOW, memory_mib, seconds

METRIC = "ma_agiqa"
SIDE = 512
"""Of the image that memory is measured with."""


def use(tree: Path) -> None:
    """Import the package of a tree, and have pyiqa find its metrics.

    Raises:
        ImportError: another one was imported.
    """
    # The start-up file of the installed package would bring that one's metrics.
    assert os.environ.get("PYIQA_MA_AGIQA_DISABLE") == "1"
    sys.path.insert(0, str(tree))
    import pyiqa_ma_agiqa

    found = Path(pyiqa_ma_agiqa.__file__).resolve()
    if not found.is_relative_to(tree.resolve()):
        raise ImportError(f"the package came from {found}, not from {tree}")


def use_floats() -> None:
    """Multiply the same integers as floats, as on a machine without quick products of bytes."""
    from pyiqa_ma_agiqa.compact.arithmetic import machine

    machine.has_fast_products = machine.has_fast_convolutions = lambda device: False  # type: ignore[assignment]


def random_image(side: int, batch: int) -> torch.Tensor:
    """Pixels of 8 bits (batch, 3, side, side) in [0, 1]; no metric's speed depends on the content."""
    levels = np.random.default_rng(0).integers(0, 256, (batch, 3, side, side), np.uint8)
    return torch.from_numpy(levels).float() / 255


def first_score(build: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """Build a metric and score an image: the metric, the score and what both needed.

    All imports are to be done; the file of the weights is in memory when it is loaded again.
    """
    image = random_image(SIDE, 1)
    before = memory_mib("VmRSS")
    metric = build()
    score = metric(image).item()
    peak = memory_mib("VmHWM") - before
    began = time.perf_counter()
    build()
    taken = time.perf_counter() - began
    return metric, {"peak_memory_increase_mib": peak, "load_seconds": taken, "score": score}


def timed(metric: Callable[[torch.Tensor], Any], threads: int, side: int, batch: int) -> float:
    """Seconds of one call, the one before it untimed unless it is slow."""
    torch.set_num_threads(threads)
    image = random_image(side, batch)
    taken = seconds(lambda: metric(image), "cpu")
    return taken if taken >= SLOW else seconds(lambda: metric(image), "cpu")


def serve(metric: Callable[[torch.Tensor], Any], questions: Iterator[str], answers: TextIO) -> None:
    """Answer each line, the arguments of `timed` as JSON, with the seconds."""
    for line in questions:
        print(json.dumps(timed(metric, **json.loads(line))), file=answers, flush=True)


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tree", type=Path)
    parser.add_argument("--no-integer-products", action="store_true")
    parser.add_argument("--threads", type=int, default=2, help="of the first score")
    options = parser.parse_args()
    # What others print must not stand among the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    use(options.tree)
    import pyiqa

    if options.no_integer_products:
        use_floats()
    torch.set_num_threads(options.threads)

    def build() -> Any:
        return pyiqa.create_metric(METRIC, device="cpu")

    # pyiqa imports the architecture when it is first built, which is no part of loading.
    pyiqa.archs._lazy_import_arch(pyiqa.default_model_configs.DEFAULT_CONFIGS[METRIC]["metric_opts"]["type"])
    with torch.inference_mode():
        metric, facts = first_score(build)
        print(json.dumps(facts), file=answers, flush=True)
        serve(metric, iter(sys.stdin), answers)


if __name__ == "__main__":
    main()
