"""Matrices that are packed for the processor after some products."""

from __future__ import annotations

import pickle

import pytest
import torch

from pyiqa_ma_agiqa.compact.arithmetic import machine
from pyiqa_ma_agiqa.compact.arithmetic.layers import UNPACKED, QuantisedLinear


def test_products_with_a_packed_matrix(monkeypatch):
    """The same integers before and after it is packed, and those of another matrix once it changes."""
    if not machine._is_exact_packed_product():
        pytest.skip("oneDNN does not multiply signed bytes exactly here")
    monkeypatch.setattr(machine, "gains_by_packing", lambda device: True)
    layer = QuantisedLinear(768, 96)
    layer.draw()
    whole = torch.randint(-128, 128, (37, 768), generator=torch.Generator().manual_seed(0)).float()
    for _ in range(UNPACKED + 2):
        assert torch.equal(layer.product(whole), machine.integer_product(whole, layer.weight))
    assert layer._packed[1] is not None
    with torch.no_grad():
        layer.weight[5] = 3
    assert torch.equal(layer.product(whole)[:, 5], 3 * whole.sum(1))
    layer.set(torch.randn(96, 768, generator=torch.Generator().manual_seed(1)), torch.zeros(96))
    assert torch.equal(layer.product(whole), machine.integer_product(whole, layer.weight))
    other = pickle.loads(pickle.dumps(layer))
    assert other._packed == (None, None)
    assert torch.equal(other.product(whole), layer.product(whole))
