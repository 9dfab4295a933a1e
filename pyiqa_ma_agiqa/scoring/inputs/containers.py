"""Tars and parquets that hold images: what is in them, and an image of them by its name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

from ...errors import InputError
from ...names import unescape
from ...places import absolute, is_url
from .items import MEMBER, Item
from .stamps import changes, is_still, open_regular, stamp
from .storage import facts
from .streams import is_tar
from .tables import SUFFIXES, holds
from .tars import Tars


class _Parquet(NamedTuple):
    """What a parquet is known to hold: rows, and the columns of images."""

    stamp: str
    rows: int
    columns: list[str]


class Containers:
    """Files that a list of images is read from.

    Attributes:
        stamps: of all of them, tables of paths included, by their absolute paths.
        tars: those that were read.
    """

    def __init__(self, stamps: dict[str, str]) -> None:
        self.stamps = stamps
        self.tars = Tars(stamps)
        self.parquets: dict[str, _Parquet] = {}

    @contextmanager
    def open(self, path: str) -> Iterator[tuple[BinaryIO, str]]:
        """A table or parquet, open for reading, and its stamp.

        Raises:
            InputError: missing, unreadable, or changed by the time that it is closed.
        """
        try:
            with open_regular(path) as file:
                before = self.stamps[absolute(path)] = stamp(file)
                yield file, before
                if not is_still(file, before):
                    raise changes(file)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}; check the path") from None

    def find(self, name: str) -> Item | None:
        """The image that is called ``TAR!/MEMBER`` or ``PARQUET!/ROW``; None where there is no such file.

        What is wrong with the file, or that it does not hold the image, is the item's problem.
        """
        end = name.find(MEMBER)
        while end >= 0:
            path, inside = name[:end], name[end + len(MEMBER) :]
            if (is_tar(path) or path.lower().endswith(SUFFIXES)) and _is_there(path):
                try:
                    return self.tars.find(path, inside) if is_tar(path) else self._row(path, inside)
                except InputError as error:
                    return Item(name, path, problem=str(error).removeprefix(f"{path}: "))
            end = name.find(MEMBER, end + 1)
        return None

    def image_columns(self, path: str) -> list[str]:
        """Columns of images of a parquet.

        Raises:
            InputError: missing, unreadable, or no parquet.
        """
        return self._parquet(path).columns

    def _row(self, path: str, inside: str) -> Item:
        name = f"{path}{MEMBER}{inside}"
        if not (path.lower().endswith(".parquet") and inside.isascii() and inside.isdecimal()):
            return Item(name, path, problem="is a cell without an image; give an image instead")
        parquet = self._parquet(path)
        if len(parquet.columns) != 1:
            columns = f"of images ({', '.join(parquet.columns)})" if parquet.columns else "of images"
            reason = f"the parquet has {len(parquet.columns)} columns {columns}; give it by itself"
            return Item(name, path, problem=f"{reason}, with --column")
        if int(inside) >= parquet.rows:
            return Item(name, path, problem=f"the parquet has only {parquet.rows} rows; check the name")
        name = f"{path}{MEMBER}{int(inside)}"
        return Item(name, path, int(inside), column=parquet.columns[0], stamp=parquet.stamp)

    def _parquet(self, path: str) -> _Parquet:
        import pyarrow
        from pyarrow import parquet

        place = absolute(path)
        if place not in self.parquets:
            with self.open(path) as (file, before):
                try:
                    opened = parquet.ParquetFile(file)
                except pyarrow.ArrowException as error:
                    raise InputError(f"{path}: not a parquet file ({error}); write it again") from None
                columns = [field.name for field in opened.schema_arrow if holds(field.type) == "images"]
                self.parquets[place] = _Parquet(before, opened.metadata.num_rows, columns)
        return self.parquets[place]


def named_items(names: Iterable[str]) -> Iterator[Item]:
    """Images by what the column `path` of an output calls them, or by their paths."""
    containers = Containers({})
    for given in names:
        name = given if os.path.lexists(given) else unescape(given)
        found = containers.find(name) if MEMBER in name and not os.path.lexists(name) else None
        yield found or Item(name)


def _is_there(path: str) -> bool:
    if not is_url(path):
        return os.path.isfile(path)
    try:
        return bool(facts(path))
    except OSError:
        return False
