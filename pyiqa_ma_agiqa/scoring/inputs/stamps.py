"""Whether a file is still the one that was listed: a stamp of its size and the time of its last change.

A file that is written anew keeps the time of the last change while the clock of the file system has not
moved on, so a stamp is taken only once the last change is longer ago than that.
"""

from __future__ import annotations

import os
import stat
import time
from typing import BinaryIO

from ...errors import InputError

TICK = 20_000_000
"""Nanoseconds; clocks of file systems move on every 10 ms or faster."""
TRIES = 4


def open_regular(path: str) -> BinaryIO:
    """Open a file for reading; never waits, as a pipe that nobody writes to would have it.

    Raises:
        InputError: a pipe or a device.
        OSError: it cannot be opened.
    """
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
    for _ in range(TRIES):
        facts = os.fstat(file.fileno())
        age = time.time_ns() - facts.st_mtime_ns
        if not 0 <= age < TICK:
            return _text(facts)
        time.sleep((TICK - age) / 1e9)
    raise changes(file)


def is_still(file: BinaryIO, before: str) -> bool:
    """Whether the open file has this stamp."""
    return _text(os.fstat(file.fileno())) == before


def is_still_at(path: str, before: str) -> bool:
    """Whether the file of this path has this stamp."""
    try:
        return _text(os.stat(path)) == before
    except OSError:
        return False


def changes(file: BinaryIO) -> InputError:
    """The error of a file that is written while it is read."""
    return InputError(f"{file.name}: is being written; wait until it is whole, then repeat the command")


def _text(facts: os.stat_result) -> str:
    return f"{facts.st_size}:{facts.st_mtime_ns}"
