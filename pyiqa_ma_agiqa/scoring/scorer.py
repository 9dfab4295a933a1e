"""Pixels to rows: the one place where both engines score.

An image by itself goes through pyiqa's own call, so its score is pyiqa's, bit for bit. Those of ma_agiqa
are so in batches, too.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch

from ..compact.arch import MAAGIQA
from ..compact.preprocessing import branch_view, encoder_view
from ..compact.reference_scores import METRIC, differences, has_reference, reference_scores
from ..errors import InputError, PluginError
from ..experts import EXPERTS
from ..own_network import own_network
from ..reason import reason
from .columns import AGAINST_TYPICAL, INTERVAL, MIXTURE, Row, columns
from .columns import EXPERTS as NAMES
from .failures import image_failure
from .inputs.decoding import Decoded, decode_ahead
from .inputs.items import Item, Loaded
from .inputs.limits import Limits

GPU_BATCH = 16
"""Batch size "auto" on a GPU. On a CPU it is 1: larger ones were not faster."""
WAITING_BATCHES = 4
"""Images of sizes that do not fill a batch wait until there are this many batches of them."""

Views = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Job:
    """How to score: all that the engines share.

    Attributes:
        metric: name of a no-reference metric of pyiqa.
        device: "cpu", "cuda", "cuda:1", ...
        batch_size: images that pass the network at once.
        shares: whether the shares of the experts are wanted.
        interval: whether the prediction interval and the familiarity are wanted.
        limits: on what is decoded.
        workers: threads that decode.
    """

    metric: str
    device: str
    batch_size: int
    shares: bool
    limits: Limits
    workers: int
    interval: bool = False


def automatic_batch_size(device: str) -> int:
    return 1 if device.startswith("cpu") else GPU_BATCH


def threads() -> int:
    """Threads that decode, where none are asked for: as many as this process has cores, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, 8)


