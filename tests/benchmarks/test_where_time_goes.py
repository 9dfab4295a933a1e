"""Where the time of a score goes: every moment counts once, and the score stays what it is."""

from __future__ import annotations

import json
from itertools import count
from types import SimpleNamespace

import pytest
import torch

from benchmarks.common import tables, timing
from benchmarks.speed import where_time_goes
from pyiqa_ma_agiqa.compact.arithmetic import integers

from ..passed_by import with_a_short_tower


@pytest.fixture(scope="module")
def metric(untrained_metric):
    return with_a_short_tower(untrained_metric)


def look_at(monkeypatch, now) -> None:
    """Has what is timed look at a clock of its own, which no load of the machine changes."""
    for module in (where_time_goes, timing):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=now))


def test_a_step_does_not_count_the_time_of_those_it_calls(monkeypatch):
    now = [0]
    look_at(monkeypatch, lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    clock = where_time_goes.Clock()
    product = clock.timed(where_time_goes.PRODUCTS, lambda: wait(40))

    def linear():
        wait(20)
        product()
        product()

    clock.timed("scales", linear)()
    clock.timed(where_time_goes.ATTENTION, lambda: (wait(10), product()))()
    # Attention keeps its own products.
    expected = {where_time_goes.PRODUCTS: 80, "scales": 20, where_time_goes.ATTENTION: 50}
    assert clock.seconds == expected


def test_parts_make_up_a_score_that_stays_the_same(metric, monkeypatch):
    image = torch.rand(1, 3, 48, 80, generator=torch.Generator().manual_seed(0))
    expected, attend = metric(image), integers.attend
    scores, looks = [], count()
    look_at(monkeypatch, looks.__next__)
    with torch.inference_mode():
        began = next(looks)
        parts = where_time_goes.of_parts(lambda: scores.append(metric(image)))
        taken = next(looks) - began
    assert torch.equal(scores[0], expected)
    assert integers.attend is attend
    assert list(parts) == [*where_time_goes.STEPS, where_time_goes.OTHER]
    assert all(seconds > 0 for seconds in parts.values())
    assert 0.5 * taken < sum(parts.values()) <= taken


def test_the_result_reaches_its_table(tmp_path, monkeypatch, metric):
    threads = torch.get_num_threads()
    monkeypatch.setattr(where_time_goes, "SIDE", 64)
    monkeypatch.setattr(where_time_goes, "create", lambda name: metric)
    words = ["--rounds", "1", "--threads", "1", "--out", str(tmp_path / "speed")]
    monkeypatch.setattr("sys.argv", ["where_time_goes.py", *words])
    try:
        where_time_goes.main()
    finally:
        torch.set_num_threads(threads)
    found = json.loads((tmp_path / "speed" / "where_time_goes.json").read_text())
    shares = found["by_threads"]["1"]["share_of_the_score"]
    assert sum(share["median"] for share in shares.values()) == pytest.approx(1, rel=1e-4)
    text = tables.TABLES["where_time_goes"](tmp_path)
    assert text.startswith(tables.BLOCKS["where_time_goes"].begins)
    assert f"| {100 * shares['attention']['median']:.0f} % |" in text
    assert "| the whole score | " in text and "64 x 64, medians of 1 rounds" in text
