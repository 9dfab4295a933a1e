"""Does a run by shards keep up with webdataset's own loader, and with the model?

    python -m benchmarks.command.shards

The same tars of JPEG files, on this machine's disk and in a store, in turns: webdataset's loader, which reads
and decodes to tensors; a run by shards with a metric that costs nothing, from the tar to the parquet, which
lies beside the tars; and `ma_agiqa` by itself on decoded images, beside a run by shards with it. Start and
imports are not counted.

The store is the S3 server of the tests, a process of its own whose work takes from the same cores. Of it
webdataset reads signed URLs through curl in a pipe, as it does by itself of the web; a run by shards reads
and writes s3:// URLs.

Needs a machine that does nothing else, curl, and `pip install webdataset`. Writes shards.json beside itself.
"""

from __future__ import annotations

import argparse
import io
import os
import secrets
import shutil
import tarfile
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pyiqa
import torch

from benchmarks.command.score_command import model_rate, pictures
from benchmarks.common.agiqa3k import DEFAULT_DATA
from benchmarks.common.machine import circumstances, write_json
from benchmarks.common.timing import spread
from pyiqa_ma_agiqa.places import is_url
from pyiqa_ma_agiqa.scoring.inputs import storage
from pyiqa_ma_agiqa.scoring.inputs.limits import Limits
from pyiqa_ma_agiqa.scoring.origins import origin_here
from pyiqa_ma_agiqa.scoring.scorer import Job
from pyiqa_ma_agiqa.scoring.shards import run
from pyiqa_ma_agiqa.scoring.shards.shard import shard_at
from pyiqa_ma_agiqa.scoring.shards.work import SharedScorer, Work
from tests.s3_server import BUCKET, S3Server

BILLION = 10**9
HOUR = 3600
DAY = 24 * HOUR


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


class Source(NamedTuple):
    """Where the tars lie.

    Attributes:
        name: of the source in those of the rates.
        tars: as a run by shards is given them.
        streams: as webdataset is given them.
        out: folder or URL, in which each run by shards has one for its parquets.
    """

    name: str
    tars: list[str]
    streams: list[str]
    out: str


def on_disk(tars: list[Path]) -> Source:
    places = [str(tar) for tar in tars]
    return Source("", places, places, str(tars[0].parent))


@contextmanager
def in_store(tars: list[Path]) -> Iterator[Source]:
    """The tars in a store, which is there until the end."""
    from s3fs import S3FileSystem

    with tempfile.TemporaryDirectory() as folder:
        server = S3Server(Path(folder))
        with patch.dict(os.environ, server.environment):
            S3FileSystem.clear_instance_cache()
            server.start()
            try:
                out = f"s3://{BUCKET}"
                places = [f"{out}/{tar.name}" for tar in tars]
                for place, tar in zip(places, tars, strict=True):
                    storage.write_object(place, tar.read_bytes())
                signed = [S3FileSystem().sign(place, expiration=DAY) for place in places]
                yield Source(" from a store", places, [f"pipe:curl -f -s -L '{url}'" for url in signed], out)
            finally:
                server.stop()


def webdataset_seconds(streams: list[str], workers: int) -> float:
    """Seconds in which webdataset's loader gives all images as tensors."""
    import webdataset

    data = webdataset.WebDataset(streams, shardshuffle=False).decode("torchrgb")
    loader = webdataset.WebLoader(data, batch_size=None, num_workers=min(workers, len(streams)))
    began = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - began


def shards_seconds(
    tars: list[str], folder: str, workers: int, metric: str, scorer: Callable[[Job], Any]
) -> float:
    """Seconds of a run by shards, from the tars to parquets in the folder, the metric being made already."""
    job = Job(metric, "cpu", 1, False, Limits(), workers)
    made = scorer(job)
    run.SharedScorer = lambda job: made  # type: ignore[misc,assignment]
    out = f"{folder}/{secrets.token_hex(4)}"
    if not is_url(out):
        os.mkdir(out)
    work = Work(job, out, origin_here(metric), {"--shares": False, "--interval": False})
    began = time.perf_counter()
    results = list(run._on_this_machine(map(shard_at, tars), work))
    seconds = time.perf_counter() - began
    assert not any(result.problem or result.failed for result in results)
    return seconds


def rate_alone(files: list[Path]) -> float:
    """Images a second of the model by itself."""
    return model_rate(pyiqa.create_metric("ma_agiqa", device="cpu"), files)


def one_round(
    files: list[Path], options: argparse.Namespace, sources: tuple[Source, ...], rates: dict[str, list[float]]
) -> None:
    """Adds to the rates that of each way."""
    for source in sources:
        images = len(source.tars) * options.images
        for workers in options.workers:
            seconds = webdataset_seconds(source.streams, workers)
            rates[f"webdataset{source.name}, workers {workers}"].append(images / seconds)
            seconds = shards_seconds(source.tars, source.out, workers, "free", Free)
            rates[f"shards{source.name}, workers {workers}"].append(images / seconds)
    images = options.model_shards * options.images
    if images:
        chosen = [files[number % len(files)] for number in range(images)]
        # In a thread that ends: PyTorch's threads beside it would stand in the way of the next ones.
        with ThreadPoolExecutor(1) as thread:
            rates["ma_agiqa alone"].append(thread.submit(rate_alone, chosen).result())
        for source in sources:
            few = source.tars[: options.model_shards]
            seconds = shards_seconds(few, source.out, options.workers[-1], "ma_agiqa", SharedScorer)
            rates[f"shards{source.name} with ma_agiqa"].append(images / seconds)


def measured(files: list[Path], options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Images in a second each way, and the core hours of a billion images."""
    tars = make_tars(files, folder, options.shards, options.images)
    rates: dict[str, list[float]] = defaultdict(list)
    with in_store(tars) as store:
        for _ in range(options.rounds):
            one_round(files, options, (on_disk(tars), store), rates)
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
