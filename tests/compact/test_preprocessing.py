"""What every processor makes of an image alike."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyiqa_ma_agiqa.compact import preprocessing
from pyiqa_ma_agiqa.compact.preprocessing import encoder_size, resize


def image(height: int, width: int, seed: int) -> torch.Tensor:
    """Pixels of 8 bits; few levels in one half, so that many a resized pixel is half-way between two."""
    levels = torch.randint(0, 256, (1, 3, height, width), generator=torch.Generator().manual_seed(seed))
    levels[..., : width // 2] = levels[..., : width // 2] // 64 * 2 + 100
    return levels / 255


@settings(max_examples=30)
@given(height=st.integers(16, 700), width=st.integers(16, 700), seed=st.integers(0, 99))
def test_the_resize_of_a_gpu_gives_the_same_pixels(height, width, seed):
    """It is a product with weights, which is done here on the CPU; sums run in another order on a GPU."""
    pixels, size = image(height, width, seed), encoder_size(height, width)
    by_products = preprocessing._by_products(pixels.flip(3), size).flip(3)
    assert torch.equal(preprocessing._cut(by_products).clamp(0, 1).float(), resize(pixels, size))


@pytest.mark.parametrize("size", [(304, 304), (96, 200)])
def test_pixels_half_way_are_cut_to_the_same_side(size):
    """A hundred-millionth of the last digit kept, as processors differ in, moves no pixel."""
    generator = torch.Generator().manual_seed(0)
    halves = (torch.randint(0, 2**20, (1, 3, *size), generator=generator).double() + 0.5) / 2**20
    off = (torch.rand(halves.shape, generator=generator, dtype=torch.float64) - 0.5) * 2**-20 * 1e-4
    assert torch.equal(preprocessing._cut(halves + off), preprocessing._cut(halves))
