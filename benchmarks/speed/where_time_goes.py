"""Where does the time of one score go?

    python -m benchmarks.speed.where_time_goes

Times the steps of ma_agiqa on one 512 x 512 image, on 1 and 2 threads, by wrapping the functions that a score
calls. Time of a step that calls another one is without that of the other. Writes where_time_goes.json
beside itself.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from benchmarks.common.machine import circumstances, write_json
from benchmarks.common.metrics import create, tensor, weights_sha256
from benchmarks.common.timing import seconds, spread
from pyiqa_ma_agiqa.compact import arch
from pyiqa_ma_agiqa.compact.arithmetic import integers, machine

SIDE = 512
PRODUCTS, ATTENTION, ROUNDING = "products", "attention", "rounding to integers"
SCALING = "scales, biases, padding"
SUMMARIES, EXPERTS = "summaries", "experts and familiarity"
OTHER = "other"
STEPS: dict[str, tuple[tuple[Any, str], ...]] = {
    PRODUCTS: (
        *((machine, "integer_product"), (machine, "packed_product")),
        *((machine, "convolve_packed"), (machine, "pack")),
        (functional, "conv2d"),  # where the machine has no fast convolutions
    ),
    ATTENTION: ((integers, "attend"),),
    "normalisation": ((functional, "layer_norm"),),
    ROUNDING: tuple((integers, name) for name in ("rounded", "levels", "image_levels", "pixels", "features")),
    SCALING: tuple((integers, name) for name in ("linear", "linear_of_levels", "convolve")),
    "activation": ((integers, "silu"),),
    SUMMARIES: ((integers, "mean"), (integers, "deviation")),
    "resizing": ((arch, "encoder_view"), (arch, "branch_view")),
    EXPERTS: tuple((integers, name) for name in ("dense", "project", "total")),
}
"""Part of a score to the functions whose time it is, each with the module in which it is looked up."""
WHOLE = (ATTENTION, SUMMARIES, EXPERTS)
"""Parts that keep the time of what their functions call, such as products and rounding in attention."""


class Clock:
    """Adds up the time of functions by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, which then counts for its part."""

        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            if self._open and self._open[-1] in WHOLE:
                return function(*arguments, **named)
            self._turn()
            self._open.append(part)
            try:
                return function(*arguments, **named)
            finally:
                self._turn()
                self._open.pop()

        return call

    def _turn(self) -> None:
        """What has passed since the last turn belongs to the function that was running."""
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


@contextlib.contextmanager
def clocked() -> Iterator[Clock]:
    """Times the functions of `STEPS` while it lasts."""
    clock = Clock()
    with contextlib.ExitStack() as stack:
        for part, functions in STEPS.items():
            for module, name in functions:
                timed = clock.timed(part, getattr(module, name))
                stack.enter_context(mock.patch.object(module, name, timed))
        yield clock


def of_parts(score: Callable[[], Any]) -> dict[str, float]:
    """Seconds of one score by part; the rest is `OTHER`."""
    with clocked() as clock:
        whole = seconds(score, "cpu")
    found = {part: clock.seconds[part] for part in STEPS}
    return found | {OTHER: whole - sum(found.values())}


@torch.inference_mode()
def measure(metric: torch.nn.Module, image: torch.Tensor, rounds: int) -> dict[str, Any]:
    """Spread of the time of a score, without and with the clock, and of its parts; a warm-up comes first.

    Args:
        image: (1, 3, H, W).
    """
    rows, plain = [], []
    for _ in tqdm(range(rounds + 1), f"{torch.get_num_threads()} threads"):
        plain.append(seconds(lambda: metric(image), "cpu"))
        rows.append(of_parts(lambda: metric(image)))
    parts = {part: np.array([row[part] for row in rows[1:]]) for part in rows[0]}
    whole = np.array([sum(row.values()) for row in rows[1:]])
    return {
        "score_seconds": spread(np.array(plain[1:])),
        "clocked_score_seconds": spread(whole),
        "parts_seconds": {part: spread(values) for part, values in parts.items()},
        "share_of_the_score": {part: spread(values / whole) for part, values in parts.items()},
    }


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()

    metric = create("ma_agiqa")
    # Pixels have 8 bits, as those of a file; no time depends on the content.
    image = tensor(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8))
    by_threads = {}
    for threads in options.threads:
        torch.set_num_threads(threads)
        by_threads[str(threads)] = measure(metric, image, options.rounds)
    cpu = torch.device("cpu")
    result = {
        "image": f"{SIDE} x {SIDE}",
        "rounds": options.rounds,
        "fast_products": machine.has_fast_products(cpu),
        "fast_convolutions": machine.has_fast_convolutions(cpu),
        "by_threads": by_threads,
        **weights_sha256(metric),
        **circumstances(),
    }
    write_json(options.out / "where_time_goes.json", result)
    print(json.dumps(by_threads, indent=1))


if __name__ == "__main__":
    main()
