"""The same job on a cluster, by Ray: workers hold the model, rows come back to the journal.

A worker scores a block of images at a time; what it comes to is written down here, by the one process
that has the journal. A block on which worker after worker is lost is taken apart, and an image that takes
two workers with it by itself gets a row with that error.

Every machine needs this package installed, and must see the images under the same paths.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

from .columns import Row
from .inputs.items import Item
from .ray_pool import Pool, Task, connect

if TYPE_CHECKING:
    from .scorer import Job

BLOCK = 64
"""Images that a worker scores in one go: what is scored again when it is lost."""
LOSSES = 2
"""So many workers may be lost with a block before it is taken apart, and with an image before its row."""


class Worker:
    """What runs on the cluster: holds the model, scores blocks."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def begin(self) -> None:
        """Load the model. Not in the constructor, whose errors Ray hands on as text only."""
        from .scorer import Scorer

        self.scorer = Scorer(self.job)

    def do(self, items: list[tuple[int, Item]]) -> list[tuple[int, Row]]:
        from .scorer import score_items

        return list(score_items(items, self.scorer, self.job))


def score_on_cluster(
    items: Iterable[tuple[int, Item]], job: Job, actors: int | None
) -> Generator[tuple[int, Row], None, None]:
    """Score images on the cluster; every one gives one row, in the order in which blocks are finished.

    Args:
        items: number and image; taken as workers ask for them.
        job: how to score, on a device of the workers.
        actors: how many hold the model; None for as many as there is room for, also later.

    Raises:
        InputError: the cluster has no room for one, or its workers cannot go on.
    """

    def lost(task: Task, why: str) -> tuple[list[Task], list[tuple[int, Row]]]:
        if task.losses < LOSSES:
            return [task], []
        if len(task.given) > 1:
            return [Task([item]) for item in task.given], []
        from .scorer import blank_row

        ((number, _),) = task.given
        blank = blank_row(job.shares, job.interval)
        return [], [(number, blank | {"error": f"the worker was lost with it ({why})"})]

    with closing(Pool(connect(), Worker, job, job.device, _blocks(items), lost, actors).results()) as rows:
        yield from rows


def _blocks(items: Iterable[tuple[int, Item]]) -> Iterator[Task]:
    remaining = iter(items)
    while block := list(islice(remaining, BLOCK)):
        yield Task([(number, item.found_from_anywhere()) for number, item in block])
