"""Pixels against other readers or files written byte by byte: bits, byte orders, meanings of zero."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from pyiqa_ma_agiqa import InputError
from pyiqa_ma_agiqa.input_checks import read_tensor

from .images import picture

HEIGHT, WIDTH = 24, 32
DEEP = np.random.default_rng(3).integers(0, 2**16, (HEIGHT, WIDTH), np.uint16)
COLOURS = np.random.default_rng(4).integers(0, 2**16, (HEIGHT, WIDTH, 3), np.uint16)
PICTURE = picture(HEIGHT, WIDTH)


def pixels(content):
    """(H, W, 3) in [0, 1]."""
    return read_tensor(content)[0].permute(1, 2, 0).numpy()


def assert_grey(content, expected, tolerance=1e-6):
    found = pixels(content)
    assert found.shape == (*expected.shape, 3)
    assert np.abs(found - expected[:, :, None]).max() <= tolerance


def tiff(array, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def packed(values, bits):
    """Big-endian bit fields, each row filled up to whole bytes."""
    places = np.arange(bits - 1, -1, -1)
    fields = (values[:, :, None] >> places) & 1
    return np.packbits(fields.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def tiff_of_fields(values, bits, white_is_zero):
    """A TIFF that tifffile does not write: one strip, little-endian."""
    content = packed(values, bits)
    tags = {256: WIDTH, 257: HEIGHT, 258: bits, 259: 1, 262: 1 - white_is_zero}
    tags |= {273: 8 + 2 + 12 * 9 + 4, 277: 1, 278: HEIGHT, 279: len(content)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + content


def png_16_bits_with_alpha(values):
    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    rows = np.stack([values, values[::-1]], 2).astype(">u2")
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 4, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))
        + chunk(b"IEND", b"")
    )


class TestTiff:
    @pytest.mark.parametrize("compression", [None, "zlib"])
    @pytest.mark.parametrize("shift", [0, 8])
    def test_zero_is_white_where_the_file_says_so(self, compression, shift):
        values = DEEP if shift == 0 else (DEEP >> shift).astype(np.uint8)
        levels = values / np.iinfo(values.dtype).max
        for photometric, expected in (("minisblack", levels), ("miniswhite", 1 - levels)):
            content = tiff(values, photometric=photometric, compression=compression, byteorder="<")
            assert_grey(content, expected)
            assert_grey(Image.open(io.BytesIO(content)), expected)

    @pytest.mark.parametrize("white_is_zero", [False, True])
    @pytest.mark.parametrize("bits", [1, 2, 4])
    def test_few_bits(self, bits, white_is_zero):
        values = DEEP >> (16 - bits)
        levels = values / (2**bits - 1)
        assert_grey(tiff_of_fields(values, bits, white_is_zero), 1 - levels if white_is_zero else levels)

    def test_twelve_bits(self):
        values = DEEP >> 4
        assert_grey(tiff_of_fields(values, 12, white_is_zero=False), values / 4095)
        with pytest.raises(InputError, match="convert it to PNG"):
            read_tensor(tiff_of_fields(values, 12, white_is_zero=True))

    @pytest.mark.parametrize("compression", [None, "zlib"])
    def test_big_endian(self, compression):
        options = {"compression": compression, "byteorder": ">"}
        assert_grey(tiff(DEEP, photometric="minisblack", **options), DEEP / 65535)
        with pytest.raises(InputError, match="convert it to PNG"):
            read_tensor(tiff(DEEP, photometric="miniswhite", **options))

    @pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint32", "float32"])
    @pytest.mark.parametrize("byteorder", "<>")
    def test_without_a_range(self, dtype, byteorder):
        content = tiff(DEEP.astype(dtype), photometric="minisblack", byteorder=byteorder)
        with pytest.raises(InputError, match=r"no defined range; convert it to 8 bits|convert it to PNG"):
            read_tensor(content)

    def test_sixteen_bits_with_alpha_are_refused(self):
        content = tiff(np.stack([DEEP, DEEP], 2), photometric="minisblack", extrasamples=["unassalpha"])
        with pytest.raises(InputError, match="convert it to PNG"):
            read_tensor(content)

    def test_grey_times_alpha_is_refused_as_what_it_is(self):
        both = np.stack([DEEP >> 8, DEEP >> 9], 2).astype(np.uint8)
        content = tiff(both, photometric="minisblack", extrasamples=["assocalpha"])
        with pytest.raises(InputError, match="cannot be turned from La into RGB") as caught:
            read_tensor(content)
        assert "truncated" not in str(caught.value)

    def test_palette(self):
        palette = np.random.default_rng(5).integers(0, 256, (3, 256), np.uint16)
        indices = (DEEP >> 8).astype(np.uint8)
        content = tiff(indices, photometric="palette", colormap=palette * 257)
        assert np.abs(pixels(content) - palette.T[indices] / 255).max() < 1e-6

    def test_inks(self):
        inks = np.random.default_rng(6).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
        expected = (1 - inks[:, :, :3] / 255) * (1 - inks[:, :, 3:] / 255)
        assert np.abs(pixels(tiff(inks, photometric="separated")) - expected).max() <= 0.51 / 255

    @pytest.mark.parametrize("byteorder", "<>")
    def test_sixteen_bit_colours_are_read_to_eight(self, byteorder):
        content = tiff(COLOURS, photometric="rgb", byteorder=byteorder)
        assert np.abs(pixels(content) - (COLOURS >> 8) / 255).max() < 1e-6


class TestPng:
    def test_sixteen_bits(self):
        content = cv2.imencode(".png", DEEP)[1].tobytes()
        assert_grey(content, DEEP / 65535)

    def test_sixteen_bits_with_alpha_are_read_to_eight(self):
        assert_grey(png_16_bits_with_alpha(DEEP), (DEEP >> 8) / 255)

    def test_sixteen_bit_colours_are_read_to_eight(self):
        content = cv2.imencode(".png", COLOURS[:, :, ::-1])[1].tobytes()
        assert np.abs(pixels(content) - (COLOURS >> 8) / 255).max() < 1e-6


class TestNetpbm:
    """Written by hand, as all of PPM is."""

    @pytest.mark.parametrize("plain", [False, True])
    @pytest.mark.parametrize("most", [1, 100, 255, 256, 1000, 4095, 65535])
    @pytest.mark.parametrize("bands", [1, 3])
    def test_every_range(self, bands, most, plain):
        values = np.random.default_rng(most).integers(0, most + 1, (HEIGHT, WIDTH, bands))
        kind = {(1, False): 5, (3, False): 6, (1, True): 2, (3, True): 3}[bands, plain]
        body = values.astype(">u2" if most > 255 else "u1").tobytes()
        if plain:
            body = b" ".join(b"%d" % value for value in values.ravel())
        content = b"P%d %d %d %d\n" % (kind, WIDTH, HEIGHT, most) + body
        levels = 65535 if bands == 1 and most > 255 else 255  # grey keeps 16 bits
        expected = np.broadcast_to(values / most, (HEIGHT, WIDTH, 3))
        assert np.abs(pixels(content) - expected).max() <= 0.501 / levels

    def test_one_bit_is_black_where_it_is_set(self):
        bits = DEEP >> 15
        assert_grey(b"P4 %d %d\n" % (WIDTH, HEIGHT) + packed(bits, 1), 1.0 - bits)

    def test_floats_are_refused(self):
        content = b"Pf %d %d\n-1.0\n" % (WIDTH, HEIGHT) + (DEEP / 65535).astype("<f4").tobytes()
        with pytest.raises(InputError, match="no defined range"):
            read_tensor(content)


def qoi(array):
    """As the format's specification has it, with pixels in full, repeated and by their difference."""
    data, before = bytearray(), (0, 0, 0)
    for pixel in array.reshape(-1, 3).tolist():
        change = [(new - old + 2) % 256 for new, old in zip(pixel, before, strict=True)]
        if tuple(pixel) == before:
            data.append(0b11000000)
        elif max(change) < 4:
            data.append(0b01000000 | change[0] << 4 | change[1] << 2 | change[2])
        else:
            data += bytes([0b11111110, *pixel])
        before = tuple(pixel)
    height, width = array.shape[:2]
    return b"qoif" + struct.pack(">IIBB", width, height, 3, 0) + bytes(data) + bytes(7) + b"\1"


