"""Pillow's loading of pixels, but an image that ends early is always an error.

Pillow asks the flag `ImageFile.LOAD_TRUNCATED_IMAGES` whether to leave the missing part grey. One
of pyiqa's modules sets it for the whole process, and any thread may set it at any time, so its value
can neither be trusted nor be changed. Here it is not asked: each tile of an image gets a decoder that
hands everything on to Pillow's own and raises where that one fails or does not come to its end.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

from PIL import Image

PREFIX = "pyiqa_ma_agiqa "
"""Before the name of Pillow's decoder in that of ours."""
_LOCK = "_pyiqa_ma_agiqa_lock"


class StrictDecoder:
    """A decoder of Pillow whose end is watched."""

    def __init__(self, codec: str, mode: str, *args: Any) -> None:
        self.decoder = Image._getdecoder(mode, codec, args)
        self.finished = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.decoder, name)

    def decode(self, buffer: bytes) -> tuple[int, int]:
        used, error = self.decoder.decode(buffer)
        if used < 0 and error < 0:
            raise OSError("its data cannot be decoded")
        self.finished = used < 0 or self.decoder.pulls_fd
        return used, error

    def cleanup(self) -> None:
        """Pillow's last call to a decoder, also where it has given up."""
        self.decoder.cleanup()
        if not self.finished:
            raise OSError("it ends too early")


def load_whole(image: Image.Image) -> None:
    """Load the pixels; those that are loaded are taken as they are.

    Raises:
        OSError: the image ends early or is damaged. It then stays as it was.
        Exception: what else Pillow's decoders raise.
    """
    tiles = getattr(image, "tile", None)
    if tiles:
        image.tile = [_strict(tile) for tile in tiles]  # type: ignore[attr-defined]
    try:
        image.load()
    except BaseException:
        if tiles:
            image.tile = tiles  # type: ignore[attr-defined]
        raise
    if hasattr(image, "_ended"):  # what Pillow notes when it ends JPEG data itself, on that flag
        raise OSError("it ends too early")


def alone_with(image: Image.Image) -> threading.Lock:
    """A lock for this image: Pillow loads it at its first use, which two threads must not do at once."""
    return vars(image).setdefault(_LOCK, threading.Lock())


def _strict(tile: Any) -> Any:
    codec = tile[0]
    name = codec if codec.startswith(PREFIX) else PREFIX + codec
    Image.DECODERS.setdefault(name, partial(StrictDecoder, codec))  # type: ignore[arg-type]
    # Before version 11 Pillow's tiles were plain tuples.
    return (name, *tile[1:]) if type(tile) is tuple else tile._replace(codec_name=name)
