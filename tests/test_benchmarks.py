"""The benchmarks of robustness and speed."""

from __future__ import annotations

import importlib

import numpy as np
import pandas as pd
import pytest

from .conftest import ROOT
from .images import picture

FOLDER = ROOT / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """Imports a module of benchmarks/ as a run of a script there does."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def test_levels_of_degradation(script):
    robustness = script("robustness")
    falling, constant = np.linspace(4, 1, 8), np.full(8, 2.0)
    table = pd.concat(
        pd.DataFrame({"photo": "p", "kind": kind, "level": range(8), "score": scores})
        for kind, scores in {"falling": falling, "rising": -falling, "constant": constant}.items()
    )
    pairs = robustness.summary(table).set_index("kind")
    assert pairs["rank_correlation"].to_dict() == pytest.approx({"falling": -1, "rising": 1, "constant": 0})
    assert pairs.index[pairs["steady"]].tolist() == ["falling"]
    image = picture(90, 160)
    assert robustness.cropped(image, 1.0).shape == (90, 90, 3)
    assert robustness.cropped(image, 3.0).shape == (53, 160, 3)
    assert robustness.left_small(image, 0.0, np.random.default_rng(0)).shape == (60, 107, 3)


def test_every_photograph_comes_with_scikit_image(script, monkeypatch):
    import socket

    def refused(*_):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refused)
    robustness = script("robustness")
    for name in robustness.PHOTOS:
        image = robustness.photograph(name)
        assert image.dtype == np.uint8
        assert image.shape[2] == 3


def test_interleaved_times_every_call_once_a_round(script):
    calls: list[str] = []
    times = script("timing").interleaved(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 4, "cpu", "test"
    )
    assert {name: len(values) for name, values in times.items()} == {"a": 4, "b": 4}
    assert len(calls) == 2 + 2 * 2 * 4  # one warm-up each, then an untimed and a timed call a round