def own_device(name: str | None) -> str:
    """A device of this machine: the one named, else a GPU where there is one.

    Raises:
        InputError: there is no such device.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        what = reason(error).split(". ")[0]
        raise InputError(f"--device {name}: {what}; give one that this machine has") from None
    return name


def check_metric(job: Job) -> None:
    """Check that the job's metric is one that scores single images.

    Raises:
        InputError: unknown, not no-reference, or without shares or intervals where they are wanted.
    """
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    from ..registration.configs import CONFIGS

    name = job.metric
    if name not in DEFAULT_CONFIGS:
        raise InputError(f"--metric {name}: pyiqa has no such metric; pyiqa.list_models('NR') lists them")
    of_sets = "fid" in name or name == "inception_score"
    if of_sets or DEFAULT_CONFIGS[name].get("metric_mode") != "NR":
        what = "scores sets of images" if of_sets else "needs a reference"
        raise InputError(f"--metric {name}: {what}; give a no-reference metric")
    if job.shares and name not in CONFIGS:
        raise InputError(f"--shares: {name} has no experts; give {' or '.join(CONFIGS)}, or leave it out")
    if job.interval and name != METRIC:
        raise InputError(f"--interval: {name} has no prediction interval; give {METRIC}, or leave it out")


def blank_row(shares: bool, interval: bool = False) -> Row:
    """A row without its path, when nothing is known of the image yet."""
    row: Row = dict.fromkeys(columns(shares, interval)) | {"error": ""}
    del row["path"]
    return row


class Scorer:
    """A metric of pyiqa on its device, with all its weights loaded.

    Args:
        job: what to score with.

    Raises:
        PluginError: the metric cannot be made; of pyiqa's own metrics as `InputError`.
    """

    def __init__(self, job: Job) -> None:
        import pyiqa

        self.device = torch.device(job.device)
        self.batch = job.batch_size
        self.shares, self.interval = job.shares, job.interval
        try:
            with redirect_stdout(sys.stderr):  # where pyiqa tells which weights it loads, among the rows
                self.metric: Any = pyiqa.create_metric(job.metric, device=self.device)
                if (network := own_network(self.metric)) is not None:
                    network.prepare()
        except PluginError:
            raise
        except Exception as error:  # missing downloads, missing packages, too little memory
            raise InputError(f"--metric {job.metric}: cannot be made ({reason(error)})") from error
        # Of views also one by one where parts are wanted, since pyiqa's call makes the map with them.
        parts = self.shares or self.interval
        self.of_views = (self.batch > 1 or parts) and isinstance(self.metric.net, MAAGIQA)

    def views(self, pixels: torch.Tensor) -> Views:
        """What goes into a batch: of ma_agiqa both views, so that images of mixed sizes fit together."""
        pixels = pixels.to(self.device)
        return (encoder_view(pixels), branch_view(pixels)) if self.of_views else (pixels,)

    def score(self, batch: Sequence[Views]) -> list[Row]:
        """Score views of equal sizes; a row of numbers, or of an error, for each image.

        Raises:
            PluginError: the metric cannot go on with any image.
        """
        try:
            return self._rows(batch)
        except Exception as error:
            row = image_failure(error, self.device)
        # Not while the error is handled, which keeps what the failed batch has allocated.
        return [row] if len(batch) == 1 else [row for views in batch for row in self.score([views])]

    def _rows(self, batch: Sequence[Views]) -> list[Row]:
        parts = self._parts([torch.cat(views) for views in zip(*batch, strict=True)])
        values = [parts["score"].reshape(len(batch), -1)[:, :1]]
        values += [parts["shares"], parts["gate"]] if self.shares else []
        values += [parts["interval"], parts["familiarity"]] if self.interval else []
        table = torch.cat([value.double().cpu() for value in values], dim=1).tolist()
        names = ["score", *(MIXTURE if self.shares else ()), *(INTERVAL if self.interval else ())]
        return [self._row(dict(zip(names, values, strict=True))) for values in table]

    def _row(self, values: Row) -> Row:
        if not all(math.isfinite(value) for value in values.values()):
            return {"error": f"the metric gave {values['score']}"}
        if self.shares and has_reference(self.metric):
            shares = {expert: values[f"share_{name}"] for expert, name in zip(EXPERTS, NAMES, strict=True)}
            against = [reference_scores().typical, *differences(shares).values()]
            values |= zip(AGAINST_TYPICAL, against, strict=True)
        return values

    def _parts(self, stacked: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        if self.of_views:
            return self._of_views(*stacked)
        if self.shares:
            return self.metric(stacked[0], return_parts=True)
        return {"score": self.metric(stacked[0])}

    @torch.no_grad()
    def _of_views(self, encoder: torch.Tensor, branch: torch.Tensor) -> dict[str, torch.Tensor]:
        # As pyiqa calls a network.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            return self.metric.net.parts_of_views(encoder, branch, quality_map=False)


class Batches:
    """Images gathered by the sizes of their views, until they fill a batch."""

    def __init__(self, scorer: Scorer, job: Job) -> None:
        self.scorer = scorer
        self.blank = blank_row(job.shares, job.interval)
        self.most_pixels = job.limits.max_pixels
        self.waiting: dict[tuple[torch.Size, ...], list[tuple[int, Row, Views]]] = {}

    def add(self, number: int, decoded: Decoded) -> Iterator[tuple[int, Row]]:
        """Take an image in; yields the rows that are complete with it.

        Raises:
            PluginError: the metric cannot go on with any image.
        """
        row = self.blank | {
            "width": decoded.width,
            "height": decoded.height,
            "error": decoded.error,
        }
        if decoded.pixels is None:
            yield number, row
            return
        views, failed = self._views(decoded.pixels)
        if failed and self.waiting:  # those that wait may hold the memory that it lacks
            yield from self.rest()
            views, failed = self._views(decoded.pixels)
        if failed:
            yield number, row | failed
            return
        sizes = tuple(view.shape for view in views)
        self.waiting.setdefault(sizes, []).append((number, row, views))
        if len(self.waiting[sizes]) == self.scorer.batch:
            yield from self._score(sizes)
        while self._too_many():
            yield from self._score(max(self.waiting, key=lambda key: len(self.waiting[key])))

    def rest(self) -> Iterator[tuple[int, Row]]:
        """The rows of the images that still wait."""
        while self.waiting:
            yield from self._score(next(iter(self.waiting)))

    def _views(self, pixels: torch.Tensor) -> tuple[Views, Row]:
        """The views of an image, or what its row says instead."""
        try:
            return self.scorer.views(pixels), {}
        except Exception as error:
            return (), image_failure(error, self.scorer.device)

    def _too_many(self) -> bool:
        images = sum(map(len, self.waiting.values()))
        pixels = sum(
            len(group) * size[-1] * size[-2] for sizes, group in self.waiting.items() for size in sizes
        )
        return images > WAITING_BATCHES * self.scorer.batch or pixels > self.most_pixels

    def _score(self, sizes: tuple[torch.Size, ...]) -> Iterator[tuple[int, Row]]:
        numbers, rows, views = zip(*self.waiting.pop(sizes), strict=True)
        for number, row, values in zip(numbers, rows, self.scorer.score(views), strict=True):
            yield number, row | values


def score_items(
    items: Iterable[tuple[int, Item | Loaded]], scorer: Scorer, job: Job
) -> Generator[tuple[int, Row], None, None]:
    """Score images; every one gives one row, in about the order of the items.

    Args:
        items: number and image.
        scorer: the metric.
        job: limits and workers.

    Yields:
        The image's number and its row, without the path.
    """
    batches = Batches(scorer, job)
    with closing(decode_ahead(items, job.limits, job.workers)) as images:
        for number, decoded in images:
            yield from batches.add(number, decoded)
    yield from batches.rest()
