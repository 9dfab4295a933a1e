"""How fast is the published system's language model on a GPU, and how much memory does it take?

    python -m benchmarks.published_system.language_model_on_gpu

At full size with random weights, in bf16, fp16, 8 and 4 bits: images per second and peak memory of `encode`
and of plain passes, in interleaved rounds, as `language_model.py` has them on a CPU. Needs a GPU of 24 GB
that nobody else uses. Writes language_model_on_gpu.json beside itself.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.machine import circumstances, write_json
from benchmarks.common.timing import interleaved, spread
from benchmarks.published_system.language_model import (
    FULL,
    apart,
    calls_on,
    library_versions,
    random_model,
    ratios,
)

PRECISIONS = ("bf16", "fp16", "8bit", "4bit")


@torch.inference_mode()
def on_gpu(
    precision: str, layers: int, batches: Sequence[int], rounds: int, device: str = "cuda"
) -> dict[str, Any]:
    """Images per second and peak memory of all ways by batch size."""
    began = time.perf_counter()
    model = random_model(layers, precision, device)
    result: dict[str, Any] = {
        "building_seconds": time.perf_counter() - began,
        "weights_mib": torch.cuda.memory_allocated() / 2**20,
        "by_batch": {},
    }
    for count in batches:
        calls = calls_on(model, count, device)
        times = interleaved(calls, rounds, device, f"{precision}, batch {count}")
        peaks = {}
        for name, call in calls.items():
            torch.cuda.reset_peak_memory_stats()
            call()
            torch.cuda.synchronize()
            peaks[name] = torch.cuda.max_memory_allocated() / 2**20
        result["by_batch"][str(count)] = {
            "images_per_second": {name: spread(count / values) for name, values in times.items()},
            "time_over_ours": ratios(times),
            "peak_memory_mib": peaks,
            "vectors": apart(calls),
        }
    return result


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no GPU is at hand; see `python -m benchmarks.published_system.language_model`")
    torch.manual_seed(0)
    result: dict[str, Any] = {"image": "448 x 448", "weights": "random"}
    for precision in PRECISIONS:
        result[f"cuda_{precision}"] = on_gpu(precision, FULL, options.batches, options.rounds)
        gc.collect()
        torch.cuda.empty_cache()
    result |= circumstances()
    result["versions"] |= library_versions()
    write_json(options.out / "language_model_on_gpu.json", result)


if __name__ == "__main__":
    main()
