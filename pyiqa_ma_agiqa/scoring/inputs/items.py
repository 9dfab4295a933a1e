"""One image to be scored, and how its bytes are read: a file, a member of a tar, a cell of a parquet.

What is read is a file as a whole, or what was listed: of a tar or a parquet that was changed since, no
image is read.
"""

from __future__ import annotations

import os
import threading
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple

from ...errors import InputError
from ...places import absolute, is_url, joined, parent
from .stamps import TRIES, changes, is_still, open_regular, size_of, stamp
from .streams import plain_bytes

MEMBER = "!/"
"""Between a tar or a parquet and what is in it, in the name of an image."""
READ_FAILED = "cannot be read ("
"""How the reason begins where the image may be there, but the system does not hand it out."""
CUT_OFF = "the tar ends within this image; make or fetch the tar again"
ROW_GROUP_BYTES = 2**30
"""Largest column of a row group that is read: it is held in memory as a whole."""


class Item(NamedTuple):
    """An image that is to be scored.

    Attributes:
        name: the path of the file; ``TAR!/MEMBER``, ``PARQUET!/ROW`` for an image in a container.
        container: path of the tar or parquet that holds the image; empty for a file of its own.
        start: byte at which a tar's member begins, or the row of a parquet.
        size: bytes of a tar's member.
        column: of the parquet: the bytes of image files, or what `datasets` makes of images, a struct
            of `bytes` and `path`, where a path without bytes is relative to the parquet's folder.
        problem: why it cannot be read, where that is known beforehand.
        stamp: of the container when it was listed.
    """

    name: str
    container: str = ""
    start: int = 0
    size: int = 0
    column: str = ""
    problem: str = ""
    stamp: str = ""

    def key(self) -> bytes:
        """The same for the same image given twice."""
        if not self.container:
            return os.fsencode(absolute(self.name))
        inside = self.name.removeprefix(self.container)
        # No path has a null character, so a file that is called like a member has another key.
        return os.fsencode(f"{absolute(self.container)}\0{inside}")

    def found_from_anywhere(self) -> Item:
        """The same image, for a process that runs in another folder."""
        if self.container:
            return self._replace(container=absolute(self.container))
        return self._replace(name=absolute(self.name))


class Loaded(NamedTuple):
    """An image whose bytes are at hand.

    Attributes:
        name: as of an `Item`.
        content: the bytes.
        problem: why they could not be read.
    """

    name: str
    content: bytes
    problem: str = ""


def read_item(item: Item | Loaded, max_bytes: int) -> bytes:
    """The bytes of the image file.

    Raises:
        InputError: missing, unreadable, not a regular file, larger than `max_bytes`, or in a container
            that was changed since it was listed.
    """
    if item.problem:
        raise InputError(item.problem)
    if isinstance(item, Loaded):
        return item.content
    try:
        if item.column:
            return _cell(item, max_bytes)
        if item.container:
            return _member(item, max_bytes)
        return _file(item.name, max_bytes)
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
    if is_url(item.name):
        return "no such file; check the URL"
    folder = os.path.dirname(item.name) or os.curdir
    if not os.path.isdir(folder):
        return f"{READ_FAILED}no folder {folder}); check the path"
    return "no such file; check the path"


def check_size(size: int, max_bytes: int) -> None:
    """Check the bytes of an image.

    Raises:
        InputError: there are more than `max_bytes`.
    """
    if size > max_bytes:
        raise InputError(f"has {size} bytes, more than --max-bytes {max_bytes}; raise that if you trust it")


def _file(path: str, max_bytes: int) -> bytes:
    for _ in range(TRIES):
        with open_regular(path) as file:
            before = stamp(file)
            content = file.read(max_bytes + 1)
            if is_url(path) or is_still(file, before):  # a store hands out no half of two contents
                if len(content) > max_bytes:
                    check_size(size_of(file), max_bytes)
                return content
    raise changes(file)


def _member(item: Item, max_bytes: int) -> bytes:
    check_size(item.size, max_bytes)
    with open_regular(item.container) as file:
        members = plain_bytes(file, item.container)
        members.seek(item.start)
        content = members.read(item.size)
        _check_still(file, item.stamp)
    if len(content) < item.size:
        raise InputError(CUT_OFF)
    return content


def _check_still(file: BinaryIO, before: str) -> None:
    if not is_still(file, before):
        raise InputError(
            f"{file.name} was changed after its images were listed; score it again when it is whole"
        )


def _cell(item: Item, max_bytes: int) -> bytes:
    content = _cells(item.container, item.column, item.stamp).read(item.start)
    if isinstance(content, str):
        return read_item(Item(joined(parent(item.container), content)), max_bytes)
    check_size(len(content), max_bytes)
    return content


def cell_content(cell: Any, column: str) -> bytes | str:
    """What a cell of a column of images holds: the bytes of an image file, or a path where it has only that.

    Args:
        cell: a pyarrow scalar.
        column: for the error.

    Raises:
        InputError: nothing, or a path that is no text.
    """
    import pyarrow

    if isinstance(cell, pyarrow.DictionaryScalar):
        cell = cell.value
    content = None
    try:
        if not isinstance(cell, pyarrow.StructScalar):
            content = cell.as_py()
        elif cell.is_valid:
            content = cell["bytes"].as_py()  # first: the path beside them may be anything
            if content is None and "path" in cell:
                content = cell["path"].as_py()
    except UnicodeDecodeError:
        raise InputError(f"the path in the cell of column {column} is not UTF-8") from None
    if content is None:
        raise InputError(f"the cell of column {column} is empty")
    return content


class _Cells:
    """A column of images in a parquet; holds the row group that was read last."""

    def __init__(self, path: str, column: str, before: str) -> None:
        from pyarrow import parquet

        self.opened = open_regular(path)
        self.stamp = before
        _check_still(self.opened, before)
        self.file = parquet.ParquetFile(self.opened)
        self.column = column
        self.lock = threading.Lock()
        self.first = 0
        self.cells: Any = []

    def read(self, row: int) -> bytes | str:
        """The bytes of an image file, or a path where the cell has only that."""
        with self.lock:
            if not self.first <= row < self.first + len(self.cells):
                self._load(row)
            cell = self.cells[row - self.first]
        return cell_content(cell, self.column)

    def _load(self, row: int) -> None:
        import pyarrow

        first = 0
        for group in range(self.file.num_row_groups):
            facts = self.file.metadata.row_group(group)
            if row < first + facts.num_rows:
                break
            first += facts.num_rows
        self.cells = []
        leaves = (facts.column(number) for number in range(facts.num_columns))
        own = (leaf for leaf in leaves if f"{leaf.path_in_schema}.".startswith(f"{self.column}."))
        size = sum(leaf.total_uncompressed_size for leaf in own)
        if size > ROW_GROUP_BYTES:
            raise InputError(
                f"its row group has {size} bytes of images, more than {ROW_GROUP_BYTES}; write the parquet "
                "with fewer rows in a row group"
            )
        try:
            cells = self.file.read_row_group(group, [self.column]).column(self.column)
        except (pyarrow.ArrowException, OSError) as error:
            if getattr(error, "errno", None):  # the system's, not pyarrow's
                raise
            raise InputError(f"its row group is damaged ({error}); make or fetch the parquet again") from None
        finally:
            _check_still(self.opened, self.stamp)
        self.cells, self.first = cells, first


@lru_cache(maxsize=2)
def _cells(path: str, column: str, before: str) -> _Cells:
    return _Cells(path, column, before)
