"""A shard to its parquet: the one piece of code that scores shards, on one machine and on Ray."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...errors import InputError
from ...places import without_secrets
from ..columns import Row
from ..inputs import storage
from ..origins import Origin
from ..scorer import Job, Scorer, Views, score_items
from ..settings import differing
from .made import Made, read_made, write_made
from .reading import Images, Unreadable, rows_of, told
from .shard import Shard, made_place

ABREAST = 2
"""Shards that share a model: one is read and written while another one's images pass it."""
NAMED = 5
"""At most so many failed rows of a shard are told of."""


@dataclass(frozen=True)
class Work:
    """What is done with each shard.

    Attributes:
        job: how to score.
        out: folder or URL for the parquets.
        origin: what rows say of it.
        settings: what else rows depend on, by the name that the user knows it by.
        restart: whether to make again what is there.
        retry_errors: whether to make again what is there with errors.
    """

    job: Job
    out: str
    origin: Origin
    settings: dict[str, Any]
    restart: bool = False
    retry_errors: bool = False


class Result(NamedTuple):
    """What became of a shard.

    Attributes:
        shard: its name.
        images: rows of its parquet.
        failed: rows of it with an error.
        total: sum of the scores.
        made: whether it was scored now, rather than there already.
        changed: whether it was there, of what the shard was before.
        problem: why there is no parquet; else empty.
        lost: whether that is because the store does not answer.
        errors: path and error of the first rows with one, of a shard that was scored now.
    """

    shard: str
    images: int = 0
    failed: int = 0
    total: float = 0.0
    made: bool = False
    changed: bool = False
    problem: str = ""
    lost: bool = False
    errors: Sequence[tuple[str, str]] = ()


class Stopped(Exception):
    """The user has ended the run."""


class SharedScorer(Scorer):
    """A scorer that several shards use, each in its turn, in a thread of its own.

    Every thread that computes with PyTorch has threads beside it (OpenMP). Those of two would make each
    other wait at every step, even if they take turns.
    """

    def __init__(self, job: Job) -> None:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="scorer")
        self.identity = self.thread.submit(threading.get_ident).result()
        self._there(super().__init__, job)

    def views(self, pixels: Any) -> Views:
        return self._there(super().views, pixels)

    def score(self, batch: Sequence[Views]) -> list[Row]:
        return self._there(super().score, batch)

    def _there(self, call: Callable[..., Any], *given: Any) -> Any:
        if threading.get_ident() == self.identity:
            return call(*given)
        return self.thread.submit(call, *given).result()


def do_shard(shard: Shard, work: Work, scorer: Callable[[], Scorer]) -> Result:
    """Score a shard and write its parquet, unless that is there.

    Args:
        shard: the shard.
        work: what to do with it.
        scorer: gives the metric, which is made when it is needed.

    Raises:
        PluginError: the metric cannot go on, what is there is of other settings, or nothing can be written.
        Stopped: the run is to end.
    """
    place = made_place(work.out, shard)
    there = _there(place)
    try:
        try:
            stamp = shard.stamp()
        except (OSError, InputError) as error:
            raise told(shard, error) from None
        if there and (kept := kept_result(shard, there, stamp, work)):
            return kept
        changed = there is not None and there.stamp != stamp
        rows, stamp = rows_of(shard, _score(work.job, scorer), work.job.limits.max_bytes)
    except Unreadable as error:
        return Result(shard.name, problem=str(error), lost=error.lost)
    size, _, changes = stamp.partition(":")
    failed = [(row["path"], row["error"]) for row in rows if row["error"]]
    total = sum(row["score"] for row in rows if not row["error"])
    made = Made(shard.name, int(size), changes, *work.origin, work.settings, len(rows), len(failed), total)
    try:
        write_made(place, rows, made)
    except OSError as error:
        raise cannot_be_written(work.out, error) from None
    return Result(shard.name, len(rows), len(failed), total, True, changed, errors=failed[:NAMED])


def kept_result(shard: Shard, there: Made, stamp: str, work: Work) -> Result | None:
    """The result of a shard whose parquet stays; None if it is to be made again.

    Args:
        shard: the shard.
        there: what its parquet says.
        stamp: of the shard as it is now.
        work: what to do with shards.

    Raises:
        InputError: what is there is of other settings: beside others, nothing could go on with either.
    """
    if work.restart:
        return None
    check_same(made_place(work.out, shard), there, work)
    if there.stamp != stamp and shard.is_fixed:
        raise InputError(
            f"{without_secrets(made_place(work.out, shard))}: is of other images; give the folder of the "
            "images, which may change, another --out, or --restart to make all anew"
        )
    if there.stamp != stamp or (work.retry_errors and there.failed):
        return None
    return Result(shard.name, there.images, there.failed, there.total)


def cannot_be_written(out: str, error: OSError) -> InputError:
    why = error.strerror or error
    return InputError(
        f"--out {without_secrets(out)}: cannot be written ({why}); see to that, then the same command goes on"
    )


def _there(place: str) -> Made | None:
    try:
        return read_made(place)
    except OSError as error:
        why = f"cannot be read ({error.strerror or error}); check the permissions and the credentials"
        raise InputError(f"--out {without_secrets(place)}: {why}") from None


def check_same(place: str, there: Made, work: Work) -> None:
    """Refuse to go on beside a parquet of other settings.

    Raises:
        InputError: it is of others.
    """
    before = {**there.settings, **Origin(there.metric, there.version, there.weights)._asdict()}
    now = {**work.settings, **work.origin._asdict()}
    if before != now:
        raise InputError(
            f"{without_secrets(place)}: was made with other settings ({differing(before, now)}); "
            "give another --out, or --restart to make all anew"
        )


def _score(job: Job, scorer: Callable[[], Scorer]) -> Callable[[Images], Iterator[tuple[int, Row]]]:
    def score(images: Images) -> Iterator[tuple[int, Row]]:
        for found in score_items(images, scorer(), job):
            if storage.stopping.is_set():
                raise Stopped
            yield found

    return score
