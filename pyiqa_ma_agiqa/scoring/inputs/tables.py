"""Tables of paths or of images: their columns, and the cells of one of them, as a stream."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from itertools import chain
from typing import Any, TextIO

from ...errors import InputError
from ...names import printable

SUFFIXES = (".csv", ".jsonl", ".parquet")
Cells = tuple[list[str], Iterator[Any]]
"""Names of all columns, and the cells of one: the text of a path, None for an empty one."""


def csv_cells(file: TextIO, column: str) -> Cells:
    rows = csv.DictReader(file)
    return list(rows.fieldnames or []), (row[column] for row in rows)


def jsonl_cells(file: TextIO, column: str) -> Cells:
    rows = (_object(number, line) for number, line in enumerate(file, 1) if line.strip())
    first = next(rows, {})
    return list(first), (row.get(column) for row in chain([first], rows))


def _object(number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except RecursionError:
        row = None
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"line {number} is not an object")
    return row


def parquet_cells(file: Any, column: str) -> Iterator[str | None]:
    """Cells of a column of text.

    Args:
        file: an open `pyarrow.parquet.ParquetFile`.
        column: which is there, once.
    """
    import pyarrow

    for batch in file.iter_batches(columns=[column]):
        texts = batch.column(column)
        if pyarrow.types.is_dictionary(texts.type):
            texts = texts.dictionary_decode()
        # As bytes, since what says it is text may not be UTF-8.
        for cell in texts.cast(pyarrow.large_binary()).to_pylist():
            yield None if cell is None else os.fsdecode(cell)


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _is_binary(kind: Any) -> bool:
    from pyarrow import types

    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


def holds(kind: Any) -> str:
    """What a column of this pyarrow type holds: "paths", "images", or nothing that can be scored."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
        return "images" if _is_binary(kind) else ""
    return "images" if _is_binary(kind) else "paths" if _is_text(kind) else ""


def check_column(table: str, column: str, columns: list[str]) -> None:
    """Check that a table has a column, once.

    Raises:
        InputError: it has not; the message names those that there are.
    """
    if columns.count(column) > 1:
        raise InputError(f"{table}: has {columns.count(column)} columns {column}; rename all but one")
    if column not in columns:
        there = f"there are {printable(', '.join(columns))}" if columns else "it is empty"
        raise InputError(f"{table}: no column {column}; {there}; name one with --column")
