"""What a result file says of how it was made."""

from __future__ import annotations

import pytest

from benchmarks.common import machine
from benchmarks.common.places import BENCHMARKS


@pytest.mark.parametrize(
    ("script", "words", "command"),
    [
        (
            BENCHMARKS / "speed" / "efficiency.py",
            ["--rounds", "3"],
            "-m benchmarks.speed.efficiency --rounds 3",
        ),
        (
            BENCHMARKS / "speed" / "efficiency.py",
            ["--out", "/a/b c"],
            "-m benchmarks.speed.efficiency --out 'b c'",
        ),
        ("/elsewhere/other.py", [], "other.py"),
    ],
)
def test_the_command_makes_the_result_again(monkeypatch, script, words, command):
    """As `python -m` gives the path of a script; names in place of paths of the machine."""
    monkeypatch.setattr("sys.argv", [str(script), *words])
    assert machine.circumstances()["command"] == f"python {command}"
