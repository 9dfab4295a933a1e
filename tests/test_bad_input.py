"""Bad input: one clear error that names the file or the value and the cure; never a wrong score."""

from __future__ import annotations

import io
import os
import sys
import traceback
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from pyiqa.utils.img_util import imread2tensor

from pyiqa_ma_agiqa import InputError, WeightsError
from pyiqa_ma_agiqa.input_checks import check_tensor, read_tensor

from .passed_by import with_a_short_tower


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def truncated(photo, kind, share=0.6):
    content = encoded(photo, kind)
    return content[: int(len(content) * share)]


@pytest.fixture(scope="module")
def untrained_metric(untrained_metric):
    return with_a_short_tower(untrained_metric)


@pytest.fixture
def refuses(untrained_metric):
    """The metric refuses the input with one short error; returns its message."""

    def refuse(source, metric=untrained_metric, **options):
        with pytest.raises(InputError) as caught:
            metric(source, **options)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None or caught.value.__suppress_context__
        message = str(caught.value)
        assert "\n" not in message
        return message

    return refuse


class TestFiles:
    def test_missing(self, refuses, tmp_path):
        path = tmp_path / "missing.png"
        for source in (path, str(path)):
            assert refuses(source) == f"{path}: no such file; check the path"

    def test_empty_name(self, refuses):
        assert "no such file" in refuses("")

    def test_null_character(self, refuses):
        assert "null character" in refuses("a\0b.png")

    def test_name_too_long(self, refuses):
        assert "cannot be read" in refuses("a" * 5000)

    def test_folder(self, refuses, tmp_path):
        assert refuses(tmp_path).startswith(f"{tmp_path}: is a folder")

    def test_pipe(self, refuses, tmp_path):
        path = tmp_path / "pipe.png"
        os.mkfifo(path)
        assert refuses(path).startswith(f"{path}: is not a regular file")

    def test_no_bytes(self, refuses, tmp_path):
        path = tmp_path / "empty.png"
        path.touch()
        assert refuses(path).startswith(f"{path}: is empty")

    @pytest.mark.parametrize("content", [b"just a text\n", b"\x89PNG\r\n\x1a\n", b"<svg></svg>", b"\0" * 999])
    def test_not_an_image(self, refuses, tmp_path, content):
        path = tmp_path / "text.png"
        path.write_bytes(content)
        message = refuses(path)
        assert message.startswith(f"{path}: ")
        assert "convert it to PNG or JPEG" in message or "fetch the file again" in message

    @pytest.mark.parametrize("kind", ["PNG", "JPEG"])
    def test_truncated(self, refuses, tmp_path, photo, kind, monkeypatch):
        # pyiqa sets this when its AVA dataset is imported; Pillow then fills up with grey.
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        path = tmp_path / f"cut.{kind.lower()}"
        path.write_bytes(truncated(photo, kind))
        assert refuses(path).startswith(f"{path}: the image is truncated or damaged")

    def test_truncated_elsewhere_than_in_a_path(self, refuses, tmp_path, photo):
        content = truncated(photo, "PNG")
        path = tmp_path / "cut.png"
        path.write_bytes(content)
        assert f"{len(content)} bytes: the image is truncated" in refuses(content)
        with Image.open(path) as image:
            assert refuses(image).startswith(f"{path}: the image is truncated")
        with Image.open(io.BytesIO(content)) as image:
            assert refuses(image).startswith("the Pillow image: the image is truncated")

    def test_damaged_in_the_middle(self, refuses, tmp_path, photo):
        content = bytearray(encoded(photo))
        content[len(content) // 2] ^= 0x55
        path = tmp_path / "damaged.png"
        path.write_bytes(content)
        assert refuses(path).startswith(f"{path}: the image is truncated or damaged")

    def test_decompression_bomb(self, refuses, tmp_path, photo, monkeypatch):
        path = tmp_path / "bomb.png"
        photo.save(path)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        message = refuses(path)
        assert message.startswith(f"{path}: has more pixels than Pillow decodes")
        assert "MAX_IMAGE_PIXELS" in message

    @pytest.mark.parametrize("size", [(15, 64), (64, 15), (1, 1)])
    def test_too_small(self, refuses, tmp_path, size):
        path = tmp_path / "small.png"
        Image.new("RGB", size).save(path)
        message = refuses(path)
        assert message.startswith(f"{path}: {size[0]} x {size[1]} pixels are too few")
        assert "at least 16 pixels" in message

    @pytest.mark.parametrize("mode", ["I", "F"])
    def test_pixels_without_a_range(self, refuses, tmp_path, mode):
        path = tmp_path / "deep.tiff"
        Image.new(mode, (32, 32), 1).save(path)
        message = refuses(path)
        assert message.startswith(f"{path}: ")
        assert f"grey pixels (mode {mode}, TIFF) have no defined range" in message

    def test_folder_with_one_broken_image_on_the_command_line(
        self, tmp_path, photo, untrained_metric, monkeypatch
    ):
        import pyiqa.pyiqa_cmd as command

        photo.save(tmp_path / "a.png")
        (tmp_path / "b.jpg").write_bytes(truncated(photo, "JPEG"))
        monkeypatch.setattr(command, "create_metric", lambda name, **_: {"ma_agiqa": untrained_metric}[name])
        monkeypatch.setattr(sys, "argv", ["pyiqa", "ma_agiqa", "-t", str(tmp_path), "--device", "cpu"])
        with pytest.raises(InputError) as caught:
            command.main()
        assert str(caught.value).startswith(f"{tmp_path / 'b.jpg'}: the image is truncated")
        printed = "".join(traceback.format_exception(caught.value))
        assert printed.count("Traceback") == 1
        assert "PIL/" not in printed


class TestOtherTypes:
    def test_array(self, refuses):
        assert "PIL.Image.fromarray" in refuses(np.zeros((32, 32, 3), np.uint8))

    def test_list(self, refuses):
        assert "one image at a time" in refuses(["a.png", "b.png"])

    @pytest.mark.parametrize("source", [None, 7, 1.5, {}, object(), io.BytesIO(b"")])
    def test_anything_else(self, refuses, source):
        message = refuses(source)
        assert type(source).__name__ in message
        assert "give a path" in message


BAD_TENSORS = {
    "three dimensions": (torch.rand(3, 32, 32), "x.unsqueeze(0)"),
    "two dimensions": (torch.rand(32, 32), "give (N, 3, H, W)"),
    "scalar": (torch.tensor(0.5), "0 dimensions"),
    "empty batch": (torch.rand(0, 3, 32, 32), "empty batch; give at least one image"),
    "empty image": (torch.rand(1, 3, 0, 32), "at least 16 pixels"),
    "two channels": (torch.rand(1, 2, 32, 32), "2 channels"),
    "alpha": (torch.rand(1, 4, 32, 32), "x[:, :3]"),
    "channels last": (torch.rand(1, 32, 32, 3), "x.permute(0, 3, 1, 2)"),
    "too low": (torch.rand(1, 3, 15, 32), "at least 16 pixels"),
    "too narrow": (torch.rand(1, 3, 32, 15), "at least 16 pixels"),
    "bytes": (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "x.float() / 255"),
    "integers": (torch.zeros(1, 3, 32, 32, dtype=torch.int64), "torch.int64"),
    "booleans": (torch.zeros(1, 3, 32, 32, dtype=torch.bool), "torch.bool"),
    "complex": (torch.zeros(1, 3, 32, 32, dtype=torch.complex64), "torch.complex64"),
    "sparse": (torch.rand(1, 3, 32, 32).to_sparse(), "sparse"),
}
NOT_FINITE = {name: torch.full((1, 3, 32, 32), 0.5) for name in ("nan", "inf", "-inf")}
for name, tensor in NOT_FINITE.items():
    tensor[0, 1, 2, 3] = float(name)
OUTSIDE = {
    "0 to 255": (torch.linspace(0, 255, 3072).view(1, 3, 32, 32), "from 0 to 255", "divide by 255"),
    "-1 to 1": (torch.linspace(-1, 1, 3072).view(1, 3, 32, 32), "from -1 to 1", "scale or clamp"),
    "just above": (torch.full((1, 3, 32, 32), 1.00001), "to 1.00001", "scale or clamp"),
}


class TestTensors:
    @pytest.mark.parametrize("name", BAD_TENSORS)
    def test_shape_and_type(self, refuses, untrained_metric, name):
        tensor, cure = BAD_TENSORS[name]
        assert cure in refuses(tensor)
        assert cure in refuses(tensor, metric=untrained_metric.net)

    @pytest.mark.parametrize("name", NOT_FINITE)
    def test_not_finite(self, refuses, untrained_metric, name):
        for metric in (untrained_metric, untrained_metric.net):
            assert "NaN or infinite" in refuses(NOT_FINITE[name], metric=metric)

    @pytest.mark.parametrize("name", OUTSIDE)
    def test_range(self, refuses, untrained_metric, name):
        tensor, values, cure = OUTSIDE[name]
        for metric in (untrained_metric, untrained_metric.net):
            message = refuses(tensor, metric=metric)
            assert values in message
            assert cure in message

    def test_tolerance_is_that_of_pyiqa(self, untrained_metric):
        slightly = torch.full((1, 1, 16, 16), 1 + 9e-7)
        untrained_metric.is_valid_input(slightly)
        check_tensor(-slightly + 1)

    def test_no_range_for_losses_but_the_rest(self, refuses, untrained_metric, monkeypatch):
        monkeypatch.setattr(untrained_metric, "as_loss", True)
        monkeypatch.setattr(untrained_metric, "check_input_range", False)
        outside = (torch.rand(1, 3, 32, 32) * 1.4 - 0.2).requires_grad_()
        untrained_metric(outside).backward()
        assert outside.grad.isfinite().all()
        assert outside.grad.abs().sum() > 0
        assert "NaN or infinite" in refuses(NOT_FINITE["nan"])
        assert "empty batch" in refuses(BAD_TENSORS["empty batch"][0])

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_other_precisions_are_scored(self, untrained_metric, dtype):
        image = torch.linspace(0, 1, 3072).view(1, 3, 32, 32).to(dtype)
        assert untrained_metric(image).item() == untrained_metric(image.float()).item()

    @settings(max_examples=150)
    @given(
        st.lists(st.integers(0, 20), max_size=5),
        st.sampled_from([torch.float32, torch.float64, torch.uint8, torch.int32, torch.bool]),
        st.floats(width=32),
    )
    def test_anything_passes_or_is_an_input_error(self, shape, dtype, value):
        if not dtype.is_floating_point:
            value = 1
        try:
            checked = check_tensor(torch.full(shape, value, dtype=dtype))
        except InputError as error:
            assert ";" in str(error), "no cure"
        else:
            n, c, h, w = shape
            assert checked.shape == (n, 3, h, w)
            assert c in (1, 3)
            assert min(h, w) >= 16 and n
            assert checked.dtype == torch.float32
            assert -1e-6 <= value <= 1 + 1e-6


class TestReading:
    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1", "YCbCr"])
    def test_pixels_are_those_of_pyiqa(self, tmp_path, photo, mode):
        path = tmp_path / ("a.tiff" if mode in ("CMYK", "YCbCr") else "a.png")
        photo.convert(mode).save(path)
        content = path.read_bytes()
        expected = imread2tensor(str(path), rgb=True)[None]
        for source in (path, content, bytearray(content), Image.open(path), photo.convert(mode)):
            assert torch.equal(read_tensor(source), expected)

    @pytest.mark.parametrize("kind", ["JPEG", "WEBP", "BMP", "GIF"])
    def test_formats_are_those_of_pyiqa(self, photo, kind):
        content = encoded(photo, kind)
        assert torch.equal(read_tensor(content), imread2tensor(content, rgb=True)[None])

    def test_every_byte_value(self):
        ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
        assert torch.equal(read_tensor(ramp), imread2tensor(ramp, rgb=True)[None])

    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
    def test_sixteen_bit_grey_is_not_clipped(self, tmp_path, kind):
        values = np.linspace(0, 65535, 1024).reshape(32, 32).astype(np.uint16)
        path = tmp_path / f"deep.{kind.lower()}"
        Image.fromarray(values).save(path, kind)
        expected = torch.from_numpy(values.astype(np.float32) / 65535).expand(1, 3, 32, 32)
        assert torch.equal(read_tensor(path), expected)
        if kind == "PNG":
            white = imread2tensor(str(path), rgb=True)
            assert white.mean() > 0.99, "pyiqa reads it rightly now: the exception can go"

    def test_first_frame_of_an_animation(self, photo):
        other = Image.new("RGB", photo.size)
        content = encoded(photo, "WEBP", lossless=True, save_all=True, append_images=[other])
        assert torch.equal(read_tensor(content), read_tensor(photo))

    def test_orientation_is_not_applied(self, photo):
        exif = Image.Exif()
        exif[0x0112] = 6
        content = encoded(photo, "JPEG", exif=exif)
        assert torch.equal(read_tensor(content), imread2tensor(content, rgb=True)[None])
        assert read_tensor(content).shape == (1, 3, 64, 96)

    def test_reading_does_not_warn(self, photo):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read_tensor(photo)

    def test_every_kind_of_source_scores_the_same(self, untrained_metric, tmp_path, photo):
        path = tmp_path / "a.png"
        photo.save(path)
        tensor = read_tensor(photo)
        sources = [path, str(path), path.read_bytes(), photo, tensor]
        assert len({untrained_metric(source).item() for source in sources}) == 1


class TestWeights:
    def test_missing(self, untrained_metric, tmp_path):
        path = tmp_path / "no.safetensors"
        for source in (path, str(path)):
            with pytest.raises(WeightsError, match="no such weights file"):
                untrained_metric.load_weights(source)

    def test_pickle_is_never_opened(self, untrained_metric, tmp_path):
        class Trap:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "executed"),)

        path = tmp_path / "trap.pth"
        torch.save({"params": Trap()}, path)
        with pytest.raises(WeightsError, match=r"trap\.pth"):
            untrained_metric.load_weights(str(path))
        assert not (tmp_path / "executed").exists()
