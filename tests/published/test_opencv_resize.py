"""The resize against OpenCV's own."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pyiqa_ma_agiqa.published.resize import opencv_bicubic

from ..published_nets import CASES, case_image

SIZE = (224, 224)
HAS_IPP = cv2.ipp.useIPP()


def noise(height: int, width: int, seed: int = 0, kind: str = "noise") -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "black and white":
        return 255 * rng.integers(0, 2, (height, width, 3), dtype=np.uint8)
    if kind == "smooth":
        rows, columns = np.mgrid[0:height, 0:width] / (height + width)
        return np.stack([255 * rows, 255 * columns, 128 + 90 * np.sin(30 * rows)], -1).astype(np.uint8)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def to_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def levels(pixels: torch.Tensor) -> np.ndarray:
    """Levels (H, W, 3) of (1, 3, H, W) in [0, 1], which must be whole."""
    values = 255 * pixels[0].permute(1, 2, 0).double().numpy()
    np.testing.assert_allclose(values, np.rint(values), atol=1e-4)
    return np.rint(values).astype(int)


def exact_levels(image: np.ndarray) -> np.ndarray:
    """Before rounding, by PyTorch, whose bicubic kernel is the same one."""
    values = F.interpolate(torch.from_numpy(image).permute(2, 0, 1)[None].double(), SIZE, mode="bicubic")
    return values[0].permute(1, 2, 0).numpy()


def check_against_opencv(image: np.ndarray) -> None:
    ours = levels(opencv_bicubic(to_tensor(image), SIZE))
    theirs = cv2.resize(image, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    assert np.abs(ours - theirs).max() <= 1
    if HAS_IPP:  # it rounds a tie up or down as the processor has it
        exact = exact_levels(image)[ours != theirs]
        np.testing.assert_allclose(exact - np.floor(exact), 0.5, atol=1e-4)


sides = st.one_of(st.integers(16, 300), st.integers(300, 1600))
kinds = st.sampled_from(["noise", "black and white", "smooth"])


@settings(max_examples=40)
@given(height=sides, width=sides, seed=st.integers(0, 99), kind=kinds)
def test_any_size_as_opencv(height, width, seed, kind):
    check_against_opencv(noise(height, width, seed, kind))


@pytest.mark.parametrize(
    ("height", "width"),
    [(16, 16), (16, 4096), (4096, 17), (224, 500), (500, 224), (223, 225), (448, 448), (4096, 3000)],
)
def test_extreme_sizes_as_opencv(height, width):
    check_against_opencv(noise(height, width))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"seed {case['seed']}")
def test_golden_sums_of_levels(case):
    assert levels(opencv_bicubic(case_image(case), SIZE)).sum() == case["resized_uint8_sum"]


def test_an_image_that_fits_stays_as_it_is():
    image = noise(224, 224)
    assert (levels(opencv_bicubic(to_tensor(image), SIZE)) == image).all()


def test_pixels_count_by_their_level():
    image = to_tensor(noise(300, 400))
    between = (image + 0.4 / 255 * (2 * torch.rand(image.shape) - 1)).clamp(0, 1)
    for size in (SIZE, (300, 400)):
        assert torch.equal(opencv_bicubic(between, size), opencv_bicubic(image, size))


def test_values_outside_the_range_are_cut_off():
    image = 3 * torch.rand(1, 3, 90, 70, generator=torch.Generator().manual_seed(0)) - 1
    resized = opencv_bicubic(image, SIZE)
    assert torch.equal(resized, opencv_bicubic(image.clamp(0, 1), SIZE))
    assert resized.min() >= 0
    assert resized.max() <= 1


def test_a_batch_resizes_as_single_images():
    images = torch.rand(3, 3, 100, 130, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([opencv_bicubic(image[None], SIZE) for image in images])
    assert torch.equal(opencv_bicubic(images, SIZE), alone)


@pytest.mark.parametrize(("height", "width"), [(50, 300), (300, 50), (448, 448), (17, 23)])
def test_gradients_are_those_of_the_interpolation(height, width):
    generator = torch.Generator().manual_seed(0)
    # Contrast low enough that nothing overshoots: there the gradient is 0.
    image = (0.4 + 0.2 * torch.rand(1, 3, height, width, generator=generator)).requires_grad_()
    direction = torch.randn(1, 3, *SIZE, generator=generator)
    (ours,) = torch.autograd.grad((opencv_bicubic(image, SIZE) * direction).sum(), image)
    # PyTorch's bicubic has the same kernel, and no rounding.
    smooth = F.interpolate(image, SIZE, mode="bicubic", align_corners=False)
    (theirs,) = torch.autograd.grad((smooth * direction).sum(), image)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_no_gradient_where_the_result_is_cut_off():
    image = torch.zeros(1, 1, 56, 56)
    image[..., 28:] = 1
    image.requires_grad_()
    resized = opencv_bicubic(image, SIZE)
    over = F.interpolate(image.detach(), SIZE, mode="bicubic") > 1 + 1e-3
    assert over.any()
    (gradient,) = torch.autograd.grad(resized[over].sum(), image)
    assert not gradient.any()
