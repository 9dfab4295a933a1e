"""The rows of an output that `score` wrote, one after another, as they were before they were written."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ...errors import InputError
from ...names import printable
from ..columns import Row

MOST = 2**63
"""Numbers that a journal holds are below this."""


def read_output(path: Path, columns: dict[str, type]) -> Iterator[Row]:
    """Rows of an output, with all columns.

    Args:
        path: of a file, or of a folder of parquets.
        columns: name and type.

    Raises:
        InputError: other columns, or not such an output.
    """
    try:
        for row in READERS[path.suffix.lower()](path, columns):
            _check(row, columns)
            yield row
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; check the path") from None
    except (ValueError, TypeError, AttributeError, csv.Error) as error:
        raise InputError(
            f"{path}: is not as `score` wrote it ({error}); give --restart to begin again"
        ) from None


def _check(row: Row, columns: dict[str, type]) -> None:
    """Check what others may have changed in a row.

    Raises:
        ValueError: a value that `score` does not write.
    """
    for name, kind in columns.items():
        value = row[name]
        if value is None and kind is not str:
            continue
        known = isinstance(value, (float, int) if kind is float else kind) and not isinstance(value, bool)
        if not known or not (kind is str or -MOST < value < MOST):  # NaN is neither
            raise ValueError(f"a row has the {name} {value!r}")
    if (row["score"] is None) == (row["error"] == ""):
        what = "a score and an error" if row["error"] else "neither score nor error"
        raise ValueError(f"{printable(row['path'])} has {what}")


def _check_columns(path: Path, found: Iterable[str], columns: dict[str, type]) -> None:
    if set(found) != set(columns):
        raise InputError(
            f"{path}: has the columns {', '.join(found)}, not {', '.join(columns)}; repeat the command that "
            "wrote it, or give --restart to begin again"
        )


def _read_csv(path: Path, columns: dict[str, type]) -> Iterator[Row]:
    with open(path, newline="", encoding="utf-8") as file:
        table = csv.reader(file, strict=True)
        names = next(table, [])
        _check_columns(path, names, columns)
        for cells in table:
            row = dict(zip(names, cells, strict=True))
            yield {
                name: kind(row[name]) if row[name] or kind is str else None for name, kind in columns.items()
            }


def _read_jsonl(path: Path, columns: dict[str, type]) -> Iterator[Row]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            _check_columns(path, row, columns)
            yield row


def _read_parquet(path: Path, columns: dict[str, type]) -> Iterator[Row]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        _check_columns(path, file.schema_arrow.names, columns)
        for batch in file.iter_batches():
            yield from batch.to_pylist()


def _read_parts(path: Path, columns: dict[str, type]) -> Iterator[Row]:
    for part in sorted(path.iterdir()):
        yield from _read_parquet(part, columns)


READERS: dict[str, Callable[[Path, dict[str, type]], Iterator[Row]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
    "": _read_parts,
}
