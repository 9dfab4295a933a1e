"""A run by shards: what there is to do is handed out, and counted when it comes back; nothing else is kept.

On this machine some shards are at work at a time, so that one is read and written while another one's
images pass the model, of which there is one. On Ray each worker does the same.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from tqdm import tqdm

from ...errors import InputError
from ...names import printable
from ...places import is_url
from ..inputs import storage
from ..inputs.expanding import expanded
from ..origins import origin_here
from ..request import Request
from ..scorer import Job, Scorer, check_metric
from ..settings import settings
from .made import delete_parts, write_whole
from .plan import check_out, shards_of
from .shard import Shard
from .there import with_those_there
from .work import ABREAST, NAMED, Result, SharedScorer, Work, cannot_be_written, do_shard

OUTAGE = 10
"""So many shards in a row that the store does not hand out end the run."""
DEAD = 3600.0
"""Seconds after which what a run has begun to write, in one go, is of a run that was killed."""
PROBE = ".pyiqa-ma-agiqa"
"""Written and deleted, to know whether a store takes anything at all."""


class Tally(NamedTuple):
    """What a run by shards found.

    Attributes:
        seconds: that it took.
        scored: images that it scored itself.
        made: shards that it scored itself.
        images: of all shards that have a parquet now.
        failed: of these without a score.
        mean: of the scores, NaN without any.
        there: shards that had their parquet already.
        problems: shards that have none.
        named: the first of these, with why; at most `NAMED`.
        errors: path and error of the first rows with one that were scored now; at most `NAMED`.
    """

    seconds: float
    scored: int
    made: int
    images: int
    failed: int
    mean: float
    there: int
    problems: int
    named: list[tuple[str, str]]
    errors: list[tuple[str, str]]


def score_shards(request: Request, job: Job) -> Tally:
    """Score every shard that has no parquet, or another content than when its parquet was made.

    Args:
        request: what to score; its output is a folder or a URL.
        job: how to score.

    Raises:
        PluginError: the options do not fit, the metric cannot be made, or the run cannot go on.
    """
    out = _ready(request)
    check_metric(job)
    depends = {
        name: value for name, value in settings(request, job).items() if name not in ("INPUT", "folder")
    }
    work = Work(job, out, origin_here(job.metric), depends, request.restart, request.retry_errors)
    began = time.monotonic()
    if request.engine == "ray":
        from .on_ray import shards_on_cluster

        do = partial(shards_on_cluster, work=work, actors=request.actors)
    else:
        do = partial(_on_this_machine, work=work)
    results = with_those_there(shards_of(request, out), work, do)
    try:
        with closing(results):
            return _tally(_watched(results), began)
    except KeyboardInterrupt:
        _say("interrupted: shards that have their parquet are done; the same command does the rest")
        raise


def _ready(request: Request) -> str:
    """The folder or URL for the parquets, which can be written.

    Raises:
        InputError: it cannot, or a pattern of this machine matches nothing.
    """
    out = str(request.out)
    for text in request.inputs:
        if not is_url(text):  # else it would be known only when all shards before are done
            next(expanded(text), None)
    try:
        out = check_out(request)
        write_whole(f"{out}/{PROBE}", b"")
        if is_url(out):
            with suppress(OSError):  # harms nothing where it stays
                storage.delete_object(f"{out}/{PROBE}")
        else:
            Path(out, PROBE).unlink(missing_ok=True)  # another run that begins may have deleted it
            delete_parts(Path(out), DEAD, time.time())
    except OSError as error:
        raise cannot_be_written(out, error) from None
    return out


class _MadeOnce:
    """The metric, from when it is first needed."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.lock = Lock()
        self.scorer: Scorer | None = None

    def __call__(self) -> Scorer:
        with self.lock:
            self.scorer = self.scorer or SharedScorer(self.job)
            return self.scorer


def _on_this_machine(shards: Iterator[Shard], work: Work) -> Generator[Result, None, None]:
    scorer = _MadeOnce(work.job)
    running: set[Future[Result]] = set()
    pool = ThreadPoolExecutor(ABREAST, thread_name_prefix="shard")
    try:
        running.update(pool.submit(do_shard, shard, work, scorer) for shard in islice(shards, ABREAST))
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                result = future.result()
                running.update(pool.submit(do_shard, shard, work, scorer) for shard in islice(shards, 1))
                yield result
    finally:
        with storage.hurried():
            pool.shutdown(wait=True, cancel_futures=True)


def _watched(results: Iterator[Result]) -> Iterator[Result]:
    """The results, with a progress bar; what cannot be read or was changed is said at once."""
    seldom = 1 if sys.stderr and sys.stderr.isatty() else 30
    bar = tqdm(results, unit=" shards", mininterval=seldom, dynamic_ncols=True, disable=not sys.stderr)
    lost = 0
    for result in bar:
        if result.problem:
            bar.write(f"{printable(result.shard)}: {printable(result.problem)}", file=sys.stderr)
        if result.changed and result.made:
            bar.write(f"{printable(result.shard)}: was changed; scored again", file=sys.stderr)
        lost = lost + 1 if result.lost else 0
        if lost == OUTAGE:
            raise InputError(
                f"{printable(result.shard)}: cannot be read, like {OUTAGE} shards in a row "
                f"({result.problem}); see to the store or the network, then the same command goes on"
            )
        yield result


def _tally(results: Iterator[Result], began: float) -> Tally:
    scored = made = images = failed = there = problems = 0
    total = 0.0
    named: list[tuple[str, str]] = []
    errors: list[tuple[str, str]] = []
    for result in results:
        if result.problem:
            problems += 1
            named += [(result.shard, result.problem)] if len(named) < NAMED else []
            continue
        images += result.images
        failed += result.failed
        total += result.total
        made += result.made
        there += not result.made
        scored += result.images if result.made else 0
        errors += result.errors[: NAMED - len(errors)]
    mean = total / (images - failed) if images > failed else float("nan")
    seconds = time.monotonic() - began
    return Tally(seconds, scored, made, images, failed, mean, there, problems, named, errors)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
