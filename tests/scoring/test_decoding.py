"""Untrusted files: limits before decoding, formats, fuzzing, pixels in flight."""

from __future__ import annotations

import io
import os
import struct
import sys
import threading
import zlib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pyiqa_ma_agiqa.input_checks import read_tensor
from pyiqa_ma_agiqa.scoring.inputs import decoding, storage
from pyiqa_ma_agiqa.scoring.inputs.decoding import Turns, decode, decode_ahead, prepare_pillow
from pyiqa_ma_agiqa.scoring.inputs.items import Item
from pyiqa_ma_agiqa.scoring.inputs.limits import Limits

from ..command_runs import ask, call_measured
from ..images import picture

LIMITS = Limits(max_pixels=100_000, max_bytes=2_000_000)
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM")


@pytest.fixture(autouse=True)
def pillow_prepared(monkeypatch):
    """Pillow as the command sets it, put back afterwards: its limit holds for the whole process."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    prepare_pillow()


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decode_bytes(content, tmp_path, limits=LIMITS):
    path = tmp_path / "image"
    path.write_bytes(content)
    return decode(Item(str(path)), limits)


def small():
    return Image.fromarray(picture(32, 40))


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    return {"exif": exif}


UNUSUAL = {
    "palette": lambda: saved(small().quantize(16), "PNG"),
    "transparent palette": lambda: saved(small().quantize(16), "GIF", transparency=3),
    "CMYK": lambda: saved(small().convert("CMYK"), "JPEG"),
    "transparent": lambda: saved(small().convert("RGBA"), "WEBP"),
    "animated": lambda: saved(small(), "GIF", save_all=True, append_images=[small().rotate(90)]),
    "animated WebP": lambda: saved(small(), "WEBP", save_all=True, append_images=[small().rotate(90)]),
    "EXIF-rotated": lambda: saved(small(), "JPEG", **rotated()),
    "EXIF-rotated TIFF": lambda: saved(small(), "TIFF", **rotated()),
    "one bit": lambda: saved(small().convert("1"), "PNG"),
    "multi-page": lambda: saved(small(), "TIFF", save_all=True, append_images=[small().rotate(90)]),
    "progressive": lambda: saved(small(), "JPEG", progressive=True),
    "polyglot": lambda: saved(small(), "PNG") + b"<html><script>alert(1)</script>PK\3\4",
}


@pytest.mark.parametrize("make", UNUSUAL.values(), ids=UNUSUAL)
def test_pixels_are_those_of_pyiqas_reader(make, tmp_path):
    from pyiqa.utils.img_util import imread2tensor

    content = make()
    decoded = decode_bytes(content, tmp_path)
    theirs = imread2tensor(content, rgb=True)[None]
    assert decoded.error == "" and torch.equal(decoded.pixels, theirs)
    assert (decoded.height, decoded.width) == theirs.shape[2:]


@pytest.mark.parametrize("kind", FORMATS)
def test_formats(kind, tmp_path):
    content = saved(small(), kind)
    decoded = decode_bytes(content, tmp_path)
    assert (decoded.width, decoded.height, decoded.error) == (40, 32, "")
    assert torch.equal(decoded.pixels, read_tensor(content))


def test_16_bit_grey_keeps_its_levels(tmp_path):
    levels = (np.arange(32 * 40).reshape(32, 40) * 50).astype(np.uint16)
    decoded = decode_bytes(saved(Image.fromarray(levels), "PNG"), tmp_path)
    assert torch.allclose(decoded.pixels[0, 0], torch.from_numpy(levels.astype(np.float32)) / 65535)


@pytest.mark.parametrize("kind", ["BMP", "TIFF"])
def test_pixels_are_those_that_were_read(kind, tmp_path):
    """Pillow would map uncompressed pixels from the file itself, which may be another one by then."""
    path = tmp_path / "image"
    first, second = (Image.new("L", (40, 32), level) for level in (10, 200))
    path.write_bytes(saved(first, kind))
    decoded = decode(Item(str(path)), LIMITS, lambda pixels: path.write_bytes(saved(second, kind)))
    assert torch.equal(decoded.pixels, read_tensor(first))


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bomb(side):
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(bytes(10**7), 1))
        + png_chunk(b"IEND", b"")
    )


def tiff(tags, content):
    """A little-endian TIFF with one directory; the value None of a tag stands for the content's place."""
    place = 8 + 2 + 12 * len(tags) + 4
    entries = [
        struct.pack("<HHII", tag, 4, 1, place if value is None else value) for tag, value in tags.items()
    ]
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(entries) + bytes(4) + content


