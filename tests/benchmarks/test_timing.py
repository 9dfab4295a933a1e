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
