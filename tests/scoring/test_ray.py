"""`score --engine ray` on a real local cluster: the rows of the local engine, also when workers are lost."""

from __future__ import annotations

import os
import time
from itertools import count, islice
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from pyarrow import dataset, parquet

from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.errors import InputError
from pyiqa_ma_agiqa.scoring import ray_engine as engine
from pyiqa_ma_agiqa.scoring.inputs.items import Item
from pyiqa_ma_agiqa.scoring.ray_engine import BLOCK, score_on_cluster
from pyiqa_ma_agiqa.scoring.ray_pool import cluster_device
from pyiqa_ma_agiqa.scoring.rows.journal import Journal

from ..command_runs import make_images
from .conftest import MACHINE, needs_ray, ray

pytestmark = needs_ray
JOB = SimpleNamespace(device="cpu", shares=False, interval=False, lost=False)
"""A job for `Light`; a real one would have its workers import torch."""
ON_RAY = ["--engine", "ray"]


class Light:
    """A worker; what it does is in the images' names."""

    def __init__(self, job):
        pass

    def begin(self):
        pass

    def do(self, items):
        rows = []
        for number, item in items:
            name = os.path.basename(item.name)
            if name == "poison.png":
                os._exit(1)
            if name == "bug.png":
                raise LookupError("a bug\nof ours")
            if number % BLOCK == 0:
                time.sleep(0.05)  # or a worker would do all before another one begins
            place = ray.get_runtime_context().get_node_id()
            rows.append((number, {"path": item.name, "together": len(items), "node": place}))
        return rows


class Faulty(Light):
    """Cannot begin, or is lost as it begins."""

    def __init__(self, job):
        self.job = job

    def begin(self):
        if self.job.lost:
            os._exit(1)
        raise InputError("no weights\nanywhere")


def named(*names):
    return [(number, Item(name)) for number, name in enumerate(names)]


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
    assert main([*words, "--out", "x", *ON_RAY, "--actors", "1"]) == 130
    assert f"{BLOCK + 10} of {2 * BLOCK + 41} images have a row; the same" in capsys.readouterr().err
    monkeypatch.setattr(Journal, "add", add)
    assert main([*words, "--out", "x"]) == 1
    assert os.listdir("x") == ["part-00000.parquet"]
    assert table("x").equals(table("whole"))


def test_the_list_is_read_as_workers_ask_for_it(light):
    given = count()
    items = ((next(given), Item("a.png")) for _ in range(1000 * BLOCK))
    rows = score_on_cluster(items, JOB, None)
    assert len(list(islice(rows, 5 * BLOCK))) == 5 * BLOCK
    assert next(given) < 10 * BLOCK
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


@pytest.mark.parametrize(("actors", "begun"), [(1, 1), (3, 3), (None, 2)])
def test_so_many_actors_as_asked_for(light, actors, begun):
    """Or as many as there is room for, and one that waits for a machine to be added."""
    before = len(ray._private.state.actors())
    rows = score_on_cluster(named(*["a.png"] * 5 * BLOCK), JOB, actors)
    next(rows)
    assert len(ray._private.state.actors()) - before == begun
    rows.close()


def test_workers_that_cannot_begin_are_one_error(light, monkeypatch):
    monkeypatch.setattr(engine, "Worker", Faulty)
    with pytest.raises(InputError, match=r"the workers stopped \(no weights\); mend that"):
        list(score_on_cluster(named("a.png"), JOB, None))


def test_workers_that_are_lost_as_they_begin_are_one_error(light, monkeypatch):
    monkeypatch.setattr(engine, "Worker", Faulty)
    lost = SimpleNamespace(device="cpu", shares=False, interval=False, lost=True)
    with pytest.raises(InputError, match="they are lost while they load the metric"):
        list(score_on_cluster(named("a.png"), lost, None))


def test_a_bug_on_a_worker_is_raised_here(light):
    with pytest.raises(LookupError, match="a bug") as raised:
        list(score_on_cluster(named("bug.png"), JOB, None))
    assert "in do" in str(raised.value.__cause__)  # the worker's traceback


def test_a_cluster_without_room_is_one_error(light):
    gpus = SimpleNamespace(device="cuda", shares=False, interval=False)
    with pytest.raises(InputError, match="no machine of the cluster has 1 GPU and 1 CPU; see"):
        list(score_on_cluster(named("a.png"), gpus, None))


def test_a_device_by_its_number_is_refused(cluster, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / "images", 1)
    assert main(["score", "images", "--out", "x.csv", *ON_RAY, "--device", "cuda:1"]) == 2
    assert "--device cuda:1: with --engine ray each worker has a GPU of its own" in capsys.readouterr().err
    assert not list(Path().glob("x*"))
    assert cluster_device(ray, None) == "cpu"


def test_machines_come_and_go(light, cluster):
    """The pool grows to a machine that is added; when that is lost, its block is done again.

    The last test, since Ray counts a lost machine for a while.
    """
    given, enough = [], []

    def items():
        while not enough and len(given) < 5000 * BLOCK:  # minutes
            given.append(len(given))
            yield given[-1], Item("a.png")

    rows = score_on_cluster(items(), JOB, None)
    number, row = next(rows)
    done, places = [number], {row["node"]}
    machine = cluster.add_node(**MACHINE)
    assert places == {cluster.head_node.node_id}
    for number, row in rows:
        done.append(number)
        if row["node"] == machine.node_id and not enough:
            enough.append(True)
            cluster.remove_node(machine, allow_graceful=False)  # it has been given its next block
    assert enough and sorted(done) == given
