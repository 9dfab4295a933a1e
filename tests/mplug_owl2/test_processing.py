"""Pixels and prompts as mPLUG-Owl2 reads them, beside Pillow's and transformers' own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from pyiqa_ma_agiqa import WeightsError
from pyiqa_ma_agiqa.mplug_owl2.processing import FILE, ProcessorSettings, prepare_images
from pyiqa_ma_agiqa.mplug_owl2.prompts import PROMPTS, load_tokenizer, tokenise
from pyiqa_ma_agiqa.training.float_networks import CLIP_MEAN, CLIP_STD

from ..images import batch, picture
from ..tiny_lmm import processor_settings, train_tokenizer

COLOUR = (122, 116, 104)
"""int(255 * CLIP mean), written out."""


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def by_pillow(image: np.ndarray, settings: dict) -> torch.Tensor:
    """(3, side, side): the image pasted on a square, then transformers' own processor."""
    height, width = image.shape[:2]
    longer = max(height, width)
    square = Image.new("RGB", (longer, longer), COLOUR)
    square.paste(Image.fromarray(image), ((longer - width) // 2, (longer - height) // 2))
    processed = CLIPImageProcessorPil(**settings)(square, return_tensors="pt")["pixel_values"]
    return torch.as_tensor(np.asarray(processed[0]))


def assert_same_levels(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Not one of the 256 levels differs."""
    std = torch.tensor(CLIP_STD).view(3, 1, 1)
    torch.testing.assert_close(ours * std * 255, theirs * std * 255, rtol=0, atol=1e-3)


@settings(max_examples=25)
@given(
    height=st.integers(16, 400),
    width=st.integers(16, 400),
    side=st.sampled_from([28, 56, 224, 448]),
    noise=st.booleans(),
    seed=st.integers(0, 99),
)
@example(height=448, width=448, side=448, noise=True, seed=0)
@example(height=449, width=448, side=448, noise=True, seed=0)
@example(height=16, width=1999, side=448, noise=True, seed=0)
def test_exactly_what_pillow_and_the_clip_processor_make(height, width, side, noise, seed):
    image = picture(height, width, seed)
    if noise:
        image = np.random.default_rng(seed).integers(0, 256, image.shape).astype(np.uint8)
    given_settings = processor_settings(side)
    ours = prepare_images(tensor(image), ProcessorSettings.from_dict(given_settings))
    assert ours.shape == (1, 3, side, side)
    assert ours.dtype == torch.float32
    assert_same_levels(ours[0], by_pillow(image, given_settings))


def test_extreme_levels_do_not_leave_their_range():
    image = np.kron(np.random.default_rng(0).integers(0, 2, (20, 20, 1)) * 255, np.ones((7, 7, 3)))
    image = image.astype(np.uint8)
    for side in (60, 448):
        given_settings = processor_settings(side)
        ours = prepare_images(tensor(image), ProcessorSettings.from_dict(given_settings))
        assert_same_levels(ours[0], by_pillow(image, given_settings))


def test_a_batch_is_its_images():
    settings_of_model = ProcessorSettings.from_dict(processor_settings(56))
    images = batch(3, 90, 130)
    alone = torch.cat([prepare_images(image[None], settings_of_model) for image in images])
    assert torch.equal(prepare_images(images, settings_of_model), alone)


def test_levels_in_between_are_rounded_first():
    settings_of_model = ProcessorSettings.from_dict(processor_settings(56))
    image = picture(80, 80)
    moved = (tensor(image) + 0.4 / 255 * torch.rand(1, 3, 80, 80)).clamp(0, 1)
    assert torch.equal(
        prepare_images(moved, settings_of_model), prepare_images(tensor(image), settings_of_model)
    )


@pytest.mark.parametrize("shape", [(100, 60), (40, 30)])
def test_gradients_pass_the_roundings(shape):
    """Mean over the output by mean over the input: a resize keeps it, where the image is."""
    x = batch(1, *shape).requires_grad_()
    ours = prepare_images(x, ProcessorSettings.from_dict(processor_settings(56)))
    assert torch.equal(ours, prepare_images(x.detach(), ProcessorSettings.from_dict(processor_settings(56))))
    (gradient,) = torch.autograd.grad(ours.sum(), x)
    expected = torch.tensor([1 / std for std in CLIP_STD]) * (56 / max(shape)) ** 2 * shape[0] * shape[1]
    torch.testing.assert_close(gradient.sum((0, 2, 3)), expected, rtol=0.02, atol=0)
    assert (gradient.abs().sum(1) > 0).all()


@pytest.mark.parametrize(
    ("size", "crop"),
    [
        (56, 56),
        ({"shortest_edge": 56}, {"height": 56, "width": 56}),
        ({"height": 56, "width": 56}, None),
    ],
)
def test_old_and_new_forms_of_the_settings(size, crop, tmp_path):
    changed = processor_settings() | {"size": size, "crop_size": crop, "rescale_factor": 1 / 255}
    changed |= {"do_convert_rgb": True, "image_processor_type": "CLIPImageProcessor"}
    (tmp_path / FILE).write_text(json.dumps(changed))
    assert ProcessorSettings.from_folder(tmp_path) == ProcessorSettings(56, CLIP_MEAN, CLIP_STD)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("resample", 2),
        ("do_resize", False),
        ("do_normalize", False),
        ("do_rescale", False),
        ("rescale_factor", 1 / 127.5),
        ("size", None),
        ("size", {"longest_edge": 56}),
        ("size", {"height": 56, "width": 48}),
        ("size", "56"),
        ("size", 0),
        ("crop_size", 48),
        ("image_mean", None),
        ("image_std", [0.5]),
    ],
)
def test_settings_without_code_are_refused(key, value, tmp_path):
    (tmp_path / FILE).write_text(json.dumps(processor_settings() | {key: value}))
    with pytest.raises(WeightsError, match=f"{FILE}: {key} is"):
        ProcessorSettings.from_folder(tmp_path)


@pytest.mark.parametrize("content", [None, "no JSON", "[]"])
def test_settings_that_are_not_there_are_named(content, tmp_path):
    if content is not None:
        (tmp_path / FILE).write_text(content)
    with pytest.raises(WeightsError, match=FILE):
        ProcessorSettings.from_folder(tmp_path)


# Prompts -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(folder / "tokenizer.model")
    return folder


@pytest.mark.parametrize("prompt", PROMPTS)
def test_tokens_are_those_of_the_first_llama_tokenizer(folder, prompt):
    legacy = SentencePieceBackend(
        vocab_file=str(folder / "tokenizer.model"),
        legacy=True,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    before, after = prompt.split("<|image|>")
    wanted = [1, *legacy.encode(before, add_special_tokens=False), -200]
    wanted += legacy.encode(after, add_special_tokens=False)
    ids = tokenise(prompt, load_tokenizer(folder))
    assert ids == wanted
    assert ids.count(1) == 1
    pieces = legacy.convert_ids_to_tokens(ids[1 : ids.index(-200)])
    assert pieces[-1] == "<0x0A>"
    # The space that the second piece starts with, after the one that sentencepiece adds.
    rest = legacy.convert_ids_to_tokens(ids[ids.index(-200) + 1 :])
    assert "".join(rest) == "▁▁ASSISTANT:"


@pytest.mark.parametrize("content", [None, b"", b"<html>"])
def test_a_tokenizer_that_is_not_there_is_named(content, tmp_path):
    if content is not None:
        (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(WeightsError, match=r"tokenizer\.model"):
        load_tokenizer(tmp_path)
