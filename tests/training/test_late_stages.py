"""The late stages in their fast form are the network's own, with its gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pyiqa_ma_agiqa.training import late_stages as fast
from pyiqa_ma_agiqa.training.float_networks import FloatBranch


@pytest.fixture(scope="module")
def branch() -> FloatBranch:
    """Normalisations say something else for each channel, some nothing; ReLU6 cuts off at both ends."""
    torch.manual_seed(0)
    branch = FloatBranch().double()
    for layer in branch.network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 1)
            layer.weight.data[::7] = 0  # what such a channel says does not depend on its input
            layer.train()
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            layer.requires_grad_(False)
    with torch.no_grad():
        branch(torch.rand(4, 3, 96, 96, dtype=torch.float64))  # the normalisations learn its statistics
    return branch.eval()


def with_gradients(branch: FloatBranch, features: torch.Tensor) -> list[torch.Tensor]:
    """Features (N, C), and what changes them most."""
    branch.zero_grad()
    towards = torch.randn(features.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (features * towards).sum().backward()
    return [features.detach(), *(p.grad.clone() for p in branch.parameters() if p.grad is not None)]


@pytest.mark.parametrize("side", [64, 96])
@pytest.mark.parametrize("stages", [0, 4, 6])
def test_features_and_gradients_are_those_of_the_network(monkeypatch, branch, stages, side):
    monkeypatch.setattr(fast, "SIXTEEN_BITS", False)
    monkeypatch.setattr(fast, "AT_ONCE", 2)
    view = torch.rand(3, 3, side, side + 32, dtype=torch.float64)
    seen = branch.first(view, stages).detach()
    expected = with_gradients(branch, branch.rest(seen, stages).mean((2, 3)))
    found = with_gradients(branch, fast.late_stages(branch.network, seen, stages))
    assert len(found) == len(expected) > 8
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6 * float(other.abs().max()))


def test_sixteen_bits_are_near(monkeypatch, branch):
    seen = branch.first(torch.rand(2, 3, 96, 96, dtype=torch.float64), 4).detach()
    expected = with_gradients(branch, branch.rest(seen, 4).mean((2, 3)))
    monkeypatch.setattr(fast, "SIXTEEN_BITS", True)
    found = with_gradients(branch, fast.late_stages(branch.network, seen, 4))
    assert (found[0] - expected[0]).norm() < 0.05 * expected[0].norm()
    off, whole = (torch.cat([gradient.flatten() for gradient in each[1:]]) for each in (found, expected))
    assert torch.nn.functional.cosine_similarity(off, whole, 0) > 0.95
