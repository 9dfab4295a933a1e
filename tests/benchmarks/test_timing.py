"""Interleaved timing."""

from __future__ import annotations

from benchmarks.common import timing


def test_interleaved_times_every_call_once_a_round():
    calls: list[str] = []
    times = timing.interleaved(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 4, "cpu", "test"
    )
    assert {name: len(values) for name, values in times.items()} == {"a": 4, "b": 4}
    assert len(calls) == 2 + 2 * 2 * 4  # one warm-up each, then an untimed and a timed call a round


def test_what_takes_longest_is_in_every_fourth_round(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def call(duration):
        return lambda: clock.__setitem__(0, clock[0] + duration)

    times = timing.interleaved({"quick": call(1.0), "long": call(11.0)}, 6, "cpu", "test", longest=10)
    assert times["quick"].tolist() == [1.0] * 6
    assert [value == 11 for value in times["long"]] == [True, False, False, False, True, False]
    assert timing.spread(times["long"] / times["quick"]) == dict.fromkeys(timing.spread(times["quick"]), 11.0)
