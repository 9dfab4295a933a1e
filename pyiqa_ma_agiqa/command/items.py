"""One image to be scored, and how its bytes are read: a file, a member of a tar, a cell of a parquet."""

from __future__ import annotations

import os
import stat
import threading
from functools import lru_cache
from typing import Any, NamedTuple

from ..errors import InputError

MEMBER = "!/"
"""Between a tar or a parquet and what is in it, in the name of an image."""
READ_FAILED = "cannot be read ("
"""How the reason begins where the image may be there, but the system does not hand it out."""
ROW_GROUP_BYTES = 2**30
"""Largest column of a row group that is read: a row group is held in memory as a whole."""


class Item(NamedTuple):
    """An image that is to be scored.

    Attributes:
        name: the path of the file; ``TAR!/MEMBER``, ``PARQUET!/ROW`` for an image in a container.
        container: path of the tar or parquet that holds the image; empty for a file of its own.
        start: byte at which a tar's member begins, or the row of a parquet.
        size: bytes of a tar's member.
        column: of the parquet.
        problem: why it cannot be read, where that is known beforehand.
    """

    name: str
    container: str = ""
    start: int = 0
    size: int = 0
    column: str = ""
    problem: str = ""

    def key(self) -> bytes:
        """The same for the same image given twice."""
        if not self.container:
            return os.fsencode(os.path.abspath(self.name))
        inside = self.name.removeprefix(self.container)
        return os.fsencode(os.path.abspath(self.container) + inside)


def read_item(item: Item, max_bytes: int) -> bytes:
    """The bytes of the image file.

    Raises:
        InputError: missing, unreadable, not a regular file, or larger than `max_bytes`.
    """
    if item.problem:
        raise InputError(item.problem)
    try:
        if item.column:
            content = _cells(item.container, item.column).read(item.start)
            _check_size(len(content), max_bytes)
        elif item.container:
            _check_size(item.size, max_bytes)
            content = _read(item.container, item.start, item.size)
            if len(content) < item.size:
                raise InputError("the tar ends within this image; make or fetch the tar again")
        else:
            content = _read(item.name, 0, max_bytes + 1)
            if len(content) > max_bytes:
                _check_size(os.path.getsize(item.name), max_bytes)
        return content
    except IsADirectoryError:
        raise InputError("is a folder; give the files in it") from None
    except FileNotFoundError:
        raise InputError(_missing(item)) from None
    except OSError as error:
        raise InputError(
            f"{READ_FAILED}{error.strerror or error}); check the path and its permissions"
        ) from None
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError("not a path; a path has no null characters") from None


def _missing(item: Item) -> str:
    if item.container:  # it was there when its images were listed
        return f"{READ_FAILED}no such file {item.container}); check the path"
    folder = os.path.dirname(item.name) or os.curdir
    if not os.path.isdir(folder):
        return f"{READ_FAILED}no folder {folder}); check the path"
    return "no such file; check the path"


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise InputError(f"has {size} bytes, more than --max-bytes {max_bytes}; raise that if you trust it")


def _read(path: str, start: int, size: int) -> bytes:
    with open(path, "rb", opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise InputError("is not a regular file; give the path of an image file")
        file.seek(start)
        return file.read(size)


def _open_at_once(path: str, flags: int) -> int:
    # Otherwise opening a pipe that nobody writes to never returns.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


class _Cells:
    """A column of bytes in a parquet; holds the row group that was read last."""

    def __init__(self, path: str, column: str) -> None:
        from pyarrow import parquet

        self.file = parquet.ParquetFile(path)
        self.column = column
        self.place = self.file.schema_arrow.get_field_index(column)
        self.lock = threading.Lock()
        self.first = 0
        self.cells: Any = []

    def read(self, row: int) -> bytes:
        with self.lock:
            if not self.first <= row < self.first + len(self.cells):
                self._load(row)
            content = self.cells[row - self.first].as_py()
        if content is None:
            raise InputError(f"the cell of column {self.column} is empty")
        return content

    def _load(self, row: int) -> None:
        first = 0
        for group in range(self.file.num_row_groups):
            facts = self.file.metadata.row_group(group)
            if row < first + facts.num_rows:
                break
            first += facts.num_rows
        self.cells = []
        size = facts.total_byte_size
        if size > ROW_GROUP_BYTES:
            raise InputError(
                f"its row group has {size} bytes, more than {ROW_GROUP_BYTES}; write the parquet with "
                "fewer rows in a row group"
            )
        self.cells = self.file.read_row_group(group, [self.column]).column(0)
        self.first = first


@lru_cache(maxsize=2)
def _cells(path: str, column: str) -> _Cells:
    return _Cells(path, column)
