"""`score --engine ray` on a real local cluster: the rows of the local engine, also when a worker is lost."""

from __future__ import annotations

import os
import threading
import time
import warnings
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pyarrow import dataset, parquet

from pyiqa_ma_agiqa.command.main import main

from .command_runs import make_images, rows_in

try:
    import ray
    from ray.cluster_utils import Cluster
except ImportError:
    ray = None
    warnings.warn(
        "ray is not installed: the cluster engine is NOT tested; pip install ray[data]", stacklevel=1
    )

needs_ray = pytest.mark.skipif(ray is None, reason="ray is not installed: the cluster engine is NOT tested")
COUNT, SHORT = 400, 40
PIQE = ("--metric", "piqe", "--device", "cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    make_images(folder / "images", COUNT, side=256)
    (folder / "images" / "00070.png").write_bytes(b"broken")
    files = sorted((folder / "images").iterdir())
    paths = pa.table({"path": [f"images/{file.name}" for file in files]})
    parquet.write_table(paths, folder / "list.parquet")
    contents = [*(file.read_bytes() for file in files[:SHORT]), b"broken"]
    parquet.write_table(pa.table({"image": contents}), folder / "bytes.parquet", row_group_size=16)
    return folder


@pytest.fixture(scope="module")
def cluster(images):
    """A head without cores and two workers of one core each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    workers = [cluster.add_node(num_cpus=1, include_dashboard=False) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster, workers
    ray.shutdown()
    cluster.shutdown()


def table(path):
    return dataset.dataset(path, format="parquet").to_table()


@needs_ray
def test_rows_are_those_of_the_local_engine(images, cluster, monkeypatch):
    monkeypatch.chdir(images)
    words = ["score", "bytes.parquet", "--column", "image", *PIQE, "--out"]
    assert main([*words, "local"]) == 1
    assert main([*words, "ray", "--engine", "ray"]) == 1
    assert os.listdir("ray") == ["part-00000.parquet"]
    assert table("ray").equals(table("local"))


@needs_ray
@pytest.mark.skipif(torch.backends.mps.is_available(), reason="has the device that must be absent")
def test_workers_that_cannot_begin_are_one_error(images, cluster, monkeypatch, capfd):
    monkeypatch.chdir(images)
    words = ["score", "list.parquet", "--out", "never", "--engine", "ray", "--device", "mps"]
    assert main(words) == 2
    (said,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "--engine ray: the workers stopped (--metric ma_agiqa: cannot be made" in said
    assert not Path("never").exists()


@needs_ray
def test_the_part_of_a_lost_worker_is_done_again(images, cluster, monkeypatch):
    monkeypatch.chdir(images)
    whole, workers = cluster
    assert main(["score", "list.parquet", *PIQE, "--out", "whole"]) == 1
    status = []
    words = ["score", "list.parquet", *PIQE, "--out", "lost", "--engine", "ray"]
    run = threading.Thread(target=lambda: status.append(main(words)), daemon=True)
    run.start()
    while rows_in(Path("lost.journal")) < 50:
        assert run.is_alive()
        time.sleep(0.05)
    whole.remove_node(workers.pop(), allow_graceful=False)
    done = rows_in(Path("lost.journal"))
    assert run.is_alive() and done < COUNT
    run.join(180)
    assert status == [1]
    assert len(ray.nodes()) == 3 and sum(node["Alive"] for node in ray.nodes()) == 2
    assert table("lost").equals(table("whole"))
