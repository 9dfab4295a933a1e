"""The same job on a cluster, by Ray: workers hold the model, rows come back to the journal.

A worker scores a block of images at a time; what it comes to is written down here, by the one process
that has the journal. Blocks are made as workers ask for them, so the list may be of any length. The
block of a worker that is lost goes to another one. One on which worker after worker is lost is taken
apart, and an image that takes two workers with it by itself gets a row with that error.

Every machine needs this package installed, and must see the images under the same paths.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..errors import InputError, PluginError
from ..reason import reason
from .columns import Row
from .inputs.items import Item

if TYPE_CHECKING:
    from .scorer import Job

BLOCK = 64
"""Images that a worker scores in one go: what is scored again when it is lost."""
CORES = 4
"""Cores of a worker without a GPU, or as many as the smallest machine has."""
SECONDS_BETWEEN_LOOKS = 10
"""So often the machines of the cluster are counted, where no worker has anything to say."""
MACHINE_HAS = {"num_cpus": "CPU", "num_gpus": "GPU"}
"""What a worker takes, as Ray has it of workers and of machines."""
LOSSES = 2
"""So many workers may be lost with a block before it is taken apart, and with an image before its row."""


def connect() -> Any:
    """The module `ray`, connected to the cluster of RAY_ADDRESS, or to one that is started here.

    Raises:
        InputError: ray is not installed, or there is no such cluster.
    """
    try:
        import ray
    except ImportError:
        raise InputError("--engine ray: ray is not installed; pip install 'pyiqa-ma-agiqa[ray]'") from None
    if not ray.is_initialized():
        # One of our own is for this machine alone, so it need not be seen from others.
        own = {"address": "local", "_node_ip_address": "127.0.0.1", "include_dashboard": False}
        place: dict[str, Any] = {} if "RAY_ADDRESS" in os.environ else own
        try:
            ray.init(logging_level=logging.WARNING, log_to_driver=False, **place)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(
                f"--engine ray: no connection to the cluster ({reason(error)}); see RAY_ADDRESS"
            ) from None
    return ray


def cluster_device(ray: Any, name: str | None) -> str:
    """A device that the workers have: the one named, else a GPU where the cluster has any.

    Raises:
        InputError: one by its number, which each worker counts for itself.
    """
    if name and name.startswith("cuda:"):
        raise InputError(f"--device {name}: with --engine ray each worker has a GPU of its own; give cuda")
    return name or ("cuda" if ray.cluster_resources().get("GPU") else "cpu")


class Worker:
    """What runs on the cluster: holds the model, scores blocks."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def begin(self) -> None:
        """Load the model. Not in the constructor, whose errors Ray hands on as text only."""
        from .scorer import Scorer

        self.scorer = Scorer(self.job)

    def score(self, items: list[tuple[int, Item]]) -> list[tuple[int, Row]]:
        from .scorer import score_items

        return list(score_items(items, self.scorer, self.job))


@dataclass
class Block:
    """Images for a worker, and how many workers were lost with them."""

    items: list[tuple[int, Item]]
    losses: int = 0


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
    pool = _Pool(connect(), items, job, actors)
    try:
        while pool.running or pool.waiting:
            yield from pool.finished()
    finally:
        pool.stop()


class _Pool:
    """Workers, and the blocks that they score or that wait for them."""

    def __init__(self, ray: Any, items: Iterable[tuple[int, Item]], job: Job, actors: int | None) -> None:
        self.ray = ray
        self.job = job
        self.actors = actors
        self.blocks = _blocks(items)
        self.waiting: deque[Block] = deque()
        self.workers: list[Any] = []
        self.idle: list[Any] = []
        self.beginning: dict[Any, Any] = {}
        """What says that a worker has its model, and the worker."""
        self.running: dict[Any, tuple[Any, Block]] = {}
        """What will be the rows of a block, its worker, and the block."""
        self.false_starts = 0
        self.resources = _resources(self._machines(), job)
        self.start = ray.remote(**self.resources)(Worker).remote
        self._hand_out()

    def finished(self) -> Iterator[tuple[int, Row]]:
        """Wait until a worker has something to say; yields the rows, if that is what it has."""
        known = [*self.beginning, *self.running]
        ready, _ = self.ray.wait(known, num_returns=1, timeout=SECONDS_BETWEEN_LOOKS)
        rows = self._taken(ready[0]) if ready else []
        self._hand_out()  # before the rows are looked at, which takes time
        yield from rows

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
    remaining = iter(items)
    while block := list(islice(remaining, BLOCK)):
        yield Block([(number, _absolute(item)) for number, item in block])


def _absolute(item: Item) -> Item:
    """Workers run in other folders."""
    if item.container:
        return item._replace(container=os.path.abspath(item.container))
    return item._replace(name=os.path.abspath(item.name))
