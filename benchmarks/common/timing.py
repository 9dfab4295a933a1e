"""Interleaved timing, and memory of the running process and of its GPU."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

SLOW = 2.0
"""Seconds from which a call is not repeated untimed before it is timed."""
SELDOM = 4
"""Calls that take longest are timed in every fourth round alone."""

Calls = Mapping[str, Callable[[], Any]]


def seconds(call: Callable[[], Any], device: str) -> float:
    """Wall time of one call, the device's queue emptied before and after."""
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def interleaved(
    calls: Calls, rounds: int, device: str, label: str, longest: float = math.inf
) -> dict[str, np.ndarray]:
    """Times (rounds,) of each call in seconds, after a warm-up round.

    Every round times each call once, in another order each time, so that drift of the machine
    hits all alike; what the call before left in the caches is undone by an untimed repeat.

    Args:
        calls: by name.
        rounds: how many.
        device: "cpu" or "cuda".
        label: of the progress bar.
        longest: what takes longer in the warm-up is timed in every fourth round alone; NaN in the others.
    """
    times: dict[str, list[float]] = {name: [seconds(call, device)] for name, call in calls.items()}
    rng = np.random.default_rng(0)
    for number in tqdm(range(rounds), label):
        for name in rng.permutation(list(calls)):
            if number % SELDOM and times[name][0] > longest:
                times[name].append(math.nan)
                continue
            if times[name][-1] < SLOW:
                calls[name]()
            times[name].append(seconds(calls[name], device))
    return {name: np.array(values[1:]) for name, values in times.items()}


def spread(values: np.ndarray) -> dict[str, float]:
    """Median and quartiles of the values there are."""
    low, middle, high = np.nanpercentile(values, [25, 50, 75])
    return {"median": float(middle), "low_quartile": float(low), "high_quartile": float(high)}


def memory_mib(field: str) -> float:
    """A field of /proc/self/status in MiB: VmRSS, resident now, or VmHWM, the most it has been.

    Not `getrusage`: what it gives starts, in a subprocess, at the memory of the parent.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/self/status has no {field}")


def gpu_peak_mib(call: Callable[[], Any]) -> float:
    """Most memory that tensors take on the GPU during a call, those of before among them, in MiB."""
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**20
