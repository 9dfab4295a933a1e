"""Bytes to pixels beside the model: limits checked before decoding, never an exception, bounded memory.

The pixels are those of `read_tensor`, thus those of pyiqa's reader for the metrics of this package.
Only formats that Pillow decodes itself are read: for some others, such as EPS, it starts a program.
"""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import torch
from PIL import Image, UnidentifiedImageError

from ...errors import InputError
from ...input_checks import read_pillow
from ...names import printable
from . import storage
from .items import Item, Loaded, read_item
from .limits import Limits

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TIFF", "WEBP")
_TIFF_TILE_SIZE = (322, 323)


class Decoded(NamedTuple):
    """An image (1, 3, H, W) in [0, 1], or None and the reason; its size where the header gave it."""

    pixels: torch.Tensor | None
    width: int | None
    height: int | None
    error: str = ""


class Turns:
    """Hands out room for decoded pixels, in the order of the tickets, as earlier ones give it back.

    Strictly in order, since whoever gives room back takes images in order: a later image that took
    the room of an earlier one would stop both.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken: dict[int, int] = {}
        self.next = 0
        self.stopped = False
        self.changed = threading.Condition()

    def take(self, ticket: int, pixels: int) -> None:
        """Wait for the turn of a ticket and for room; an image larger than all the room gets it alone."""
        with self.changed:
            self.changed.wait_for(lambda: self.stopped or (self.next == ticket and self._has_room(pixels)))
            self.next = ticket + 1
            self.taken[ticket] = pixels
            self.changed.notify_all()

    def _has_room(self, pixels: int) -> bool:
        used = sum(self.taken.values())
        return not used or used + pixels <= self.room

    def give_back(self, ticket: int) -> None:
        """The pixels of this ticket are no longer held."""
        with self.changed:
            del self.taken[ticket]
            self.changed.notify_all()

    def stop(self) -> None:
        """Nobody waits any longer."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()


def prepare_pillow() -> None:
    """Set what holds for the whole process: no limit of Pillow's own, no reports beside the rows."""
    Image.MAX_IMAGE_PIXELS = None  # `Limits` takes its place
    Image.init()
    warnings.filterwarnings("ignore", module="PIL")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)


def decode(
    item: Item | Loaded, limits: Limits, take_turn: Callable[[int], None] = lambda pixels: None
) -> Decoded:
    """Read and decode one image; what is wrong with it is in the result.

    Args:
        item: the image.
        limits: those beyond which nothing is decoded.
        take_turn: called once with the number of pixels, 0 for none, before they are decoded.
    """
    width = height = None
    waiting = True
    try:
        image = _open(read_item(item, limits.max_bytes))
        width, height = image.size
        _check_pixels(image, limits.max_pixels)
        waiting = False
        take_turn(width * height)
        return Decoded(read_pillow(image, item.name), width, height)
    except InputError as error:
        reason = str(error).removeprefix(f"{item.name}: ")
    except MemoryError:
        reason = "not enough memory to decode it; lower --max-pixels"
    except Exception as error:  # Pillow's decoders raise errors of many types
        reason = f"cannot be decoded ({str(error) or type(error).__name__})"
    finally:
        if waiting:
            take_turn(0)
    return Decoded(None, width, height, printable(reason))


def _open(content: bytes) -> Image.Image:
    if not content:
        raise InputError("is empty; make or fetch the file again")
    try:
        return Image.open(io.BytesIO(content), formats=[name for name in FORMATS if name in Image.OPEN])
    except UnidentifiedImageError:
        raise InputError(
            f"not an image of the formats that are read ({', '.join(FORMATS)}); convert it to PNG or JPEG"
        ) from None


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise InputError(
            f"{width} x {height} pixels are more than --max-pixels {max_pixels}; raise that if you trust it"
        )
    # A tile may be larger than the image it is cut from, and is decoded as a whole.
    tile = [getattr(image, "tag_v2", {}).get(tag, 0) for tag in _TIFF_TILE_SIZE]
    if tile[0] * tile[1] > max_pixels:
        raise InputError(
            f"tiles of {tile[0]} x {tile[1]} pixels are more than --max-pixels {max_pixels}; "
            "raise that if you trust it"
        )


def decode_ahead(
    items: Iterable[tuple[int, Item | Loaded]], limits: Limits, workers: int
) -> Generator[tuple[int, Decoded], None, None]:
    """Decode in threads, a few images ahead of who takes them; results in the order of the items.

    At no time do decoded images have more than `limits.max_pixels` pixels together, the one that was
    handed out last included, unless it is one image alone.

    Args:
        items: number and image.
        limits: those beyond which nothing is decoded.
        workers: threads.

    Yields:
        The image's number and what became of it.
    """
    prepare_pillow()
    turns = Turns(limits.max_pixels)
    ahead: deque[tuple[int, int, Future[Decoded]]] = deque()
    pool, ending = ThreadPoolExecutor(workers, thread_name_prefix="decode"), ExitStack()

    def hand_out() -> Iterator[tuple[int, Decoded]]:
        ticket, number, future = ahead.popleft()
        yield number, future.result()
        turns.give_back(ticket)

    try:
        for ticket, (number, item) in enumerate(items):
            ahead.append((ticket, number, pool.submit(decode, item, limits, partial(turns.take, ticket))))
            if len(ahead) > 2 * workers:
                yield from hand_out()
        while ahead:
            yield from hand_out()
    except (GeneratorExit, KeyboardInterrupt):
        # Or threads that ask a store that is away would be waited for.
        ending.enter_context(storage.hurried())
        raise
    finally:
        turns.stop()
        with ending:
            pool.shutdown(wait=True, cancel_futures=True)
