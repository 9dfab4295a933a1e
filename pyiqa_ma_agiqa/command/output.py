"""Rows to a CSV, JSON Lines or parquet file, or a folder of parquets, that appears whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count, islice
from pathlib import Path

from ..errors import InputError
from .columns import Row

ROW_GROUP = 10_000
"""Rows of a parquet's row group: what is held in memory while it is written."""
PART_ROWS = 1_000_000
"""Rows of a file in a folder of parquets."""
PART = "part-{:05}.parquet"


def _write_csv(path: Path, rows: Iterable[Row], columns: dict[str, type]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        file.write(",".join(columns) + "\n")
        for row in rows:
            file.write(",".join(_cell(row[name]) for name in columns) + "\n")


def _cell(value: str | float | None) -> str:
    """As in RFC 4180. The module csv leaves a carriage return unquoted, which it then reads as a new row."""
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text


def _write_jsonl(path: Path, rows: Iterable[Row], columns: dict[str, type]) -> None:
    with open(path, "w", newline="\n", encoding="utf-8") as file:
        for row in rows:
            ordered = {name: row[name] for name in columns}
            file.write(json.dumps(ordered, ensure_ascii=False, allow_nan=False) + "\n")


def _write_parquet(path: Path, rows: Iterable[Row], columns: dict[str, type]) -> None:
    import pyarrow
    from pyarrow import parquet

    types = {str: pyarrow.string(), float: pyarrow.float64(), int: pyarrow.int64()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    with parquet.ParquetWriter(path, schema) as writer:
        for group in _groups(rows):
            writer.write_table(pyarrow.Table.from_pylist(group, schema))


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    remaining = iter(rows)
    while group := list(islice(remaining, ROW_GROUP)):
        yield group


def _write_parts(path: Path, rows: Iterable[Row], columns: dict[str, type]) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    remaining = iter(rows)
    for number in count():
        first = next(remaining, None)
        if first is None:
            break
        part = chain([first], islice(remaining, PART_ROWS - 1))
        _write_parquet(path / PART.format(number), part, columns)


WRITERS: dict[str, Callable[[Path, Iterable[Row], dict[str, type]], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
    "": _write_parts,
}
"""How to write an output, by its suffix; without one it is a folder."""


def check_output(path: Path) -> None:
    """Check that an output of this name can be written.

    Raises:
        InputError: another suffix, no such folder, or a folder of other things is in the way.
    """
    if path.suffix.lower() not in WRITERS:
        raise InputError(f"--out {path}: give a name that ends in .csv, .jsonl or .parquet, or a new folder")
    if not path.parent.is_dir():
        raise InputError(f"--out {path}: no folder {path.parent}; make it first")
    if path.is_dir() and (path.suffix or not holds_only_parts(path)):
        raise InputError(f"--out {path}: is a folder of other things; give another name")


def holds_only_parts(folder: Path) -> bool:
    """Whether a folder holds nothing but parquets of scores, as `write_output` writes them."""
    return all(entry.match("part-*.parquet") for entry in folder.iterdir())


def write_output(path: Path, rows: Iterable[Row], columns: dict[str, type]) -> None:
    """Write all rows; the output takes its name when it is whole and on the disk."""
    incoming = path.with_name(path.name + ".part")
    WRITERS[path.suffix.lower()](incoming, rows, columns)
    for file in sorted(incoming.iterdir()) if incoming.is_dir() else [incoming]:
        with open(file, "rb+") as opened:
            os.fsync(opened.fileno())
    if incoming.is_dir():
        sync_folder(incoming)
        shutil.rmtree(path, ignore_errors=True)  # a folder cannot be put in the place of another
    incoming.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put the names of a folder's files on the disk, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