def tile_bomb(side):
    content = zlib.compress(bytes(3 * side * side), 1)
    tags = {
        256: 64,
        257: 64,
        258: 8,
        259: 8,
        262: 1,
        277: 1,
        322: side,
        323: side,
        324: None,
        325: len(content),
    }
    return tiff(tags, content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png_bomb(300), "300 x 300 pixels are more than --max-pixels 50000"),
        (png_bomb(60_000), "60000 x 60000 pixels are more than --max-pixels 50000"),
        (tile_bomb(4000), "tiles of 4000 x 4000 pixels are more than --max-pixels 50000"),
        (saved(Image.new("1", (65_000, 2)), "PNG"), "65000 x 2 pixels are more"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 90\n", "not an image of the formats"),
        (b"", "is empty"),
        (b"<html>", "not an image"),
        (saved(Image.new("RGB", (15, 90)), "PNG"), "too few"),
        (saved(Image.fromarray(picture(64, 64)), "PNG")[:-3000], "truncated or damaged"),
        (saved(Image.new("F", (32, 32)), "TIFF"), "no defined range"),
    ],
)
def test_refused_with_a_reason(content, message, tmp_path):
    taken = []
    path = tmp_path / "image"
    path.write_bytes(content)
    decoded = decode(Item(str(path)), Limits(50_000, 2_000_000), taken.append)
    assert decoded.pixels is None and message in decoded.error
    assert "\n" not in decoded.error and str(path) not in decoded.error
    assert len(taken) == 1 and taken[0] <= 50_000


def test_a_file_over_the_limit_is_not_read(tmp_path):
    path = tmp_path / "sparse.png"
    with open(path, "wb") as file:
        file.truncate(10**12)
    assert "has 1000000000000 bytes, more than --max-bytes 2000000" in decode(Item(str(path)), LIMITS).error


def test_the_limit_itself_is_allowed(tmp_path):
    content = saved(Image.new("RGB", (50, 40)), "PNG")
    assert decode_bytes(content, tmp_path, Limits(2000, len(content))).error == ""
    assert decode_bytes(content, tmp_path, Limits(1999, len(content))).error
    assert decode_bytes(content, tmp_path, Limits(2000, len(content) - 1)).error


ORIGINALS = [saved(Image.fromarray(picture(24, 24)), kind) for kind in FORMATS]


