"""Whether a file is still the one that was listed: a stamp of its size and the time of its last change.

A file that is written anew keeps the time of the last change while the clock of the file system has not
moved on, so a stamp is taken only once the last change is longer ago than that. The stamp of an object of
a store is of its size and of the tag that the store gives it.
"""

from __future__ import annotations

import os
import stat
import time
from typing import BinaryIO

from ...errors import InputError
from ...places import is_url
from .storage import RangeFile, facts

TICK = 20_000_000
"""Nanoseconds; clocks of file systems move on every 10 ms or faster."""
TRIES = 4


def open_regular(path: str) -> BinaryIO:
    """Open a file, or an object of a store, for reading.

    Never waits, as a pipe that nobody writes to would have it.

    Raises:
        InputError: a pipe or a device.
        OSError: it cannot be opened.
    """
    if is_url(path):
        return RangeFile(path)  # type: ignore[return-value]
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115  # whoever asked for it closes it
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise InputError(f"{path}: is not a regular file; give the path of a file")


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def stamp(file: BinaryIO) -> str:
    """The stamp of an open file; every later change of the file gives another one.

    Raises:
        InputError: the file is being written.
    """
    if isinstance(file, RangeFile):
        return file.facts.stamp
    for _ in range(TRIES):
        found = os.fstat(file.fileno())
        age = time.time_ns() - found.st_mtime_ns
        if not 0 <= age < TICK:
            return _text(found)
        time.sleep((TICK - age) / 1e9)
    raise changes(file)


def is_still(file: BinaryIO, before: str) -> bool:
    """Whether the open file has this stamp."""
    if isinstance(file, RangeFile):
        return facts(file.url).stamp == before
    return _text(os.fstat(file.fileno())) == before


def is_still_at(path: str, before: str) -> bool:
    """Whether the file of this path has this stamp."""
    try:
        return (facts(path).stamp if is_url(path) else _text(os.stat(path))) == before
    except OSError:
        return False


def changes(file: BinaryIO) -> InputError:
    """The error of a file that is written while it is read."""
    return InputError(f"{file.name}: is being written; wait until it is whole, then repeat the command")


def size_of(file: BinaryIO) -> int:
    """Bytes of an open file."""
    return file.facts.size if isinstance(file, RangeFile) else os.fstat(file.fileno()).st_size


def _text(found: os.stat_result) -> str:
    return f"{found.st_size}:{found.st_mtime_ns}"
