"""Image sources to tensors, and what a tensor must be; every refusal is an `InputError`.

The pixels are those of pyiqa's own reader (Pillow, ``convert("RGB")``, divided by 255), so
EXIF orientation is not applied, transparency is dropped, an animation counts by its first frame
and of 16-bit colours the upper 8 bits are read. 16-bit grey images are the exception: that conversion
clips them to white.
"""

from __future__ import annotations

import io
import os
import stat
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from .errors import InputError
from .strict_loading import alone_with, load_whole

SMALLEST_SIDE = 16
"""Smallest height and width in pixels."""
TOLERANCE = 1e-6
"""How far values may lie outside [0, 1], as in pyiqa."""

_TIFF_BITS_PER_SAMPLE, _TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO = 0
_SIGNED = 2
_FULL_RANGE = (None, "JPEG2000", "PNG", "PPM", "TIFF")
"""Formats, and None for an array, whose 16-bit grey is black at 0 and white at the largest value."""


def read_tensor(source: Any) -> torch.Tensor:
    """Image to tensor.

    Args:
        source: path (str or os.PathLike), content of an image file (bytes or bytearray), Pillow
            image, or a tensor, which is returned as it is, unchecked (`check_tensor` does that).
            A Pillow image may be read by several threads at once. Where its pixels were loaded
            before, they are taken as they are: a missing part can no longer be told.

    Returns:
        (1, 3, H, W), float32, RGB in [0, 1].

    Raises:
        InputError: no such file, not an image, truncated, too large or too small, or of a type
            or pixel format that has no defined meaning. The message names the file and the cure.
    """
    if isinstance(source, torch.Tensor):
        return source
    if isinstance(source, Image.Image):
        name = os.fsdecode(getattr(source, "filename", "")) or "the Pillow image"
        with alone_with(source):
            return read_pillow(source, name)
    if isinstance(source, bytes | bytearray):
        return _decode(bytes(source), f"the image in {len(source)} bytes")
    if isinstance(source, str | os.PathLike):
        name = os.fsdecode(source)
        return _decode(_read_file(name), name or "''")
    if isinstance(source, np.ndarray):
        cure = "give PIL.Image.fromarray(array), or a tensor (N, 3, H, W) with values in [0, 1]"
    elif isinstance(source, list | tuple):
        cure = "give one image at a time, or a tensor (N, 3, H, W) of images of one size"
    else:
        cure = "give a path, the bytes of an image file, a Pillow image or a tensor (N, 3, H, W)"
    raise InputError(f"{type(source).__name__} is not an image that ma_agiqa reads; {cure}")


def check_tensor(x: Any, check_range: bool = True) -> torch.Tensor:
    """Check a batch of images.

    Args:
        x: (N, 3, H, W) RGB or (N, 1, H, W) grey, floating point, N >= 1, H and W >= 16.
        check_range: whether values must lie in [0, 1]; NaN and infinities are refused anyway.

    Returns:
        The same images as float32 with three channels, differentiable.

    Raises:
        InputError: the message gives the value at fault and the cure.
    """
    if not isinstance(x, torch.Tensor):
        raise InputError(f"{type(x).__name__} is not a tensor; give a tensor (N, 3, H, W) in [0, 1]")
    shape = tuple(x.shape)
    if x.dim() != 4:
        cure = "add the batch dimension with x.unsqueeze(0)" if x.dim() == 3 else "give (N, 3, H, W)"
        raise InputError(f"tensor of shape {shape} has {x.dim()} dimensions, not 4; {cure}")
    if shape[0] == 0:
        raise InputError(f"tensor of shape {shape} is an empty batch; give at least one image")
    if shape[1] not in (1, 3):
        if shape[3] in (1, 3):
            cure = "put the channels first with x.permute(0, 3, 1, 2)"
        elif shape[1] == 4:
            cure = "drop the alpha channel with x[:, :3]"
        else:
            cure = "give RGB (N, 3, H, W) or grey (N, 1, H, W)"
        raise InputError(f"tensor of shape {shape} has {shape[1]} channels, not 3 or 1; {cure}")
    _check_size(shape[2], shape[3], f"tensor of shape {shape}")
    if not x.is_floating_point() or x.layout != torch.strided:
        cure = "divide by 255: x.float() / 255" if x.dtype == torch.uint8 else "give float32 in [0, 1]"
        kind = x.dtype if x.layout == torch.strided else x.layout
        raise InputError(f"tensor is {kind}, not dense floating point; {cure}")
    x = x.float()
    low, high = (value.item() for value in x.detach().aminmax())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError("tensor has values that are NaN or infinite; give finite values in [0, 1]")
    if check_range and (low < -TOLERANCE or high > 1 + TOLERANCE):
        cure = "divide by 255" if low >= 0 and 2 < high <= 255 else "scale or clamp to [0, 1]"
        raise InputError(f"tensor has values from {low:.6g} to {high:.6g}, not within [0, 1]; {cure}")
    return x.expand(-1, 3, -1, -1)


