"""How fast and how large is ma_agiqa, beside its bare backbones and beside pyiqa's learned metrics?

    python -m benchmarks.speed.efficiency

Latency of every metric on one 512 x 512 image, and of ma_agiqa by batch and by image size, all in the same
interleaved rounds, so that there is one figure for one measurement; metrics that take longer than 10 s are
in every fourth round alone. Import time, load time and peak memory in processes of their own. pyiqa's
metrics have random weights, which they read from files as large as their own (`comparators.py`). All of it on
the CPU; `efficiency_on_gpu.py` has a GPU. Needs a quiet machine, and Linux for the memory. Writes
efficiency.json beside itself.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyiqa
import torch
from tqdm import tqdm

from benchmarks.common.machine import circumstances, write_json
from benchmarks.common.metrics import weights_sha256
from benchmarks.common.places import ROOT
from benchmarks.common.timing import gpu_peak_mib, interleaved, memory_mib, spread
from benchmarks.speed.comparators import PEERS, create_random, crops_of, import_architecture
from pyiqa_ma_agiqa.compact.shipped import shipped_weights

OURS = "ma_agiqa"
PASSES = "backbone passes"
"""Both networks, `MAAGIQA.backbone_passes`, and the resizing of their inputs."""
NETWORKS = "bare networks"
"""Both networks on views that are ready: no resizing."""
SIDE = 512
LONGEST = 10.0
"""Seconds of a call from which some rounds do without it."""


def create(name: str, device: str, untrained: bool, folder: Path | None = None) -> torch.nn.Module:
    """Ours with its weights unless untrained; the others with random ones, from files in a folder."""
    if name == OURS:
        return pyiqa.create_metric(OURS, device=device, pretrained=not untrained)
    if folder is not None:
        return create_random(name, device, folder)
    with tempfile.TemporaryDirectory() as written:
        return create_random(name, device, Path(written))


def picture(side: int, device: str, count: int = 1) -> torch.Tensor:
    """Random pixels (count, 3, side, side): no metric's speed depends on the content."""
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)


def passes(net: Any, image: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Both networks of a `MAAGIQA` with the resizing of their inputs, and on views that are ready."""
    from pyiqa_ma_agiqa.compact.preprocessing import branch_view, encoder_view

    views = encoder_view(image), branch_view(image)
    return {
        PASSES: lambda: net.backbone_passes(encoder_view(image), branch_view(image)),
        NETWORKS: lambda: (net.encoder(views[0]), net.branch(views[1])),
    }


@torch.no_grad()
def measure(
    metrics: dict[str, Any], device: str, precision: str, options: argparse.Namespace
) -> dict[str, Any]:
    """Latency, ratios and throughput on a device ("cpu", "cuda") in "float32" or "bfloat16".

    Args:
        metrics: ours and the others, on the device.
    """
    ours, image = metrics[OURS], picture(SIDE, device)
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
        calls: dict[str, Callable[[], Any]] = {}
        skipped: dict[str, str] = {}
        for name, metric in metrics.items():
            try:
                metric(image)
                calls[name] = partial(metric, image)
            except Exception as error:  # not every metric of pyiqa works in half precision
                skipped[name] = (str(error) or type(error).__name__).splitlines()[0]
        others = [name for name in calls if name != OURS]
        calls |= passes(ours.net, image)
        batches = {n: partial(ours, picture(SIDE, device, n)) for n in options.batches}
        sides = {side: partial(ours, picture(side, device)) for side in options.sides}
        # A batch of 1 and a side of 512 are the first row of the table: timed once, as that.
        calls |= {f"batch of {n}": call for n, call in batches.items() if n != 1}
        calls |= {f"side {side}": call for side, call in sides.items() if side != SIDE}
        times = interleaved(calls, options.rounds, device, f"{device} {precision}", LONGEST)
        result: dict[str, Any] = {}
        if device == "cuda":
            result["memory_rise_mib_by_batch"] = {str(n): gpu_memory(call) for n, call in batches.items()}
    of_batch = {n: times[OURS if n == 1 else f"batch of {n}"] for n in batches}
    of_side = {side: times[OURS if side == SIDE else f"side {side}"] for side in sides}
    return result | {
        "latency_seconds": {name: spread(times[name]) for name in (OURS, *others, PASSES, NETWORKS)},
        "time_over_ours": {name: spread(times[name] / times[OURS]) for name in others},
        "ours_over": {name: spread(times[OURS] / times[name]) for name in (PASSES, NETWORKS)},
        "skipped": skipped,
        "images_per_second_by_batch": {str(n): spread(n / taken) for n, taken in of_batch.items()},
        "latency_seconds_by_side": {str(side): spread(taken) for side, taken in of_side.items()},
    }


def gpu_memory(call: Callable[[], Any]) -> float:
    """Most memory that tensors take on the GPU during a call over what they take before, in MiB."""
    before = torch.cuda.memory_allocated() / 2**20
    return gpu_peak_mib(call) - before


def alone(name: str, untrained: bool, folder: Path) -> dict[str, float]:
    """Peak resident memory of building a metric and scoring an image, and its load time when built again.

    All imports come first and do not count; the files of the weights are in the page cache. They are as
    real ones of earlier downloads only where this ran before with the same folder.
    """
    if name == OURS:
        import_module("pyiqa_ma_agiqa.compact.arch")
    else:
        import_architecture(name)
    image = picture(SIDE, "cpu")
    before = memory_mib("VmRSS")
    metric = create(name, "cpu", untrained, folder)
    metric(image)
    peak = memory_mib("VmHWM") - before
    del metric
    began = time.perf_counter()
    create(name, "cpu", untrained, folder)
    return {"peak_memory_increase_mib": peak, "load_seconds": time.perf_counter() - began}


def in_own_process(name: str, options: argparse.Namespace) -> dict[str, float]:
    """`alone` in a fresh process, the files of random weights written by another one before.

    Raises:
        subprocess.CalledProcessError: the metric cannot be built.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.speed.efficiency", "--alone", name, "--files", folder]
        command += ["--threads", str(options.threads), *["--untrained"] * options.untrained]
        for _ in range(1 if name == OURS else 2):
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        if name == OURS and not options.untrained:
            files = [shipped_weights()]
        size = sum(path.stat().st_size for path in files) / 2**20
    return json.loads(done.stdout.splitlines()[-1]) | {"weights_mib": size}


def each_in_its_own_process(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, str]]:
    """Memory and load time by metric, and why a metric could not be built."""
    found, not_built = {}, {}
    for name in tqdm((OURS, *options.others), "load time and memory"):
        try:
            found[name] = in_own_process(name, options)
        except subprocess.CalledProcessError as error:
            if name == OURS:
                raise
            not_built[name] = (error.stderr.strip() or "no message").splitlines()[-1]
    return found, not_built


