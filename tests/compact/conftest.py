"""The metric, whole and with a tower of one block."""

from __future__ import annotations

import pyiqa
import pytest
import torch

from ..passed_by import with_a_short_tower


@pytest.fixture(scope="module")
def metric() -> torch.nn.Module:
    return pyiqa.create_metric("ma_agiqa", device="cpu")


@pytest.fixture(scope="module")
def short_metric(metric) -> torch.nn.Module:
    return with_a_short_tower(metric)