def _read_file(name: str) -> bytes:
    try:
        mode = os.stat(name).st_mode
        if stat.S_ISDIR(mode):
            raise InputError(
                f"{name}: is a folder; give its files one by one (`pyiqa ma_agiqa -t` takes folders)"
            )
        if not stat.S_ISREG(mode):
            raise InputError(f"{name}: is not a regular file; give the path of an image file")
        with open(name, "rb") as file:
            return file.read()
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{name or repr(name)}: no such file; check the path") from None
    except OSError as error:
        raise InputError(
            f"{name}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from None
    except ValueError:
        raise InputError(f"{name!r}: not a path; a path has no null characters") from None


def _decode(content: bytes, name: str) -> torch.Tensor:
    if not content:
        raise InputError(f"{name}: is empty; make or fetch the file again")
    try:
        image = Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        raise InputError(f"{name}: not an image that Pillow can read; convert it to PNG or JPEG") from None
    except Exception as error:
        raise _unreadable(name, error) from None
    return read_pillow(image, name)


def read_pillow(image: Image.Image, name: str) -> torch.Tensor:
    """Pillow image to tensor, as `read_tensor`, under a name for its errors; by one thread at a time."""
    _check_size(image.height, image.width, name)
    try:
        load_whole(image)
    except Exception as error:  # Pillow's decoders raise errors of many types
        raise _unreadable(name, error) from None
    # Not by torch: from a thread that decodes it would start threads of its own (OpenMP), and those of the
    # thread that scores would from then on sleep at each of their many steps. That halves its speed.
    return torch.from_numpy(np.ascontiguousarray(_pixels(image, name).transpose(2, 0, 1))[None])


def _pixels(image: Image.Image, name: str) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1] of a loaded image."""
    # Mode I: 16 bits in PPM, and in PNG before Pillow had I;16.
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if deep and image.format in _FULL_RANGE:
        return np.repeat(_deep_levels(image)[:, :, None], 3, 2)
    signed = _tag(image, _TIFF_SAMPLE_FORMAT) == _SIGNED
    if deep or signed or image.mode in ("I", "F"):
        raise InputError(
            f"{name}: {'signed ' * signed}grey pixels (mode {image.mode}, {image.format}) have no defined "
            "range; convert it to 8 bits, or to 16 unsigned bits as PNG"
        )
    try:
        return np.asarray(image.convert("RGB")).astype(np.float32) / 255
    except MemoryError:
        raise
    except Exception as error:
        raise InputError(
            f"{name}: cannot be turned from {image.mode} into RGB ({error}); convert it to PNG or JPEG"
        ) from None


def _deep_levels(image: Image.Image) -> np.ndarray:
    white = 2 ** _tag(image, _TIFF_BITS_PER_SAMPLE, 16) - 1
    levels = np.asarray(image).astype(np.float32)
    if image.format == "TIFF" and _tag(image, _TIFF_PHOTOMETRIC, _WHITE_IS_ZERO) == _WHITE_IS_ZERO:
        levels = white - levels  # which Pillow does for 8 bits only
    return levels / white


def _tag(image: Image.Image, number: int, default: int | None = None) -> Any:
    """First value of a tag of a TIFF."""
    value = getattr(image, "tag_v2", {}).get(number, default)
    return value[0] if isinstance(value, tuple) else value


def _check_size(height: int, width: int, name: str) -> None:
    if min(height, width) < SMALLEST_SIDE:
        raise InputError(
            f"{name}: {width} x {height} pixels are too few; "
            f"both sides must have at least {SMALLEST_SIDE} pixels, so give a larger image"
        )


def _unreadable(name: str, error: Exception) -> InputError:
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return InputError(
            f"{name}: has more pixels than Pillow decodes ({error}); "
            "make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        )
    reason = str(error) or type(error).__name__
    return InputError(f"{name}: the image is truncated or damaged ({reason}); make or fetch the file again")
