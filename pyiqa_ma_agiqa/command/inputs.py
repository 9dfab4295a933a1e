"""What to score: folders, globs, tables of paths, tars and parquets of images, as a stream of items.

The order is stable: inputs as given; in a folder its own files by name, then its folders by name; a
glob's matches by name; tables and tars from top to bottom. Names are compared byte by byte.
"""

from __future__ import annotations

import csv
import glob
import os
import tarfile
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path

from ..errors import InputError
from .items import MEMBER, Item
from .names import unescape

IMAGE_SUFFIXES = frozenset(
    (
        *(".apng", ".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg"),
        *(".jpg", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".tif", ".tiff", ".webp"),
    )
)
"""What counts as an image in a folder or a tar, in small or capital letters."""
COLUMN = "path"
BLOCK = 512
"""Bytes of a block of a tar."""


def list_items(inputs: Sequence[str], column: str = COLUMN) -> Iterator[Item]:
    """All images of the inputs, in order; an image may come more than once.

    Args:
        inputs: paths of image files, folders, CSV and parquet tables and tars, or globs of them.
        column: of the tables: paths, relative to the table's folder, or the bytes of image files.

    Raises:
        InputError: a glob that matches nothing, or a table or tar that is missing or unreadable.
    """
    for text in inputs:
        # A name with brackets in it that exists is meant as it is.
        if glob.has_magic(text) and not os.path.lexists(text):
            for path in _matches(text):
                yield from _expand(path, column)
        else:
            yield from _expand(text, column)


def _expand(path: str, column: str) -> Iterator[Item]:
    suffix = os.path.splitext(path)[1].lower()
    if os.path.isdir(path):
        return _folder(path)
    if suffix == ".csv":
        return _csv(path, column)
    if suffix == ".parquet":
        return _parquet(path, column)
    if suffix == ".tar":
        return _tar(path)
    if path.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        raise InputError(f"{path}: is a compressed tar; unpack it to a .tar")
    return iter([Item(path)])


def _by_name(name: str) -> bytes:
    return os.fsencode(name)


def _matches(pattern: str) -> list[str]:
    parts = Path(pattern).parts
    fixed = list(takewhile(lambda part: not glob.has_magic(part), parts))
    # Unlike glob.glob, this one follows no links in "**", which could lead in circles.
    found = Path(*fixed).glob(str(Path(*parts[len(fixed) :])))
    matches = sorted(map(str, found), key=_by_name)
    if not matches:
        raise InputError(f"{pattern}: matches nothing; check the pattern, and quote it")
    return matches


def is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _folder(top: str) -> Iterator[Item]:
    waiting, seen = [top], set()
    while waiting:
        folder = waiting.pop()
        files, folders = [], []
        try:
            facts = os.stat(folder)
            if (facts.st_dev, facts.st_ino) in seen:  # links can lead in circles
                continue
            seen.add((facts.st_dev, facts.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    if _is_folder(entry):
                        folders.append(entry.name)
                    elif is_image(entry.name):
                        files.append(entry.name)
        except OSError as error:
            reason = f"the folder cannot be read ({error.strerror}); check its permissions"
            yield Item(folder, problem=reason)
            continue
        for name in sorted(files, key=_by_name):
            yield Item(os.path.join(folder, name))
        waiting += [os.path.join(folder, name) for name in sorted(folders, key=_by_name, reverse=True)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _from_cell(table: str, row: int, cell: str | None, column: str) -> Item:
    if not cell or "\0" in cell:
        fault = "has a null character" if cell else "is empty"
        return Item(f"{table}{MEMBER}{row}", problem=f"the cell of column {column} {fault}")
    return Item(os.path.join(os.path.dirname(table), unescape(cell)))


def _no_column(table: str, column: str, columns: Sequence[str]) -> InputError:
    return InputError(f"{table}: no column {column}; there are {', '.join(columns)}; name one with --column")


def _csv(path: str, column: str) -> Iterator[Item]:
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            rows = csv.DictReader(file)
            columns = rows.fieldnames or []
            if column not in columns:
                raise _no_column(path, column, columns)
            for number, row in enumerate(rows):
                yield _from_cell(path, number, row[column], column)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; check the path") from None
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV file ({error}); write it again") from None


def _parquet(path: str, column: str) -> Iterator[Item]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            if column not in schema.names:
                raise _no_column(path, column, schema.names)
            kind = schema.field(column).type
            if pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
                for row in range(file.metadata.num_rows):
                    yield Item(f"{path}{MEMBER}{row}", path, row, column=column)
                return
            if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
                raise InputError(f"{path}: column {column} holds {kind}, not paths or bytes; name another")
            row = 0
            for batch in file.iter_batches(columns=[column]):
                for cell in batch.column(0).to_pylist():
                    yield _from_cell(path, row, cell, column)
                    row += 1
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; check the path") from None
    except pyarrow.ArrowException as error:
        raise InputError(f"{path}: not a parquet file ({error}); write it again") from None


def _tar(path: str) -> Iterator[Item]:
    damaged = Item(path, problem="the tar is damaged; images after this point are missing; fetch it again")
    try:
        with open(path, "rb") as file:
            try:
                with tarfile.open(fileobj=file, mode="r:") as tar:
                    while (member := tar.next()) is not None:
                        tar.members.clear()  # type: ignore[attr-defined]  # else they add up
                        if member.isreg() and not member.issparse() and is_image(member.name):
                            name = f"{path}{MEMBER}{member.name}"
                            yield Item(name, path, member.offset_data, member.size)
                    # tarfile takes a damaged header for the end.
                    file.seek(tar.offset)
                    if file.read(BLOCK).strip(b"\0"):
                        yield damaged
            except (tarfile.TarError, EOFError, ValueError, OverflowError):
                yield damaged
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; check the path") from None
