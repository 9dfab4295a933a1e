"""Images that end early, whoever sets Pillow's flag and when; one image in many threads."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageFile

from pyiqa_ma_agiqa import InputError
from pyiqa_ma_agiqa.input_checks import read_tensor

KINDS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM", "QOI")


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def cut(content, share=0.7):
    return content[: int(len(content) * share)]


@pytest.fixture(autouse=True)
def flag(monkeypatch):
    """Sets Pillow's flag, which is put back after the test."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)

    def set_to(value):
        ImageFile.LOAD_TRUNCATED_IMAGES = value

    return set_to


class SetsTheFlag(io.BytesIO):
    """A file during whose reading other code sets the flag."""

    on = False

    def read(self, *args):
        ImageFile.LOAD_TRUNCATED_IMAGES = self.on
        return super().read(*args)


@pytest.mark.parametrize("kind", KINDS)
def test_refused_whenever_the_flag_is_set(kind, photo, flag):
    content = cut(encoded(photo, kind), 0.99 if kind == "AVIF" else 0.7)
    for before in (False, True):
        for during in (False, True):
            with pytest.raises(InputError, match=r"truncated or damaged|not an image"):
                flag(before)
                read_tensor(content)
            file = SetsTheFlag(content)
            try:
                image = Image.open(file)
            except OSError:  # WebP is checked as it is opened
                continue
            file.on = during
            flag(before)
            with pytest.raises(InputError, match="truncated or damaged"):
                read_tensor(image)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_images_are_read_whenever_the_flag_is_set(kind, photo, flag):
    content = encoded(photo, kind)
    expected = read_tensor(content)
    flag(True)
    assert torch.equal(read_tensor(content), expected)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize(
    "options",
    [{"compression": "zlib"}, {"rowsperstrip": 7}, {"tile": (16, 16)}, {"planarconfig": "separate"}],
    ids=str,
)
def test_kinds_of_tiff(options, photo, flag):
    file = io.BytesIO()
    array = np.asarray(photo)
    if "planarconfig" in options:
        array = np.ascontiguousarray(array.transpose(2, 0, 1))
    tifffile.imwrite(file, array, photometric="rgb", **options)
    content = file.getvalue()
    for value in (False, True):
        flag(value)
        assert torch.equal(read_tensor(content), read_tensor(photo))
        with pytest.raises(InputError, match="truncated or damaged"):
            read_tensor(cut(content))


@pytest.mark.parametrize("options", [{"progressive": True}, {"optimize": True}], ids=str)
def test_kinds_of_jpeg(options, photo, flag):
    flag(True)
    for share in (0.3, 0.9, 0.99):
        with pytest.raises(InputError, match="truncated or damaged"):
            read_tensor(cut(encoded(photo, "JPEG", **options), share))


def test_damaged_data_are_refused(photo, flag):
    content = bytearray(encoded(photo, "PNG"))
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    flag(True)
    for _ in range(2):
        with pytest.raises(InputError, match="truncated or damaged"):
            read_tensor(bytes(content))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF"])
def test_an_image_that_was_refused_stays_refused_and_is_its_owners(kind, photo, flag):
    image = Image.open(io.BytesIO(cut(encoded(photo, kind))))
    tiles = list(image.tile)
    for _ in range(3):
        with pytest.raises(InputError, match="truncated or damaged"):
            read_tensor(image)
    assert image.tile == tiles


def test_a_jpeg_that_was_loaded_with_the_flag_is_refused(photo, flag):
    flag(True)
    image = Image.open(io.BytesIO(cut(encoded(photo, "JPEG"))))
    image.load()
    flag(False)
    with pytest.raises(InputError, match="truncated or damaged"):
        read_tensor(image)


def test_many_truncated_files_in_threads(photo, flag):
    """As they are met in practice: the flag is on, and files are read side by side."""
    flag(True)
    content = cut(encoded(photo, "JPEG"))

    def accepted(_):
        try:
            read_tensor(content)
        except InputError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert not any(pool.map(accepted, range(200)))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


class OneReader(io.BytesIO):
    """A file that notes whether a second thread comes while one reads."""

    def __init__(self, content):
        super().__init__(content)
        self.watched = self.shared = False
        self.free = threading.Lock()
        self.second = threading.Event()

    def read(self, *args):
        if self.watched:
            if not self.free.acquire(blocking=False):
                self.shared = True
                self.second.set()
                return super().read(*args)
            self.second.wait(0.05)  # time for a fault to show; none is needed to pass
            self.free.release()
        return super().read(*args)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
def test_one_pillow_image_in_several_threads(kind, photo):
    content = encoded(photo, kind)
    expected = read_tensor(content)
    file = OneReader(content)
    image = Image.open(file)
    file.watched = True
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(read_tensor, [image] * 4):
            assert torch.equal(found, expected)
    assert not file.shared
