"""Workers on a Ray cluster that hold the model, and what they are given: a task at a time, or a few.

Tasks are made as workers ask for them, so there may be any number. That of a worker that is lost goes to
another one, by itself, so that a second loss has one task to blame.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from itertools import islice
from typing import Any

from ..errors import InputError, PluginError
from ..reason import reason

CORES = 4
"""Cores of a worker without a GPU, or as many as the smallest machine has."""
SECONDS_BETWEEN_LOOKS = 10
"""So often the machines of the cluster are counted, where no worker has anything to say."""
MACHINE_HAS = {"num_cpus": "CPU", "num_gpus": "GPU"}
"""What a worker takes, as Ray has it of workers and of machines."""


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


class Task:
    """What a worker is given in one go.

    Attributes:
        given: what it is called with.
        losses: how many workers were lost with it.
    """

    def __init__(self, given: Any) -> None:
        self.given = given
        self.losses = 0


Lost = Callable[[Task, str], tuple[list[Task], list[Any]]]
"""Of a task with which a worker was lost, and why that was: the tasks to be given first, and results."""


class Pool:
    """Workers, and the tasks that they are at or that wait for them.

    Args:
        ray: connected.
        worker: the class that runs on the cluster: made with `job`, it loads the model with `begin`, and
            does a task with `do`, which gives a list of results.
        job: for the workers.
        device: of a worker.
        tasks: taken as workers ask for them.
        lost: what becomes of a task with which a worker was lost.
        actors: how many workers; None for as many as there is room for, also later.
        abreast: tasks that a worker does at a time.
    """

    def __init__(
        self,
        ray: Any,
        worker: type,
        job: Any,
        device: str,
        tasks: Iterable[Task],
        lost: Lost,
        actors: int | None,
        abreast: int = 1,
    ) -> None:
        self.ray = ray
        self.job = job
        self.actors = actors
        self.abreast = abreast
        self.tasks = iter(tasks)
        self.lost = lost
        self.waiting: deque[Task] = deque()
        self.free: dict[Any, int] = {}
        """Of each worker that has begun: how many more tasks it may be given."""
        self.beginning: dict[Any, Any] = {}
        """What says that a worker has its model, and the worker."""
        self.running: dict[Any, tuple[Any, Task, int]] = {}
        """What will be the results of a task, its worker, the task, and how much of the worker it takes."""
        self.false_starts = 0
        self.resources = _resources(self._machines(), device)
        options = self.resources | ({"max_concurrency": abreast} if abreast > 1 else {})
        self.start = ray.remote(**options)(worker).remote

    def results(self) -> Generator[Any, None, None]:
        """All results, in the order in which tasks are finished.

        Raises:
            InputError: the cluster has no room for a worker, or the workers cannot go on.
        """
        try:
            self._hand_out()
            while self.running or self.waiting:
                # One more than there is room for may never begin.
                known = [*self.beginning, *self.running]
                ready, _ = self.ray.wait(known, num_returns=1, timeout=SECONDS_BETWEEN_LOOKS)
                results = self._taken(ready[0]) if ready else []
                self._hand_out()  # before the results are looked at, which takes time
                yield from results
        finally:
            for worker in [*self.free, *self.beginning.values()]:
                self.ray.kill(worker)

    def _taken(self, done: Any) -> list[Any]:
        if done in self.beginning:
            worker, task, share = self.beginning.pop(done), None, self.abreast
            self.free[worker] = 0
        else:
            worker, task, share = self.running.pop(done)
        try:
            results = self.ray.get(done)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, PluginError):
                raise _stopped(reason(error.cause)) from error
            raise error.cause from error
        except self.ray.exceptions.RayError as error:
            if self.free.pop(worker, None) is not None:
                self.ray.kill(worker)
            return self._lost(task, reason(error))
        if worker in self.free:
            self.free[worker] += share
        self.false_starts = 0
        return results or []

    def _hand_out(self) -> None:
        """Give tasks to the workers that have room, and begin more workers where there is room."""
        while self._tasks_wait(1) and (worker := self._worker_for(self.waiting[0])):
            task = self.waiting.popleft()
            share = self.abreast if task.losses else 1
            self.free[worker] -= share
            self.running[worker.do.remote(task.given)] = worker, task, share
        room = self._room()
        if not (room or self.actors or self.running) and self._tasks_wait(1):
            raise InputError(
                f"--engine ray: no machine of the cluster has {_told(self.resources)}; see `ray status`, or "
                "give --actors to wait for machines that the cluster adds"
            )
        # One more than there is room for: that is what makes a cluster add machines.
        wanted = self.actors or room + 1
        while len(self.free) + len(self.beginning) < wanted and self._tasks_wait(len(self.beginning) + 1):
            worker = self.start(self.job)
            self.beginning[worker.begin.remote()] = worker

    def _worker_for(self, task: Task) -> Any:
        """The freest worker, if it has room: for a task with which a worker was lost, all of it."""
        worker = max(self.free, key=self.free.__getitem__, default=None)
        return worker if worker and self.free[worker] >= (self.abreast if task.losses else 1) else None

    def _tasks_wait(self, count: int) -> bool:
        self.waiting.extend(islice(self.tasks, max(count - len(self.waiting), 0)))
        return len(self.waiting) >= count

    def _lost(self, task: Task | None, why: str) -> list[Any]:
        if task is None:
            self.false_starts += 1
            if self.false_starts > len(self.free) + len(self.beginning) + 1:
                raise _stopped(f"they are lost while they load the metric: {why}")
            return []
        task.losses += 1
        again, results = self.lost(task, why)
        self.waiting.extendleft(reversed(again))
        return results

    def _machines(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def _room(self) -> int:
        """How many workers the machines of now have room for."""
        return sum(
            min(int(machine.get(MACHINE_HAS[name], 0) // count) for name, count in self.resources.items())
            for machine in self._machines()
        )


def _resources(machines: list[dict[str, float]], device: str) -> dict[str, int]:
    """What a worker takes of its machine."""
    if device.startswith("cuda"):
        return {"num_gpus": 1, "num_cpus": 1}
    cores = [int(machine["CPU"]) for machine in machines if machine.get("CPU", 0) >= 1]
    return {"num_cpus": min([CORES, *cores])}


def _told(resources: dict[str, int]) -> str:
    return " and ".join(f"{count} {MACHINE_HAS[name]}" for name, count in resources.items())


def _stopped(why: str) -> InputError:
    return InputError(
        f"--engine ray: the workers stopped ({why}); mend that, then repeat the command to go on"
    )
