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

from benchmarks.common.machine import circumstances, need_gpu, write_json
from benchmarks.common.timing import gpu_peak_mib, interleaved, spread
from benchmarks.published_system.language_model import (
    FULL,
    apart,
    calls_on,
    library_versions,
    random_model,
    ratios,
)
from pyiqa_ma_agiqa.mplug_owl2.encoder import QUANTISED

PRECISIONS = ("bf16", "fp16", *QUANTISED)


@torch.inference_mode()
def on_gpu(precision: str, batches: Sequence[int], rounds: int) -> dict[str, Any]:
    """Images per second and peak memory of all ways by batch size."""
    began = time.perf_counter()
    model = random_model(FULL, precision, "cuda")
    result: dict[str, Any] = {
        "building_seconds": time.perf_counter() - began,
        "weights_mib": torch.cuda.memory_allocated() / 2**20,
        "by_batch": {},
    }
    for count in batches:
        calls = calls_on(model, count, "cuda")
        times = interleaved(calls, rounds, "cuda", f"{precision}, batch {count}")
        result["by_batch"][str(count)] = {
            "images_per_second": {name: spread(count / values) for name, values in times.items()},
            "time_over_ours": ratios(times),
            "peak_memory_mib": {name: gpu_peak_mib(call) for name, call in calls.items()},
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
    need_gpu("published_system.language_model")
    torch.manual_seed(0)
    result: dict[str, Any] = {"image": "448 x 448", "weights": "random"}
    for precision in PRECISIONS:
        result[f"cuda_{precision}"] = on_gpu(precision, options.batches, options.rounds)
        gc.collect()
        torch.cuda.empty_cache()
    result |= circumstances()
    result["versions"] |= library_versions()
    write_json(options.out / "language_model_on_gpu.json", result)


if __name__ == "__main__":
    main()
