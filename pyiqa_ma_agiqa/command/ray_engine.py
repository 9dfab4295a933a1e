"""The same job on a cluster, by Ray Data: an actor pool holds the model, rows come back to the journal.

The pool scores blocks of images; what a block comes to is written down here, by the one process that
has the journal. Ray gives the block of a worker that is lost to another one; as rows have numbers, a
block that was scored twice is in the journal once.

Every machine needs this package installed, and must see the images under the same paths.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow

from ..errors import InputError
from .columns import Row, columns
from .items import Item
from .scoring import Job, Scorer, score_items

BLOCK = 64
"""Images that a worker scores in one go: what is scored again when it is lost."""
CORES = 4
"""Cores of a worker without a GPU, or as many as the smallest machine has."""
NUMBER = "number"
_ITEMS = pyarrow.schema(
    [
        (NUMBER, pyarrow.int64()),
        ("name", pyarrow.binary()),
        ("container", pyarrow.binary()),
        ("start", pyarrow.int64()),
        ("size", pyarrow.int64()),
        ("column", pyarrow.string()),
        ("problem", pyarrow.string()),
    ]
)
_TYPES = {str: pyarrow.string(), float: pyarrow.float64(), int: pyarrow.int64()}


def connect() -> Any:
    """The module `ray`, connected to the cluster of RAY_ADDRESS, or to one that is started here.

    Raises:
        InputError: ray is not installed, or there is no such cluster.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise InputError("--engine ray: ray is not installed; pip install 'pyiqa-ma-agiqa[ray]'") from None
    if not ray.is_initialized():
        # One of our own is for this machine alone, so it need not be seen from others.
        own = {"address": "local", "_node_ip_address": "127.0.0.1", "include_dashboard": False}
        place: dict[str, Any] = {} if "RAY_ADDRESS" in os.environ else own
        try:
            ray.init(logging_level=logging.WARNING, log_to_driver=False, **place)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"--engine ray: no connection to the cluster ({reason}); see RAY_ADDRESS"
            ) from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are reported once, below
    return ray


def cluster_device(ray: Any, name: str | None) -> str:
    """A device that the workers have: the one named, else a GPU where the cluster has any."""
    return name or ("cuda" if ray.cluster_resources().get("GPU") else "cpu")


class BlockScorer:
    """What an actor of the pool holds and does."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.scorer = Scorer(job)
        fields = [(name, _TYPES[kind]) for name, kind in columns(job.shares).items() if name != "path"]
        self.schema = pyarrow.schema([(NUMBER, pyarrow.int64()), *fields])

    def __call__(self, block: pyarrow.Table) -> pyarrow.Table:
        rows = score_items(_unpack(block), self.scorer, self.job)
        return pyarrow.Table.from_pylist([row | {NUMBER: number} for number, row in rows], self.schema)


def score_on_cluster(
    items: Iterable[tuple[int, Item]], job: Job, actors: int | None
) -> Generator[tuple[int, Row], None, None]:
    """Score images on the cluster; every one gives one row, in the order in which blocks are finished.

    Args:
        items: number and image.
        job: how to score, on a device of the workers.
        actors: how many hold the model; None for as many as there is room for.

    Raises:
        InputError: the cluster has no room for one, or its workers cannot go on.
    """
    ray = connect()
    resources, room = _place(ray, job)
    if room < 1:
        raise InputError(f"--engine ray: no machine of the cluster has {resources} free; see `ray status`")
    dataset = ray.data.from_arrow(list(_pack(items))).map_batches(
        BlockScorer,
        fn_constructor_args=[job],
        compute=ray.data.ActorPoolStrategy(size=actors or room),
        batch_size=None,
        batch_format="pyarrow",
        **resources,
    )
    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in batch.to_pylist():
                yield row.pop(NUMBER), row
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("pyiqa_ma_agiqa.errors.InputError: ")
        raise InputError(
            f"--engine ray: the workers stopped ({reason}); mend that, then repeat the command to go on"
        ) from None


def _place(ray: Any, job: Job) -> tuple[dict[str, float], int]:
    """Resources of an actor, and how many actors the cluster has room for."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if job.device.startswith("cuda"):
        return {"num_gpus": 1, "num_cpus": 1}, int(sum(machine.get("GPU", 0) for machine in machines))
    cores = [int(machine["CPU"]) for machine in machines if machine.get("CPU", 0) >= 1]
    each = min([CORES, *cores])
    return {"num_cpus": each}, sum(count // each for count in cores)


def _pack(items: Iterable[tuple[int, Item]]) -> Iterator[pyarrow.Table]:
    remaining = iter(items)
    while block := list(islice(remaining, BLOCK)):
        cells = zip(*(_cells(number, item) for number, item in block), strict=True)
        yield pyarrow.Table.from_arrays(
            [pyarrow.array(values, field.type) for values, field in zip(cells, _ITEMS, strict=True)],
            schema=_ITEMS,
        )


def _cells(number: int, item: Item) -> tuple[Any, ...]:
    name, container, *rest = item
    # Workers run in other folders.
    if container:
        container = os.path.abspath(container)
    else:
        name = os.path.abspath(name)
    return (number, os.fsencode(name), os.fsencode(container), *rest)


def _unpack(block: pyarrow.Table) -> Iterator[tuple[int, Item]]:
    for row in block.to_pylist():
        name, container = os.fsdecode(row["name"]), os.fsdecode(row["container"])
        yield (
            row[NUMBER],
            Item(
                name,
                container,
                row["start"],
                row["size"],
                row["column"],
                row["problem"],
            ),
        )