@st.composite
def damaged_files(draw):
    content = bytearray(draw(st.sampled_from(ORIGINALS)))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, len(content) - 1) | st.integers(0, min(80, len(content) - 1)))
        patch = draw(st.binary(min_size=1, max_size=6) | st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff"]))
        content[place : place + draw(st.integers(0, len(patch)))] = patch
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(damaged_files() | st.binary(max_size=200))
def test_damaged_files_give_pixels_or_a_reason(tmp_path, content):
    decoded = decode_bytes(content, tmp_path)
    if decoded.error:
        assert decoded.pixels is None and decoded.error.strip()
    else:
        assert decoded.pixels.shape == (1, 3, decoded.height, decoded.width)
        assert decoded.pixels.min() >= 0 and decoded.pixels.max() <= 1


def test_decoded_ahead_in_order(tmp_path):
    items = []
    for number in range(40):
        path = tmp_path / f"{number}.png"
        if number % 7:
            Image.new("L", (16 + number, 20)).save(path)
        items.append((number, Item(str(path))))
    decoded = list(decode_ahead(iter(items), LIMITS, workers=3))
    assert [number for number, _ in decoded] == list(range(40))
    assert [image.width for _, image in decoded] == [16 + n if n % 7 else None for n in range(40)]


def test_decoding_stops_when_nobody_takes_the_images(tmp_path):
    Image.new("L", (300, 300)).save(tmp_path / "a.png")
    items = ((number, Item(str(tmp_path / "a.png"))) for number in range(10**6))
    with closing(decode_ahead(items, LIMITS, workers=2)) as images:
        next(images)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
    assert next(items)[0] < 10


@given(st.lists(st.integers(0, 15), max_size=30), st.integers(1, 4))
def test_pixels_in_flight_stay_within_the_room(sizes, workers):
    turns = Turns(10)
    held, most, ready = [0], [0], [threading.Event() for _ in sizes]
    lock = threading.Lock()

    def worker(offset):
        for ticket in range(offset, len(sizes), workers):
            turns.take(ticket, sizes[ticket])
            with lock:
                held[0] += sizes[ticket]
                most[0] = max(most[0], held[0])
            ready[ticket].set()

    threads = [threading.Thread(target=worker, args=[offset]) for offset in range(workers)]
    for thread in threads:
        thread.start()
    for ticket, size in enumerate(sizes):
        assert ready[ticket].wait(60), "deadlock"
        with lock:
            held[0] -= size
        turns.give_back(ticket)
    for thread in threads:
        thread.join(60)
    assert most[0] <= max(10, *sizes, 0)


def counted(monkeypatch):
    """A semaphore that each decoded image releases."""
    decoded = threading.Semaphore(0)

    def decode_and_count(*args):
        try:
            return decode(*args)
        finally:
            decoded.release()

    monkeypatch.setattr("pyiqa_ma_agiqa.scoring.inputs.decoding.decode", decode_and_count)
    return decoded


def test_decoding_runs_beside_the_consumer(tmp_path, monkeypatch):
    """While the consumer works on the first image, the next ones are decoded."""
    decoded = counted(monkeypatch)
    Image.fromarray(picture(30, 30)).save(tmp_path / "a.png")
    items = [(number, Item(str(tmp_path / "a.png"))) for number in range(6)]
    with closing(decode_ahead(iter(items), LIMITS, workers=2)) as images:
        next(images)
        assert all(decoded.acquire(timeout=60) for _ in range(4)), "they wait for the consumer"


def drain(folder, max_pixels, at_once):
    """Take images once so many are decoded ahead, by many threads."""
    items = ((number, Item(f"{folder}/{number}.png")) for number in range(6))
    with pytest.MonkeyPatch.context() as monkeypatch:
        decoded = counted(monkeypatch)
        for number, image in decode_ahead(items, Limits(max_pixels, 10**7), workers=8):
            assert not image.error
            if number == 0:
                assert all(decoded.acquire(timeout=60) for _ in range(at_once))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_bounded_by_the_limit_on_pixels(tmp_path):
    """Images that are large for the limit are decoded one at a time: 48 MB each in float32."""
    for number in range(6):
        Image.new("RGB", (2000, 2000)).save(tmp_path / f"{number}.png")
    one_at_a_time = call_measured(drain, str(tmp_path), 4_000_000, 1)
    all_at_once = call_measured(drain, str(tmp_path), 40_000_000, 6)
    assert one_at_a_time[0] == all_at_once[0] == 0
    assert one_at_a_time[1] < all_at_once[1] - 3 * 48


def tell_threads_of_decoding(told, path):
    torch.set_num_threads(4)
    (torch.ones(10**6) + 1).sum()  # the threads of this one

    def decode():
        before = set(os.listdir("/proc/self/task"))
        shape = read_tensor(path).shape
        told.send((tuple(shape), len(set(os.listdir("/proc/self/task")) - before)))

    thread = threading.Thread(target=decode)
    thread.start()
    thread.join()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="NOT CHECKED: no /proc to count threads in")
def test_decoding_in_a_thread_starts_no_others(tmp_path):
    """Else the steps of the network, in another thread, take twice as long."""
    Image.fromarray(picture(900, 700)).save(tmp_path / "large.png")
    status, found = ask(tell_threads_of_decoding, str(tmp_path / "large.png"))
    assert status == 0 and found == ((1, 3, 900, 700), 0)


def test_whoever_waits_for_a_store_is_not_waited_for(monkeypatch):
    """When rows are not wanted any more, as after Ctrl-C."""
    told = []

    def read(item, max_bytes):
        if item.name == "first":
            return b""
        told.append(storage.stopping.wait(60))
        return b""

    monkeypatch.setattr(decoding, "read_item", read)
    rows = decode_ahead(enumerate(map(Item, ["first", "second", "third", "fourth"])), LIMITS, 1)
    assert next(rows)[0] == 0
    rows.close()
    assert all(told) and not storage.stopping.is_set()
