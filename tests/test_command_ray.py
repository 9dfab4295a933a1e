"""`score --engine ray` on a real local cluster: the rows of the local engine, also when workers are lost."""

from __future__ import annotations

import os
import sys
import time
import warnings
from itertools import count, islice
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from pyarrow import dataset, parquet

from pyiqa_ma_agiqa.command import ray_engine
from pyiqa_ma_agiqa.command.items import Item
from pyiqa_ma_agiqa.command.journal import Journal
from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.command.ray_engine import BLOCK, cluster_device, score_on_cluster
from pyiqa_ma_agiqa.errors import InputError

from .command_runs import make_images

try:
    import ray
    from ray.cluster_utils import Cluster
except ImportError:
    ray = None
    warnings.warn("ray is not installed: the cluster engine is NOT tested; pip install ray", stacklevel=1)

pytestmark = pytest.mark.skipif(ray is None, reason="ray is not installed: the cluster engine is NOT tested")
JOB = SimpleNamespace(device="cpu", shares=False, lost=False)
"""A job for `Light`; a real one would have its workers import torch."""
ON_RAY = ["--engine", "ray"]


class Light:
    """A worker without a model, so that its process starts quickly; what it does is in the images' names."""

    def __init__(self, job):
        self.images = 0

    def begin(self):
        pass

    def score(self, items):
        rows = []
        for number, item in items:
            name = os.path.basename(item.name)
            if name == "poison.png":
                os._exit(1)
            if name == "bug.png":
                raise LookupError("a bug\nof ours")
            if name == "slow.png":
                time.sleep(0.05)
            self.images += 1
            context = ray.get_runtime_context()
            place = {"node": context.get_node_id(), "worker": context.get_actor_id()}
            rows.append((number, place | {"path": item.name, "together": len(items)}))
        return rows


class Faulty(Light):
    """Cannot begin, or is lost as it begins."""

    def __init__(self, job):
        self.job = job

    def begin(self):
        if self.job.lost:
            os._exit(1)
        raise InputError("no weights\nanywhere")


@pytest.fixture(scope="module")
def cluster():
    """Two machines of one core each."""
    whole = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    whole.add_node(num_cpus=1, include_dashboard=False)
    ray.init(address=whole.address, log_to_driver=False)
    # Workers cannot import the tests.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield whole
    ray.shutdown()
    whole.shutdown()


@pytest.fixture
def light(cluster, monkeypatch):
    monkeypatch.setattr(ray_engine, "Worker", Light)


def named(*names):
    return [(number, Item(name)) for number, name in enumerate(names)]


def workers_begun():
    return {worker for worker, facts in ray._private.state.actors().items() if facts["StartTime"]}


def table(path):
    return dataset.dataset(path, format="parquet").to_table()


def test_a_run_goes_on_on_either_engine(cluster, tmp_path, monkeypatch, capsys):
    """Stopped on this machine, stopped on the cluster, ended on this machine: the rows of one run."""
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / "images", 2 * BLOCK + 40)
    files = sorted((tmp_path / "images").iterdir())
    paths = [f"images/{file.name}" for file in files[:BLOCK]]
    contents = [*(file.read_bytes() for file in files[BLOCK:]), b"broken"]
    parquet.write_table(pa.table({"image": contents}), "bytes.parquet", row_group_size=50)
    words = ["score", *paths, "bytes.parquet", "--column", "image", "--metric", "entropy", "--device", "cpu"]
    assert main([*words, "--out", "whole"]) == 1
    add = Journal.add

    def stop_after(rows):
        numbers = count()

        def stopping(self, number, row):
            if next(numbers) == rows:
                raise KeyboardInterrupt
            add(self, number, row)

        monkeypatch.setattr(Journal, "add", stopping)

    stop_after(10)
    assert main([*words, "--out", "x"]) == 130
    stop_after(BLOCK)
    assert main([*words, "--out", "x", *ON_RAY]) == 130
    assert f"{BLOCK + 10} of {2 * BLOCK + 41} images have a row; the same" in capsys.readouterr().err
    monkeypatch.setattr(Journal, "add", add)
    assert main([*words, "--out", "x"]) == 1
    assert os.listdir("x") == ["part-00000.parquet"]
    assert table("x").equals(table("whole"))


