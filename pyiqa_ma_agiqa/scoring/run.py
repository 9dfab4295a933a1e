"""A run of ``score``: images to the rows of a table on the disk, resumable.

inputs/ lists and decodes → scorer.py (on Ray by ray_engine.py) → rows/ keeps and writes. Where each shard
becomes an output of its own, shards/ does all of it.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ..errors import InputError
from ..names import escape
from .columns import Row, columns, output_columns
from .inputs.items import Item
from .inputs.listing import list_items
from .origins import lower_is_better, of_here, origin_here, with_origin
from .request import Request
from .rows.crashes import CrashNote
from .rows.journal import Journal, cannot_go_on, damaged
from .rows.outage import Outage
from .rows.output import check_apart, check_output, identity, write_output
from .rows.output_reading import read_output
from .rows.retrying import retry_errors, take_in
from .scorer import Job, Scorer, automatic_batch_size, check_metric, own_device, score_items, threads
from .settings import settings

ENDS = ("", "-wal", "-part", "-crash")
"""Of the files of a journal."""
NAMED = 5
"""At most so many rows of a kind are kept for an `Outcome`."""


class Outcome(NamedTuple):
    """What a run found.

    Attributes:
        scored: images that it scored itself.
        seconds: that this took.
        scores: (N,) of all images that have one.
        worst, best: rows, the worst and the best first; at most `NAMED`, and no row is both.
        failures: how many images have no score.
        failed: the first rows of them, at most `NAMED`.
    """

    scored: int
    seconds: float
    scores: np.ndarray
    worst: list[Row]
    best: list[Row]
    failures: int
    failed: list[Row]


def score_to_output(request: Request, out: Path) -> Outcome:
    """Score, and write the output; an interrupted run goes on when called again.

    Args:
        request: what to score, and how.
        out: of the request.

    Raises:
        PluginError: the options do not fit, the metric cannot be made, or the run cannot go on.
    """
    path = Path(f"{out}.journal")
    try:
        check_output(out)
        check_apart(out, [path.with_name(path.name + end) for end in ENDS], request.inputs)
        _check_earlier(request, out, path.exists())
        job = make_job(request)
        check_metric(job)
        made = settings(request, job)
        found = columns(job.shares, job.interval)
        with closing(Journal(path, made, found, request.restart)) as journal:
            _own_output(request, out, journal)
            outcome = _score(request, out, job, journal)
            journal.remove()
    except (sqlite3.OperationalError, OSError) as error:
        raise cannot_go_on(path, error, _again(request)) from None
    except sqlite3.DatabaseError as error:
        raise damaged(path, error) from None
    return outcome


def _check_earlier(request: Request, out: Path, begun: bool) -> None:
    exists = out.exists()
    if request.retry_errors and not (exists or begun):
        raise InputError(f"--retry-errors: no {out} yet, nor its journal; leave it out")
    if exists and not (begun or request.restart or request.retry_errors):
        raise InputError(f"--out {out}: exists; give another name, or --restart to write it anew")


def _own_output(request: Request, out: Path, journal: Journal) -> None:
    """Check that an output that is there may be replaced, and let a later run know it.

    Raises:
        InputError: it is not of the run that the journal holds.
    """

    if not out.exists():
        return
    files = identity(out)
    if request.restart:
        with journal.database:
            journal.allow(files)
    elif not journal.allows(files) and not (request.retry_errors and not journal.done()):
        raise InputError(
            f"--out {out}: exists, and is not of the run that {journal.path} goes on with; move it "
            "away, or give --restart to write it anew"
        )


def make_job(request: Request) -> Job:
    """How to score, with what the request leaves open.

    Raises:
        InputError: no such device, or no cluster.
    """
    if request.engine == "ray":
        from .ray_pool import cluster_device, connect

        device = cluster_device(connect(), request.device)
    else:
        device = own_device(request.device)
    return Job(
        metric=request.metric,
        device=device,
        batch_size=request.batch_size or automatic_batch_size(device),
        shares=request.shares,
        limits=request.limits,
        workers=request.workers or threads(),
        interval=request.interval,
    )


def _again(request: Request) -> str:
    return "the same command without --restart" if request.restart else "the same command"


def _score(request: Request, out: Path, job: Job, journal: Journal) -> Outcome:
    """Score what is pending and write the output."""

    began = time.monotonic()
    note = CrashNote(journal.path.with_name(f"{journal.path.name}-crash"))
    died = note.hand_over(journal)
    total = _list(request, out, job, journal, died)
    before = journal.done()
    if before:
        _say(f"going on: {before} of {total} images have a row already")
    if before < total:
        try:
            with note:
                _score_pending(request, job, journal, note, total, before)
        except KeyboardInterrupt:
            _say(f"interrupted: {journal.done()} of {total} images have a row; {_again(request)} goes on")
            raise
    rows = with_origin(journal.rows(), job.metric)
    write_output(out, rows, output_columns(job.shares, job.interval), journal.make_part(), journal.allow_part)
    return _outcome(job, journal, total - before, time.monotonic() - began)


def _outcome(job: Job, journal: Journal, scored: int, seconds: float) -> Outcome:
    order = "WHERE score IS NOT NULL ORDER BY score {}, number LIMIT ?".format
    worst, best = ("DESC", "ASC") if lower_is_better(job.metric) else ("ASC", "DESC")
    scores = journal.scores()
    named = min(NAMED, max(len(scores) // 2, 1))
    return Outcome(
        scored,
        seconds,
        scores,
        list(journal.rows(order(worst), named)),
        list(journal.rows(order(best), named)),
        journal.failures(),
        list(journal.rows("WHERE error != '' ORDER BY number LIMIT ?", NAMED)),
    )


def _list(request: Request, out: Path, job: Job, journal: Journal, died: bool) -> int:
    """List the images, as far as an earlier run has not; returns how many there are."""

    stamps: dict[str, str] = {}
    listed = list_items(request.inputs, request.column, stamps)
    if request.retry_errors and not journal.done() and out.exists():
        rows = read_output(out, output_columns(job.shares, job.interval))
        take_in(journal, out, of_here(out, rows, job.metric))
    if request.retry_errors and journal.done():
        retry_errors(journal, listed, died)
        with journal.database:
            journal.keep(stamps)
        return journal.total()
    total = journal.list_once(listed, stamps)
    if not total:
        raise _no_images(request)
    return total


def _score_pending(
    request: Request, job: Job, journal: Journal, note: CrashNote, total: int, before: int
) -> None:

    rows = _rows(request, job, journal, note)
    outage = Outage(journal, _again(request))
    try:
        with closing(rows):
            for number, row in _watched(rows, total, before):
                journal.add(number, row)
                outage.see(row)
    finally:
        journal.commit()


def _watched(rows: Iterable[tuple[int, Row]], total: int, before: int = 0) -> Iterator[tuple[int, Row]]:
    """The rows, with a progress bar."""
    seldom = 1 if sys.stderr and sys.stderr.isatty() else 30
    yield from tqdm(
        rows,
        total=total,
        initial=before,
        unit=" images",
        mininterval=seldom,
        dynamic_ncols=True,
        disable=not sys.stderr,
    )


def _rows(
    request: Request, job: Job, journal: Journal, note: CrashNote
) -> Generator[tuple[int, Row], None, None]:
    if request.engine == "ray":
        from .ray_engine import score_on_cluster

        return score_on_cluster(journal.pending(), job, request.actors)
    return _local_rows(job, journal, note)


def _local_rows(job: Job, journal: Journal, note: CrashNote) -> Generator[tuple[int, Row], None, None]:
    scorer = Scorer(job)
    suspects = journal.suspects()
    if suspects:
        _say(f"the last run died; what it was at is scored one at a time, images: {len(suspects)}")
    for number, item in suspects:
        note.alone(number)
        yield from score_items([(number, item)], scorer, job)
        journal.commit()
    yield from score_items(note.beginning(journal.pending()), scorer, job)


def score_at_once(request: Request, progress: bool = False) -> Generator[Row, None, None]:
    """Rows as an output has them, in the order of the images, without an output or a journal.

    Args:
        request: what to score, and how; `out`, `restart`, `retry_errors`, `engine` and `actors` do not count.
        progress: whether standard error shows how far it is.

    Raises:
        PluginError: before any row, the metric cannot be made, or there are no images; at a row, the metric
            cannot go on with any image.
    """
    job = make_job(replace(request, engine="local"))
    check_metric(job)
    first: dict[bytes, Item] = {}
    for item in list_items(request.inputs, request.column):
        first.setdefault(item.key(), item)
    if not first:
        raise _no_images(request)
    return _in_order(list(first.values()), Scorer(job), job, progress)


def _in_order(items: list[Item], scorer: Scorer, job: Job, progress: bool) -> Generator[Row, None, None]:
    origin = origin_here(job.metric)._asdict()
    waiting: dict[int, Row] = {}
    turn = 0
    with closing(score_items(enumerate(items), scorer, job)) as found:
        rows = _watched(found, len(items)) if progress else found
        for number, row in rows:
            waiting[number] = row | origin | {"path": escape(items[number].name)}
            while turn in waiting:
                yield waiting.pop(turn)
                turn += 1


def _no_images(request: Request) -> InputError:
    return InputError(f"{' '.join(request.inputs)}: no images there; check the inputs")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
