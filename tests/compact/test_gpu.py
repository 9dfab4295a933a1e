"""Scores on a GPU are those of a CPU.

One digit of a float is enough to round a value to another integer, behind which a score is off by .01, but in
one image of five: a few images agree by luck.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch

from pyiqa_ma_agiqa.compact import preprocessing
from pyiqa_ma_agiqa.compact.arithmetic.exact import largest_size
from pyiqa_ma_agiqa.compact.semantic import WIDTH, SemanticEncoder

from ..images import batch

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="NO GPU AT HAND: GPU checks not run")
GRIDS = [(19, 19), (12, 30), (5, 65), (66, 5), (28, 13)]
"""Patches of views, down and across; position embeddings are learned on 14 x 14."""


@pytest.fixture(scope="module")
def encoder() -> SemanticEncoder:
    torch.manual_seed(0)
    return SemanticEncoder()


@pytest.mark.parametrize("grid", GRIDS)
def test_interpolation_by_products_gives_the_same_floats(encoder, grid):
    """It is what a GPU does, whose own interpolation gives another float for one position in a thousand."""
    found = preprocessing._by_products(encoder.positions[None], grid)[0].float()
    assert found.shape == (WIDTH, *grid)
    assert torch.equal(found.flatten(1).t(), encoder.positions_for(*grid))


@pytest.mark.parametrize(("shape", "dim"), [((5, 7, 64), -1), ((2, 1, 3, 19, 64), (-2, -1)), ((1, 1), 0)])
def test_the_norm_that_a_gpu_takes_is_the_largest_size(shape, dim):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = values.abs().amax(dim, keepdim=True)
    assert torch.equal(torch.linalg.vector_norm(values, math.inf, dim, keepdim=True), expected)
    assert torch.equal(largest_size(values, dim), expected)


@needs_gpu
@pytest.mark.parametrize("grid", GRIDS)
def test_positions_on_a_gpu_are_the_same_floats(encoder, grid):
    on_gpu = copy.deepcopy(encoder).cuda().positions_for(*grid)
    assert on_gpu.is_cuda
    assert torch.equal(on_gpu.cpu(), encoder.positions_for(*grid))


@needs_gpu
def test_scores_on_a_gpu_are_those_of_a_cpu(metric):
    images = batch(24, 300, 200)
    images = torch.cat([images[:12], images[12:].flip(1) ** torch.linspace(0.5, 2, 12).view(-1, 1, 1, 1)])
    assert len(images.flatten(1).unique(dim=0)) == 24
    expected = metric(images)
    moved = copy.deepcopy(metric).to("cuda")
    found = moved(images)
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-3)
    assert torch.equal(torch.cat([moved(one[None]) for one in images[:2]]), found[:2])
    assert torch.equal(moved.to("cpu")(images[:2]), expected[:2])
