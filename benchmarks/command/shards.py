"""Does a run by shards keep up with webdataset's own loader, and with the model?

    python -m benchmarks.command.shards

The same tars of JPEG files on this machine's disk, in turns: webdataset's loader, which reads and decodes to
tensors; a run by shards with a metric that costs nothing, from the tar to the parquet; and `ma_agiqa` by
itself on decoded images, beside a run by shards with it. Start and imports are not counted. Needs a machine
that does nothing else, and `pip install webdataset`. Writes shards.json beside itself.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tarfile
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyiqa
import torch

from benchmarks.command.score_command import model_rate, pictures
from benchmarks.common.agiqa3k import DEFAULT_DATA
from benchmarks.common.machine import circumstances, write_json
from benchmarks.common.timing import spread
from pyiqa_ma_agiqa.scoring.inputs.limits import Limits
from pyiqa_ma_agiqa.scoring.origins import origin_here
from pyiqa_ma_agiqa.scoring.scorer import Job
from pyiqa_ma_agiqa.scoring.shards import run
from pyiqa_ma_agiqa.scoring.shards.shard import shard_at
from pyiqa_ma_agiqa.scoring.shards.work import SharedScorer, Work

BILLION = 10**9
HOUR = 3600


class Free:
    """A metric that costs nothing, in the place of a scorer."""

    def __init__(self, job: Job) -> None:
        self.batch = job.batch_size
        self.device = torch.device(job.device)

    def views(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (pixels,)

    def score(self, batch: Any) -> list[dict[str, float]]:
        return [{"score": 0.0} for _ in batch]


def make_tars(files: list[Path], folder: Path, shards: int, images: int) -> list[Path]:
    """Tars of so many images each, of the files again and again."""
    tars = []
    for shard in range(shards):
        tars.append(folder / f"{shard:05}.tar")
        with tarfile.open(tars[-1], "w") as tar:
            for number in range(images):
                content = files[(shard * images + number) % len(files)].read_bytes()
                info = tarfile.TarInfo(f"{number:05}.jpg")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return tars


def webdataset_seconds(tars: list[Path], workers: int) -> float:
    """Seconds in which webdataset's loader gives all images as tensors."""
    import webdataset

    data = webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False).decode("torchrgb")
    loader = webdataset.WebLoader(data, batch_size=None, num_workers=min(workers, len(tars)))
    began = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - began


def shards_seconds(tars: list[Path], workers: int, metric: str, scorer: Callable[[Job], Any]) -> float:
    """Seconds of a run by shards, from the tars to the parquets, the metric being made already."""
    job = Job(metric, "cpu", 1, False, Limits(), workers)
    made = scorer(job)
    run.SharedScorer = lambda job: made  # type: ignore[misc,assignment]
    with tempfile.TemporaryDirectory() as out:
        work = Work(job, out, origin_here(metric), {"--shares": False, "--interval": False})
        began = time.perf_counter()
        results = list(run._on_this_machine(map(shard_at, map(str, tars)), work))
        seconds = time.perf_counter() - began
    assert not any(result.problem or result.failed for result in results)
    return seconds


def rate_alone(files: list[Path]) -> float:
    """Images a second of the model by itself."""
    return model_rate(pyiqa.create_metric("ma_agiqa", device="cpu"), files)


def measured(files: list[Path], options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Images in a second each way, and the core hours of a billion images."""
    free = make_tars(files, folder, options.shards, options.images)
    few = free[: options.model_shards]
    rates: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.rounds):
        for workers in options.workers:
            images = len(free) * options.images
            rates[f"webdataset, workers {workers}"].append(images / webdataset_seconds(free, workers))
            rates[f"shards, workers {workers}"].append(images / shards_seconds(free, workers, "free", Free))
        if few:
            images = len(few) * options.images
            chosen = [files[number % len(files)] for number in range(images)]
            # In a thread that ends: PyTorch's threads beside it would stand in the way of the next ones.
            with ThreadPoolExecutor(1) as thread:
                rates["ma_agiqa alone"].append(thread.submit(rate_alone, chosen).result())
            seconds = shards_seconds(few, options.workers[-1], "ma_agiqa", SharedScorer)
            rates["shards with ma_agiqa"].append(images / seconds)
    found = {name: spread(np.array(values)) for name, values in rates.items()}
    cores = torch.get_num_threads()
    hours = {name: BILLION / rate["median"] / HOUR * cores for name, rate in found.items()}
    return {"images_per_second": found, "core_hours_of_a_billion": hours, "cores": cores}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--images", type=int, default=250, help="in each shard (%(default)s)")
    parser.add_argument("--model-shards", type=int, default=1, help="that ma_agiqa scores (%(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp())
    try:
        result = measured(pictures(options.data, options.images, folder), options, folder)
    finally:
        shutil.rmtree(folder)
    write_json(options.out, circumstances(arguments) | result)


if __name__ == "__main__":
    main()
