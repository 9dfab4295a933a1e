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
        return [], [(number, blank_row(job.shares) | {"error": f"the worker was lost with it ({why})"})]

    with closing(Pool(connect(), Worker, job, job.device, _blocks(items), lost, actors).results()) as rows:
        yield from rows

<<<<<<< ours

def _blocks(items: Iterable[tuple[int, Item]]) -> Iterator[Task]:
=======
    def _taken(self, done: Any) -> list[tuple[int, Row]]:
        worker, block = (self.beginning.pop(done), None) if done in self.beginning else self.running.pop(done)
        try:
            rows = self.ray.get(done)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, PluginError):
                raise _stopped(reason(error.cause)) from error
            raise error.cause from error
        except self.ray.exceptions.RayError as error:
            self._kill(worker)
            return self._lost(block, reason(error))
        self.idle.append(worker)
        self.false_starts = 0
        return rows or []

    def stop(self) -> None:
        for worker in list(self.workers):
            self._kill(worker)

    def _hand_out(self) -> None:
        """Give blocks to the workers that have none, and begin more workers where there is room."""
        while self.idle and self._blocks_wait(1):
            worker, block = self.idle.pop(), self.waiting.popleft()
            self.running[worker.score.remote(block.items)] = worker, block
        room = self._room()
        if not (room or self.actors or self.running) and self._blocks_wait(1):
            raise InputError(
                f"--engine ray: no machine of the cluster has {_told(self.resources)}; see `ray status`, or "
                "give --actors to wait for machines that the cluster adds"
            )
        # One more than there is room for: that is what makes a cluster add machines.
        wanted = self.actors or room + 1
        while len(self.workers) < wanted and self._blocks_wait(len(self.beginning) + 1):
            worker = self.start(self.job)
            self.workers.append(worker)
            self.beginning[worker.begin.remote()] = worker

    def _blocks_wait(self, count: int) -> bool:
        self.waiting.extend(islice(self.blocks, max(count - len(self.waiting), 0)))
        return len(self.waiting) >= count

    def _lost(self, block: Block | None, why: str) -> list[tuple[int, Row]]:
        """What becomes of the block of a worker that is lost: it waits again, or is a row."""
        if block is None:
            self.false_starts += 1
            if self.false_starts > len(self.workers) + 1:
                raise _stopped(f"they are lost while they load the metric: {why}")
            return []
        block.losses += 1
        if block.losses < LOSSES:
            self.waiting.appendleft(block)
        elif len(block.items) > 1:
            self.waiting.extendleft(Block([item]) for item in reversed(block.items))
        else:
            from .scorer import blank_row

            ((number, _),) = block.items
            blank = blank_row(self.job.shares, self.job.interval)
            return [(number, blank | {"error": f"the worker was lost with it ({why})"})]
        return []

    def _kill(self, worker: Any) -> None:
        self.workers.remove(worker)
        self.ray.kill(worker)

    def _machines(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def _room(self) -> int:
        """How many workers the machines of now have room for."""
        return sum(
            min(int(machine.get(MACHINE_HAS[name], 0) // count) for name, count in self.resources.items())
            for machine in self._machines()
        )


def _resources(machines: list[dict[str, float]], job: Job) -> dict[str, int]:
    """What a worker takes of its machine."""
    if job.device.startswith("cuda"):
        return {"num_gpus": 1, "num_cpus": 1}
    cores = [int(machine["CPU"]) for machine in machines if machine.get("CPU", 0) >= 1]
    return {"num_cpus": min([CORES, *cores])}


def _told(resources: dict[str, int]) -> str:
    return " and ".join(f"{count} {MACHINE_HAS[name]}" for name, count in resources.items())


def _stopped(why: str) -> InputError:
    return InputError(
        f"--engine ray: the workers stopped ({why}); mend that, then repeat the command to go on"
    )


def _blocks(items: Iterable[tuple[int, Item]]) -> Iterator[Block]:
>>>>>>> theirs
    remaining = iter(items)
    while block := list(islice(remaining, BLOCK)):
        yield Task([(number, item.found_from_anywhere()) for number, item in block])
