"""How fast and how large is ma_agiqa, beside its bare backbones and beside pyiqa's learned metrics?

    python benchmarks/efficiency.py

Latency on one 512 x 512 image in interleaved rounds; throughput by batch and latency by image size;
import time, load time and peak memory in processes of their own. pyiqa's metrics get random weights
(`comparators.py`). With a GPU the same there, in float32 and bfloat16. Needs a quiet machine, and
Linux for the memory. Writes results/efficiency.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyiqa
import torch
from comparators import MODULES, create_random, import_architecture
from machine import RESULTS, circumstances, write_json
from scoring import weights_sha256
from timing import interleaved, memory_mib, spread

OURS = "ma_agiqa"
PASSES = "backbone passes"
"""`MAAGIQA.backbone_passes`: both networks and the resizing of their inputs."""
NETWORKS = "bare networks"
"""Both networks on inputs of their sizes: no resizing, no token statistics."""
SIDE = 512


def create(name: str, device: str, untrained: bool) -> torch.nn.Module:
    """Ours with its weights unless untrained; the others with random ones."""
    if name == OURS:
        return pyiqa.create_metric(OURS, device=device, pretrained=not untrained)
    return create_random(name, device)


def picture(side: int, device: str, count: int = 1) -> torch.Tensor:
    """Random pixels (count, 3, side, side): no metric's speed depends on the content."""
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)


def bare_networks(net: Any, image: torch.Tensor) -> Callable[[], Any]:
    """Both networks of a `MAAGIQA` on views of the image that are made beforehand."""
    from pyiqa_ma_agiqa.preprocessing import branch_view, encoder_view

    views = encoder_view(image), branch_view(image)
    return lambda: (net.encoder.tower.forward_features(views[0]), net.branch(views[1]))


@torch.no_grad()
def measure(device: str, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """Latency, ratios and throughput on a device ("cpu", "cuda") in "float32" or "bfloat16"."""
    label = f"{device} {precision}"
    metrics: dict[str, Any] = {
        name: create(name, device, options.untrained) for name in (OURS, *options.others)
    }
    ours = metrics[OURS]
    image = picture(SIDE, device)
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
        calls: dict[str, Callable[[], Any]] = {}
        skipped: dict[str, str] = {}
        for name, metric in metrics.items():
            try:
                metric(image)
                calls[name] = partial(metric, image)
            except RuntimeError as error:  # not every metric of pyiqa works in half precision
                skipped[name] = str(error).splitlines()[0]
        calls[PASSES] = partial(ours.net.backbone_passes, image)
        calls[NETWORKS] = bare_networks(ours.net, image)
        times = interleaved(calls, options.rounds, device, f"{label}: metrics")
        del metrics, calls
        by_batch = {str(n): partial(ours, picture(SIDE, device, n)) for n in options.batches}
        batch_times = interleaved(by_batch, options.rounds, device, f"{label}: batches")
        by_side = {str(side): partial(ours, picture(side, device)) for side in options.sides}
        side_times = interleaved(by_side, options.rounds, device, f"{label}: sides")
    result = {
        "latency_seconds": {name: spread(values) for name, values in times.items()},
        "time_over_ours": {
            name: spread(times[name] / times[OURS]) for name in options.others if name in times
        },
        "ours_over": {name: spread(times[OURS] / times[name]) for name in (PASSES, NETWORKS)},
        "skipped": skipped,
        "images_per_second_by_batch": {n: spread(int(n) / taken) for n, taken in batch_times.items()},
        "latency_seconds_by_side": {side: spread(taken) for side, taken in side_times.items()},
    }
    if device == "cuda":
        result["peak_memory_mib_by_batch"] = {n: gpu_memory(call) for n, call in by_batch.items()}
    return result


def gpu_memory(call: Callable[[], Any]) -> float:
    """Most memory that tensors take on the GPU during a call, in MiB."""
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**20


def alone(name: str, untrained: bool) -> dict[str, float]:
    """Peak resident memory of building a metric and scoring an image, and its load time when built again.

    All imports come first and do not count; the file of the weights is in the page cache by the second time.
    """
    if name == OURS:
        import_module("pyiqa_ma_agiqa.arch")
    else:
        import_architecture(name)
    image = picture(SIDE, "cpu")
    before = memory_mib("VmRSS")
    metric = create(name, "cpu", untrained)
    metric(image)
    peak = memory_mib("VmHWM") - before
    del metric
    began = time.perf_counter()
    create(name, "cpu", untrained)
    return {"peak_memory_increase_mib": peak, "load_seconds": time.perf_counter() - began}


def in_own_process(name: str, options: argparse.Namespace) -> dict[str, float]:
    """`alone` in a fresh process."""
    command = [sys.executable, __file__, "--alone", name, "--threads", str(options.threads)]
    done = subprocess.run(
        command + ["--untrained"] * options.untrained, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def import_seconds(repeats: int = 7) -> dict[str, float]:
    """Time of `import pyiqa_ma_agiqa` in fresh processes; it imports no torch."""
    code = (
        "import sys, time; began = time.perf_counter(); import pyiqa_ma_agiqa; "
        "print(time.perf_counter() - began); assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code]
    runs = [subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True) for _ in range(repeats)]
    return spread(np.array([float(run.stdout) for run in runs]))


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--others", nargs="*", choices=list(MODULES), default=list(MODULES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--sides", nargs="+", type=int, default=[256, 512, 1024, 2048])
    parser.add_argument("--untrained", action="store_true", help="random weights for ma_agiqa, for try-outs")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.alone:
        print(json.dumps(alone(options.alone, options.untrained)))
        return

    result: dict[str, Any] = {
        "image": f"{SIDE} x {SIDE}",
        "rounds": options.rounds,
        "weights": {OURS: "random" if options.untrained else "shipped", "others": "random"},
        "import_seconds": import_seconds(),
        "in_own_process": {name: in_own_process(name, options) for name in (OURS, *options.others)},
        "cpu_float32": measure("cpu", "float32", options),
    }
    if torch.cuda.is_available():
        for precision in ("float32", "bfloat16"):
            result[f"cuda_{precision}"] = measure("cuda", precision, options)
    else:
        result["cuda"] = "no GPU was at hand"
    if not options.untrained:
        result |= weights_sha256(create(OURS, "cpu", False))
    write_json(options.out / "efficiency.json", result | circumstances())
    print(json.dumps(result["cpu_float32"], indent=1))


if __name__ == "__main__":
    main()
