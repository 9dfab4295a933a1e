"""Rows to a CSV, JSON Lines or parquet file, or a folder of parquets, that appears whole or not at all."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...names import FORMULA, defuse
from ..columns import Row

ROW_GROUP = 10_000
"""Rows of a parquet's row group: what is held in memory while it is written."""
PART_ROWS = 1_000_000
"""Rows of a file in a folder of parquets."""
PART = "part-{:05}.parquet"
MADE = re.compile(r".*-[0-9a-f]{8}\.parquet", re.DOTALL)
"""How the parquet of a shard is called."""
_QUOTED = re.compile(rf'[,"\r\n]|[;\t]\s*[{re.escape(FORMULA)}]')


def _write_csv(path: Path, rows: Iterable[Row], columns: dict[str, type]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in csv_lines(rows, columns))


def csv_lines(rows: Iterable[Row], columns: dict[str, type]) -> Iterator[str]:
    """Rows as CSV, the names of the columns first; without the line ends."""
    yield ",".join(columns)
    for row in rows:
        yield ",".join(_cell(row[name]) for name in columns)


def _cell(value: str | float | None) -> str:
    """As in RFC 4180. The module csv leaves a carriage return unquoted, which it then reads as a new row.

    Text is no formula to a spreadsheet, also to one that takes semicolons and tabs for commas.
    """
    text = "" if value is None else defuse(value) if isinstance(value, str) else str(value)
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


def _write_jsonl(path: Path, rows: Iterable[Row], columns: dict[str, type]) -> None:
    with open(path, "w", newline="\n", encoding="utf-8") as file:
        for row in rows:
            ordered = {name: row[name] for name in columns}
            file.write(json.dumps(ordered, ensure_ascii=False, allow_nan=False) + "\n")


def _write_parquet(path: Path, rows: Iterable[Row], columns: dict[str, type]) -> None:
    write_parquet(path, rows, columns)


def write_parquet(
    where: Any, rows: Iterable[Row], columns: dict[str, type], about: dict[str, str] | None = None
) -> None:
    """Write rows as a parquet.

    Args:
        where: a path, or what pyarrow can write to.
        rows: with all columns.
        columns: name and type.
        about: for its metadata.
    """
    import pyarrow
    from pyarrow import parquet

    types = {str: pyarrow.string(), float: pyarrow.float64(), int: pyarrow.int64()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()], about)
    with parquet.ParquetWriter(where, schema) as writer:
        for group in _groups(rows):
            writer.write_table(pyarrow.Table.from_pylist(group, schema))


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    remaining = iter(rows)
    while group := list(islice(remaining, ROW_GROUP)):
        yield group


def _write_parts(path: Path, rows: Iterable[Row], columns: dict[str, type]) -> None:
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
        InputError: another suffix, no such folder, or a link or a folder of other things is in the way.
    """
    if path.suffix.lower() not in WRITERS or path.name in ("", ".."):
        raise InputError(f"--out {path}: give a name that ends in .csv, .jsonl or .parquet, or a new folder")
    if not path.parent.is_dir():
        raise InputError(f"--out {path}: no folder {path.parent}; make it first")
    if path.is_symlink():
        raise InputError(f"--out {path}: is a link; give the name that it leads to")
    if path.is_dir() and (path.suffix or not holds_only_parts(path)):
        raise InputError(f"--out {path}: is a folder of other things; give another name")


def check_apart(path: Path, beside: Iterable[Path], inputs: Iterable[str]) -> None:
    """Check that writing an output harms none of the inputs.

    An output in a folder of images does not: only files named as images are read there.

    Args:
        path: of the output.
        beside: what else is written.
        inputs: paths and globs.

    Raises:
        InputError: an input is the output, or in it, or is what is written beside it.
    """
    written = [path, *beside]
    for text in inputs:
        if glob.has_magic(text) and not os.path.lexists(text):
            pattern = Path(os.path.abspath(text)).parts
            hit = any(_fits(Path(os.path.abspath(file)).parts, pattern) for file in written)
        else:
            given = Path(os.path.realpath(text))
            hit = Path(os.path.realpath(path)) in given.parents or any(_same(given, file) for file in written)
        if hit:
            raise InputError(f"--out {path}: would be written over the input {text}; give another name")


def _same(one: Path, other: Path) -> bool:
    if one.exists() and other.exists():
        return one.samefile(other)
    return os.path.realpath(one) == os.path.realpath(other)


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[count:], pattern[1:]) for count in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def holds_only_parts(folder: Path) -> bool:
    """Whether a folder holds nothing but parquets of scores: those of `write_output`, or those of shards."""
    return all(entry.match("part-*.parquet") or MADE.fullmatch(entry.name) for entry in shown(folder))


def shown(folder: Path) -> list[Path]:
    """The files of a folder by name, without those that a killed run may have left half-written."""
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def identity(path: Path) -> list[tuple[str, int, int]]:
    """By which an output is known again: name within it, size and time of each of its files."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    facts = [(file.name if path.is_dir() else "", file.stat()) for file in files]
    return [(name, fact.st_size, fact.st_mtime_ns) for name, fact in facts]


def write_output(
    path: Path,
    rows: Iterable[Row],
    columns: dict[str, type],
    part: Path | None = None,
    before: Callable[[Path], object] = lambda part: None,
) -> None:
    """Write all rows; the output takes its name when it is whole and on the disk.

    Args:
        path: of the output.
        rows: with all columns.
        columns: name and type.
        part: where it is written first: nothing yet, in the folder of the output.
        before: called with `part` when that is whole and on the disk.
    """
    part = part or path.with_name(path.name + ".journal-part")
    WRITERS[path.suffix.lower()](part, rows, columns)
    for file in sorted(part.iterdir()) if part.is_dir() else [part]:
        with open(file, "rb+") as opened:
            os.fsync(opened.fileno())
    if part.is_dir():
        sync_folder(part)
    before(part)
    if part.is_dir():
        shutil.rmtree(path, ignore_errors=True)  # a folder cannot be put in the place of another
    part.replace(path)
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
