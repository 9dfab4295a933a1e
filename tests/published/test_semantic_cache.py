"""Semantic vectors on disk: read once, the same for every process, never wrong."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyiqa_ma_agiqa import InputError
from pyiqa_ma_agiqa.published.semantic_cache import SemanticCache

from ..command_runs import FORKS
from ..images import batch


class Encoder:
    """A stand-in with real arithmetic: vectors are functions of the pixels, and calls are counted."""

    def __init__(self, identity="one"):
        self.identity = identity
        self.images = 0

    def __call__(self, pixels):
        self.images += len(pixels)
        levels = (pixels * 255).round().double()
        low = levels.flatten(1).mean(1)
        high = levels.flatten(1).std(1)
        return torch.stack([torch.outer(low, torch.arange(1, 6)), torch.outer(high, torch.arange(5))], 1)


def files(folder):
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


@settings(max_examples=20)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=6), st.lists(st.integers(0, 4), min_size=1, max_size=6)
)
def test_the_same_vectors_whatever_is_there_already(tmp_path_factory, first, second):
    images, encoder = batch(5, 20, 24), Encoder()
    cache = SemanticCache(tmp_path_factory.mktemp("cache"), encoder)
    for rows in (first, second):
        torch.testing.assert_close(cache(images[rows]), encoder(images[rows]).float(), rtol=0, atol=0)
    encoder.images = 0
    cache(images[first + second])
    assert encoder.images == 0
    assert len(files(cache.folder)) == len({*first, *second})


def test_an_image_is_known_by_its_pixels_and_size(tmp_path):
    encoder = Encoder()
    cache = SemanticCache(tmp_path, encoder)
    image = batch(1, 20, 24)
    cache(image)
    cache(image + 1e-4)
    assert encoder.images == 1, "the same eight bits"
    changed = image.clone()
    changed[0, 1, 3, 5] = 1 - changed[0, 1, 3, 5].round()
    cache(changed)
    cache(image.reshape(1, 3, 24, 20))
    assert encoder.images == 3


def test_another_model_has_vectors_of_its_own(tmp_path):
    image = batch(1, 20, 24)
    SemanticCache(tmp_path, Encoder("one"))(image)
    other = Encoder("two")
    SemanticCache(tmp_path, other)(image)
    assert other.images == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "digest only"])
def test_a_damaged_entry_is_computed_again(tmp_path, damage):
    encoder, image = Encoder(), batch(1, 20, 24)
    cache = SemanticCache(tmp_path, encoder)
    good = cache(image)
    [file] = files(tmp_path)
    content = bytearray(file.read_bytes())
    content[-3] ^= 4
    pieces = {"cut": content[:-8], "flipped": content, "empty": b"", "digest only": content[:32]}
    file.write_bytes(bytes(pieces[damage]))
    assert torch.equal(cache(image), good) and encoder.images == 2
    assert torch.equal(cache(image), good) and encoder.images == 2


def test_a_folder_may_be_shared_with_others(tmp_path):
    umask = os.umask(0o002)
    try:
        SemanticCache(tmp_path / "cache", Encoder())(batch(1, 20, 24))
    finally:
        os.umask(umask)
    [file] = files(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o664
    assert file.parent.stat().st_mode & 0o777 == 0o775


class Failing(Encoder):
    """Gives NaN for the second image of each batch."""

    def __call__(self, pixels):
        vectors = super().__call__(pixels)
        vectors[1:2] = torch.nan
        return vectors


def test_vectors_that_are_not_finite_are_not_kept(tmp_path):
    images = batch(3, 20, 24)
    assert SemanticCache(tmp_path, Failing())(images)[1].isnan().all()
    assert len(files(tmp_path)) == 2, "the others are good"
    encoder = Encoder()
    torch.testing.assert_close(SemanticCache(tmp_path, encoder)(images), Encoder()(images).float())
    assert encoder.images == 1


def test_vectors_that_are_not_finite_and_were_kept_are_computed_again(tmp_path):
    encoder, image = Encoder(), batch(1, 20, 24)
    cache = SemanticCache(tmp_path, encoder)
    good = cache(image)
    [file] = files(tmp_path)
    content = np.full(good.shape, np.inf, "<f4").tobytes()
    file.write_bytes(hashlib.sha256(content).digest() + content)
    assert torch.equal(cache(image), good) and encoder.images == 2
    assert torch.equal(cache(image), good) and encoder.images == 2


def _fill(folder, rows, barrier):
    cache = SemanticCache(folder, Encoder())
    images = batch(8, 20, 24)
    barrier.wait()
    for row in rows:
        cache(images[row : row + 1])


def test_several_processes_share_a_folder(tmp_path):
    barrier = FORKS.Barrier(3, timeout=300)
    orders = ([*range(8)], [*range(8)], [*reversed(range(8))])
    workers = [FORKS.Process(target=_fill, args=(tmp_path, order, barrier)) for order in orders]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    encoder, images = Encoder(), batch(8, 20, 24)
    torch.testing.assert_close(SemanticCache(tmp_path, encoder)(images), encoder(images).float())
    assert encoder.images == 8, "only the comparison encoded anything"
    assert len(files(tmp_path)) == 8, "no half-written file is left"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"semantic_cache=.*file/inside: cannot be made"):
        SemanticCache(tmp_path / "file" / "inside", Encoder())


def test_a_full_disk_costs_the_cache_but_not_the_vectors(small_disk, logged):
    (small_disk / "ballast").write_bytes(os.urandom(2**20 - 4096))
    encoder, images = Encoder(), batch(4, 20, 24)
    vectors = SemanticCache(small_disk, encoder)(images)
    torch.testing.assert_close(vectors, encoder(images).float())
    assert sum("cannot be written (No space left on device)" in line for line in logged) == 1
    assert not [path for path in files(small_disk) if path.suffix == ".part"]
