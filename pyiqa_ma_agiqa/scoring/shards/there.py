"""Which shards are done already: asked with one small read for each, many at a time, before any is scored.

What a store lists stands for what each of its objects would say of itself. Only what is surely done is told
of here; all else, also where anything goes wrong, goes to `do_shard`, which asks anew.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import chain
from threading import Lock

from ...errors import InputError
from ...places import is_url, joined
from ..inputs import storage
from ..rows.output import MADE
from .made import Made, read_listed, read_made
from .shard import Shard, made_name, made_place
from .work import Result, Work, check_same, kept_result

LOOKS = 32
"""Shards that are asked about at a time."""
FEW = 100
"""Shards of a folder that are asked about one by one, before it is listed: it may hold much else."""


def with_those_there(
    shards: Iterable[Shard], work: Work, do: Callable[[Iterator[Shard]], Generator[Result, None, None]]
) -> Generator[Result, None, None]:
    """The results of all shards: of those that are done already, and of the others when they are done.

    Args:
        shards: taken a few ahead of what is done with them.
        work: what to do with each.
        do: does shards; called only if there are any to do.

    Raises:
        InputError: of the shards, when all that there were are done; or of what is done with them, at once.
    """
    there: deque[Result] = deque()
    refused: list[InputError] = []
    pool = ThreadPoolExecutor(LOOKS, thread_name_prefix="look")
    found = _looked_at(_until_refused(shards, refused), work, pool)

    def others() -> Iterator[Shard]:
        for one in found:
            if isinstance(one, Shard):
                yield one
            else:
                there.append(one)

    try:
        for one in found:
            if isinstance(one, Shard):
                with closing(do(chain([one], others()))) as results:
                    for result in results:
                        yield result
                        while there:
                            yield there.popleft()
                yield from there
            else:
                yield one
        if refused:
            raise refused[0]
    finally:
        with storage.hurried():
            pool.shutdown(cancel_futures=True)


def _until_refused(shards: Iterable[Shard], refused: list[InputError]) -> Iterator[Shard]:
    """Shards, until an input is refused: that can wait until those at work are done."""
    try:
        yield from shards
    except InputError as error:
        refused.append(error)


def _looked_at(shards: Iterable[Shard], work: Work, pool: ThreadPoolExecutor) -> Iterator[Shard | Result]:
    """Each shard that has to be done, or the result of one that is done, in their order but for blocks."""
    there = _There(work)
    waiting: deque[tuple[Shard, Future[Result | None]]] = deque()
    for shard in shards:
        if shard.is_block:  # of which only one at a time is in memory
            yield there.result(shard) or shard
            continue
        waiting.append((shard, pool.submit(there.result, shard)))
        if len(waiting) == LOOKS:
            yield _first(waiting)
    while waiting:
        yield _first(waiting)


def _first(waiting: deque[tuple[Shard, Future[Result | None]]]) -> Shard | Result:
    shard, future = waiting.popleft()
    return future.result() or shard


class _There:
    """What is there of a run, and of its shards."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.made = {} if work.restart else _sizes(work.out)
        """Of each parquet by its name."""
        self.lock = Lock()
        self.asked: Counter[str] = Counter()
        """How many shards of each folder were asked about."""
        self.listed: dict[str, dict[str, storage.Facts]] = {}
        """What there is in folders of shards."""
        self._check_one()

    def result(self, shard: Shard) -> Result | None:
        """That of a shard which is surely done."""
        name = made_name(shard)
        if name not in self.made:
            return None
        try:
            made = self._read(made_place(self.work.out, shard), self.made[name])
            return made and kept_result(shard, made, self._stamp(shard), self.work)
        except (OSError, InputError):
            return None

    def _check_one(self) -> None:
        """Refuse to go on beside parquets of other settings, by one of them."""
        name = next(filter(MADE.fullmatch, self.made), None)
        if name is None:
            return
        place = joined(self.work.out, name)
        try:
            made = self._read(place, self.made[name])
        except (OSError, InputError):
            return
        if made:
            check_same(place, made, self.work)

    def _read(self, place: str, size: int) -> Made | None:
        return read_listed(place, size) if is_url(place) else read_made(place)

    def _stamp(self, shard: Shard) -> str:
        if shard.is_block or not is_url(shard.place):
            return shard.stamp()
        folder, _, name = shard.place.rpartition("/")
        with self.lock:
            self.asked[folder] += 1
            if self.asked[folder] == FEW + 1:
                self.listed[folder] = _listed(folder)
            facts = self.listed.get(folder, {}).get(name)
        return facts.stamp if facts else shard.stamp()


def _sizes(out: str) -> dict[str, int]:
    if is_url(out):
        return {name: facts.size for name, facts in _listed(out).items()}
    return dict.fromkeys(os.listdir(out), 0)


def _listed(folder: str) -> dict[str, storage.Facts]:
    """Nothing where listing fails: not everybody who may read may list."""
    try:
        return storage.listed(folder)
    except OSError:
        return {}
