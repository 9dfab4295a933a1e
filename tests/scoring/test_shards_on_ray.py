"""Shards on a real local cluster: done once, also when workers or machines are lost; flat memory."""

from __future__ import annotations

import os
import sys
import time
from itertools import count
from threading import Barrier
from types import SimpleNamespace

import pytest

from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.scoring.inputs.expanding import expanded
from pyiqa_ma_agiqa.scoring.ray_pool import Pool, Task
from pyiqa_ma_agiqa.scoring.shards import on_ray as engine
from pyiqa_ma_agiqa.scoring.shards.run import _tally, _watched
from pyiqa_ma_agiqa.scoring.shards.shard import Shard, shard_at
from pyiqa_ma_agiqa.scoring.shards.work import ABREAST, Result

from ..command_runs import call_measured
from .conftest import MACHINE, needs_ray, ray
from .made_shards import ENTROPY, make_tars, rows, score

pytestmark = needs_ray
WORK = SimpleNamespace(job=SimpleNamespace(device="cpu"))


class Light:
    """A worker; what it does is in the shards' names."""

    def __init__(self, work):
        self.at_work = 0
        self.together = Barrier(ABREAST, timeout=300)

    def begin(self):
        pass

    def do(self, shard):
        self.at_work += 1
        if "beside" in shard.name:
            self.together.wait()
        time.sleep(0.02)
        if "poison" in shard.name:
            os._exit(1)
        together, self.at_work = self.at_work, self.at_work - 1
        place = ray.get_runtime_context().get_node_id()
        return [SimpleNamespace(shard=shard.name, images=together, problem="", place=place)]


def test_the_rows_of_one_machine(cluster, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_tars(tmp_path / "in", 5)
    score("in/*.tar", out="plain")
    score("in/x-00[01].tar", out="out")
    command = ["score", "in/x-{000..005}.tar", *ENTROPY, "--engine", "ray", "--actors", "1", "--out", "out"]
    assert main(command) == 1
    told = capsys.readouterr().out
    assert "3 scored, 2 there already, 1 not read\n  in/x-005.tar: no such file" in told
    assert rows("out") == rows("plain") and sorted(os.listdir("out")) == sorted(os.listdir("plain"))


def test_a_shard_that_kills_its_worker_twice_is_left_out(light):
    names = [
        *(f"{number}.tar" for number in range(6)),
        "poison.tar",
        *(f"{number}.tar" for number in range(6, 10)),
        *(f"beside-{number}.tar" for number in range(ABREAST)),
    ]
    results = list(engine.shards_on_cluster(map(shard_at, names), WORK, 1))
    assert sorted(result.shard for result in results) == sorted(names)
    (left_out,) = [result for result in results if result.problem]
    assert left_out.shard == "poison.tar" and left_out.problem.startswith("2 workers were lost with it (")
    assert max(result.images for result in results) == ABREAST


def test_the_shards_of_a_machine_that_is_lost_are_done_again(light, cluster):
    """The last test on the cluster, since Ray counts a lost machine for a while."""
    given, enough = count(), []

    def shards():
        while not enough and (number := next(given)) < 30_000:  # minutes
            yield shard_at(f"{number}.tar")

    machine = cluster.add_node(**MACHINE)
    done = []
    for result in engine.shards_on_cluster(shards(), WORK, None):
        done.append(result.shard)
        assert not result.problem
        if result.place == machine.node_id and not enough:
            enough.append(True)
            cluster.remove_node(machine, allow_graceful=False)  # it has been given its next shards
    assert enough and sorted(done) == sorted(f"{number}.tar" for number in range(len(done)))


class AtOnce:
    """What the pool uses of Ray, with workers that are done when they are asked."""

    exceptions = SimpleNamespace(RayTaskError=KeyError, RayError=KeyError)

    def __init__(self):
        self.numbers, self.done = count(), {}

    def remote(self, **resources):
        def call(method):
            def remote(*given):
                number = next(self.numbers)
                self.done[number] = method(*given)
                return number

            return SimpleNamespace(remote=remote)

        class Handle:
            def __init__(self, worker):
                self.begin, self.do = call(worker.begin), call(worker.do)

        return lambda worker: SimpleNamespace(remote=lambda job: Handle(worker(job)))

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 8}}]

    def wait(self, known, num_returns, timeout):
        return known[:1], known[1:]

    def get(self, number):
        return self.done.pop(number)

    def kill(self, worker):
        pass


class StandIn:
    def __init__(self, work):
        pass

    def begin(self):
        pass

    def do(self, shard: Shard):
        return [Result(shard.name, images=1000, total=1.0, made=True)]


def drive(shards):
    given = map(shard_at, expanded(f"s3://images/x-{{000000..{shards - 1:06}}}.tar"))
    pool = Pool(AtOnce(), StandIn, None, "cpu", map(Task, given), lambda task, why: ([], []), 4, ABREAST)
    tally = _tally(_watched(pool.results()), time.monotonic())
    assert tally.images == 1000 * shards and tally.made == shards


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_driver_keeps_nothing_of_a_shard():
    """Their names are a list of texts, some 60 bytes each; nothing else grows: less than 200 a shard."""
    few, many = call_measured(drive, 1000), call_measured(drive, 31_000)
    assert few[0] == many[0] == 0
    assert many[1] - few[1] < 30_000 * 200 / 2**20
