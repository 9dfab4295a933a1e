"""Shards on a Ray cluster: one task a shard, on workers that hold the model and write the parquets.

Every machine needs this package and the drivers of the stores installed, with their credentials, and must
see local shards and folders under the same paths.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import TYPE_CHECKING

from ..ray_pool import Pool, Task, connect
from .shard import Shard

if TYPE_CHECKING:
    from ..scorer import Scorer
    from .work import Result, Work

LOSSES = 2
"""So many workers may be lost with a shard, the second one with it alone, before it is left out."""


class Worker:
    """What runs on the cluster: holds the model, does shards."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def begin(self) -> None:
        """Load the model. Not in the constructor, whose errors Ray hands on as text only."""
        from .work import SharedScorer

        self.scorer: Scorer = SharedScorer(self.work.job)

    def do(self, shard: Shard) -> list[Result]:
        from .work import do_shard

        scorer: Callable[[], Scorer] = lambda: self.scorer  # noqa: E731
        return [do_shard(shard, self.work, scorer)]


def shards_on_cluster(
    shards: Iterable[Shard], work: Work, actors: int | None
) -> Generator[Result, None, None]:
    """Do shards on the cluster; results in the order in which they are finished.

    Args:
        shards: taken as workers ask for them.
        work: what to do with each, on a device of the workers.
        actors: how many hold the model; None for as many as there is room for, also later.

    Raises:
        InputError: the cluster has no room for one, or its workers cannot go on.
    """
    from .work import ABREAST, Result

    def lost(task: Task, why: str) -> tuple[list[Task], list[Result]]:
        if task.losses < LOSSES:
            return [task], []
        problem = f"{LOSSES} workers were lost with it ({why}); it is left out"
        return [], [Result(task.given.name, problem=problem)]

    pool = Pool(connect(), Worker, work, work.job.device, map(Task, shards), lost, actors, ABREAST)
    with closing(pool.results()) as results:
        yield from results