def import_seconds(repeats: int = 7) -> dict[str, float]:
    """Time of `import pyiqa_ma_agiqa` in fresh processes; it imports no torch."""
    code = (
        "import sys, time; began = time.perf_counter(); import pyiqa_ma_agiqa; "
        "print(time.perf_counter() - began); assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code]
    runs = [subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True) for _ in range(repeats)]
    return spread(np.array([float(run.stdout) for run in runs]))


def parser_of_rounds(description: str | None, batches: list[int]) -> argparse.ArgumentParser:
    """A parser of what is measured, on whatever device; `batches` unless others are asked for."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--others", nargs="*", default=list(PEERS), metavar="NAME", help="of pyiqa's metrics")
    parser.add_argument("--batches", nargs="+", type=int, default=batches)
    parser.add_argument("--sides", nargs="+", type=int, default=[256, 512, 1024, 2048])
    parser.add_argument("--untrained", action="store_true", help="random weights for ma_agiqa, for try-outs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    return parser


def main() -> None:
    """Command line; see the module's docstring."""
    parser = parser_of_rounds(__doc__, batches=[1, 2, 4, 8, 16])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    parser.add_argument("--files", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.alone:
        print(json.dumps(alone(options.alone, options.untrained, options.files)))
        return

    own, not_built = each_in_its_own_process(options)
    result: dict[str, Any] = {
        "image": f"{SIDE} x {SIDE}",
        "rounds": options.rounds,
        "weights": {OURS: "random" if options.untrained else "shipped", "others": "random"},
        "import_seconds": import_seconds(),
        "in_own_process": own,
        "not_built": not_built,
    }
    metrics = {name: create(name, "cpu", options.untrained) for name in own}
    result["crops_an_image"] = {name: crops_of(metric) for name, metric in metrics.items() if name != OURS}
    result["cpu_float32"] = measure(metrics, "cpu", "float32", options)
    if not options.untrained:
        result |= weights_sha256(metrics[OURS])
    write_json(options.out / "efficiency.json", result | circumstances())
    print(json.dumps(result["cpu_float32"], indent=1))


if __name__ == "__main__":
    main()