def test_qoi():
    flat = PICTURE // 64 * 64
    for array in (PICTURE, flat, PICTURE // 64):
        assert np.array_equal(pixels(qoi(array)) * 255, array)


def encoded(array, kind, **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


def test_jpeg_2000():
    content = encoded(PICTURE, "JPEG2000", irreversible=False)
    assert np.array_equal(cv2.imdecode(np.frombuffer(content, np.uint8), 1)[:, :, ::-1], PICTURE)
    assert np.array_equal(np.rint(pixels(content) * 255), PICTURE)


def test_jpeg_2000_of_sixteen_bits():
    assert_grey(encoded(DEEP, "JPEG2000", irreversible=False), DEEP / 65535)


def test_avif():
    grey = np.ascontiguousarray(PICTURE[:, :, 0])
    assert_grey(encoded(grey, "AVIF", quality=100), grey / 255)
    content = encoded(PICTURE, "AVIF", quality=100, subsampling="4:4:4")
    other = cv2.imdecode(np.frombuffer(content, np.uint8), 1)
    for expected in [PICTURE] if other is None else [PICTURE, other[:, :, ::-1]]:
        assert np.abs(pixels(content) * 255 - expected).max() <= 3.01


def test_sixteen_bits_of_other_formats_are_refused():
    """FITS: signed, and scaled by what its header says, which Pillow does not do."""
    cards = ["SIMPLE  = T", "BITPIX  = 16", "NAXIS   = 2", f"NAXIS1  = {WIDTH}", f"NAXIS2  = {HEIGHT}", "END"]
    header = "".join(card.ljust(80) for card in cards).ljust(2880)
    with pytest.raises(InputError, match="no defined range"):
        read_tensor(header.encode() + DEEP.astype(">u2").tobytes().ljust(2880, b"\0"))