def test_the_part_of_a_lost_machine_is_done_again(light, cluster):
    """The machine goes when both of its kind have a block."""
    machine = cluster.add_node(num_cpus=1, include_dashboard=False)
    rows = score_on_cluster(named(*["a.png"] * 10 * BLOCK), JOB, None)
    numbers = [next(rows)[0]]
    cluster.remove_node(machine, allow_graceful=False)
    numbers += [number for number, _ in rows]
    assert sorted(numbers) == list(range(10 * BLOCK))


def test_the_pool_grows_with_the_cluster(light, cluster):
    rows = score_on_cluster(((number, Item("slow.png")) for number in range(2000 * BLOCK)), JOB, None)
    places = {next(rows)[1]["node"]}
    machine = cluster.add_node(num_cpus=1, include_dashboard=False)
    try:
        assert any(row["node"] == machine.node_id for _, row in rows)
    finally:
        rows.close()
        cluster.remove_node(machine)
    assert machine.node_id not in places


def test_the_list_is_read_as_workers_ask_for_it(light):
    taken = count()
    items = ((next(taken), Item("a.png")) for _ in range(1000 * BLOCK))
    rows = score_on_cluster(items, JOB, None)
    before = [number for number, _ in islice(rows, 20 * BLOCK)]
    assert len(before) == 20 * BLOCK and next(taken) < 30 * BLOCK
    rows.close()


def test_an_image_that_takes_its_workers_with_it_is_a_row(light):
    items = named(*["a.png"] * 9, "poison.png", *["a.png"] * BLOCK)
    rows = dict(score_on_cluster(items, JOB, None))
    assert sorted(rows) == [number for number, _ in items]
    failed = rows.pop(9)
    assert set(failed) == {"score", "error", "width", "height"} and failed["score"] is None
    assert failed["error"].startswith("the worker was lost with it (") and "\n" not in failed["error"]
    assert {rows[number]["together"] for number in range(9)} == {1}
    assert rows[BLOCK + 9]["together"] == 10
    assert rows[0]["path"] == os.path.abspath("a.png")


@pytest.mark.parametrize("actors", [1, 2])
def test_so_many_actors_as_asked_for(light, actors):
    before = workers_begun()
    rows = score_on_cluster(named(*["slow.png"] * 6 * BLOCK), JOB, actors)
    assert len({row["worker"] for _, row in rows}) == actors
    assert len(workers_begun() - before) == actors


def test_workers_that_cannot_begin_are_one_error(light, monkeypatch):
    monkeypatch.setattr(ray_engine, "Worker", Faulty)
    with pytest.raises(InputError, match=r"the workers stopped \(no weights\); mend that"):
        list(score_on_cluster(named("a.png"), JOB, None))


def test_workers_that_are_lost_as_they_begin_are_one_error(light, monkeypatch):
    monkeypatch.setattr(ray_engine, "Worker", Faulty)
    lost = SimpleNamespace(device="cpu", shares=False, lost=True)
    with pytest.raises(InputError, match="they are lost while they load the metric"):
        list(score_on_cluster(named("a.png"), lost, None))


def test_a_bug_on_a_worker_is_raised_here(light):
    with pytest.raises(LookupError, match="a bug") as raised:
        list(score_on_cluster(named("bug.png"), JOB, None))
    assert "score" in str(raised.value.__cause__)  # the worker's traceback


def test_a_cluster_without_room_is_one_error(light):
    gpus = SimpleNamespace(device="cuda", shares=False)
    with pytest.raises(InputError, match="no machine of the cluster has 1 GPU and 1 CPU; see"):
        list(score_on_cluster(named("a.png"), gpus, None))


def test_a_device_by_its_number_is_refused(cluster, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / "images", 1)
    assert main(["score", "images", "--out", "x.csv", *ON_RAY, "--device", "cuda:1"]) == 2
    assert "--device cuda:1: with --engine ray each worker has a GPU of its own" in capsys.readouterr().err
    assert not list(Path().glob("x*"))
    assert cluster_device(ray, None) == "cpu"
