"""Images that a table lists: the files and members that its cells name, or the images in its cells.

A relative path is relative to the table's folder. In a table that `score` wrote, it may as well be
relative to the working directory, as `score` writes paths: the image counts that is there. Where there
are two, the row has an error, so that no other image is ever scored in its place.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from typing import Any

from ...errors import InputError
from ...names import unescape
from ...places import is_url, joined, without_secrets
from .containers import Containers
from .items import MEMBER, Item
from .streams import CODECS
from .tables import Cells, check_column, csv_cells, holds, jsonl_cells, parquet_cells

PATH = "path"
OWN_COLUMNS = {PATH, "score", "error", "width", "height"}
"""A table with these was written by `score`."""


class Lists:
    """Reads tables.

    Args:
        containers: the files that were read so far.
        column: of the tables: paths, or images.
    """

    def __init__(self, containers: Containers, column: str) -> None:
        self.containers = containers
        self.column = column

    def items(self, path: str, folder: str) -> Iterator[Item]:
        """The images of a table, from top to bottom.

        Args:
            path: of a .csv, .jsonl or .parquet.
            folder: to which paths are relative.

        Raises:
            InputError: missing, unreadable, of another format, or without the column.
        """
        read = self._parquet if path.lower().endswith(".parquet") else self._text
        with self.containers.open(path) as (file, stamp):
            yield from read(path, folder, file, stamp)

    def _text(self, path: str, folder: str, file: Any, stamp: str) -> Iterator[Item]:
        kind, cells_of = ("CSV", csv_cells) if path.lower().endswith(".csv") else ("JSON Lines", jsonl_cells)
        text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
        try:
            yield from self._named(path, folder, cells_of(text, self.column))
        except InputError:
            raise
        except (csv.Error, ValueError) as error:
            raise InputError(f"{path}: not a {kind} file ({error}); write it again") from None
        finally:
            text.detach()  # else it closes the file

    def _parquet(self, path: str, folder: str, file: Any, stamp: str) -> Iterator[Item]:
        import pyarrow
        from pyarrow import parquet

        try:
            opened = parquet.ParquetFile(file)
            schema = opened.schema_arrow
            check_column(path, self.column, schema.names)
            kind = schema.field(self.column).type
            held = holds(kind)
            if held == "images":
                for row in range(opened.metadata.num_rows):
                    yield Item(f"{path}{MEMBER}{row}", path, row, column=self.column, stamp=stamp)
            elif held == "paths":
                cells = schema.names, parquet_cells(opened, self.column)
                yield from self._named(path, folder, cells)
            else:
                raise InputError(
                    f"{path}: column {self.column} holds {kind}, not paths or bytes; name another"
                )
        except pyarrow.ArrowException as error:
            raise InputError(f"{path}: not a parquet file ({error}); write it again") from None

    def _named(self, table: str, folder: str, cells: Cells) -> Iterator[Item]:
        columns, texts = cells
        check_column(table, self.column, columns)
        own = self.column == PATH and set(columns) >= OWN_COLUMNS
        for row, cell in enumerate(texts):
            fault = _fault(cell)
            if fault:
                # Unlike the name of an image in a parquet, so that it is never read as one.
                name = f"{table}{MEMBER}{self.column}/{row}"
                yield Item(name, problem=f"the cell of column {self.column} {fault}")
            else:
                yield self._image(unescape(cell), folder, own)

    def _image(self, name: str, folder: str, own: bool) -> Item:
        if is_url(name) and without_secrets(name) != name:
            problem = "its URL holds what may be a credential; use the driver's own credentials"
            return Item(without_secrets(name), problem=problem)
        places = [joined(folder, name)]
        if own and not (os.path.isabs(name) or is_url(name)):
            places.append(name)
        elif MEMBER not in name:
            return Item(places[0])  # whether it is there is seen when it is read
        found = [item for item in map(self._there, places) if item]
        if len(found) == 2 and _identity(found[0]) != _identity(found[1]):
            where = folder, os.getcwd()
            return Item(name, problem=f"is in {where[0]} and in {where[1]}; give the path from the root")
        return found[-1] if found else Item(places[-1])

    def _there(self, place: str) -> Item | None:
        if any(f"{suffix}{MEMBER}" in place.lower() for suffix in CODECS) and not os.path.lexists(place):
            problem = "is in a compressed tar, which is read from front to back; score the tar itself"
            return Item(place, problem=problem)
        member = self.containers.find(place) if MEMBER in place else None
        if not os.path.lexists(place):
            return member
        if member:
            return Item(place, problem="is a file, and what a tar or a parquet holds; rename one of them")
        return Item(place)


def _fault(cell: Any) -> str:
    if cell is None or cell == "":
        return "is empty"
    if not isinstance(cell, str):
        return "is not text"
    try:
        os.fsencode(unescape(cell))
    except UnicodeEncodeError:
        return "is not a file name"
    return "has a null character" if "\0" in unescape(cell) else ""


def _identity(item: Item) -> tuple[str, str]:
    """Of two names of one image, the same."""
    whole = item.container or item.name
    return os.path.realpath(whole), item.name.removeprefix(whole)
