"""The parquet of a shard: its rows, and in its metadata what it was made of and with; whole or not there."""

from __future__ import annotations

import io
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ...errors import InputError
from ...places import is_url, without_secrets
from ..columns import Row, output_columns
from ..inputs import storage
from ..inputs.stamps import open_regular
from ..rows.output import sync_folder, write_parquet

KEY = "pyiqa_ma_agiqa"
"""Of the metadata, under which it is JSON."""
END = 2**16
"""Bytes at the end of a parquet that hold its metadata, unless it has a great many row groups."""


class Made(NamedTuple):
    """What the metadata of a shard's parquet say.

    Attributes:
        shard: its name in the rows.
        size: bytes of the shard, or images of a block.
        changes: its ETag or time of the last change, or the SHA-256 of a block's names.
        metric, version, weights: as in the columns of these names.
        settings: what else the rows depend on.
        images: rows.
        failed: rows with an error.
        total: sum of the scores.
    """

    shard: str
    size: int
    changes: str
    metric: str
    version: str
    weights: str
    settings: dict[str, Any]
    images: int
    failed: int
    total: float

    @property
    def stamp(self) -> str:
        return f"{self.size}:{self.changes}"


def read_made(place: str) -> Made | None:
    """What the parquet of a shard says of itself; None where there is none.

    Raises:
        InputError: something else is there.
        OSError: it cannot be read.
    """
    try:
        with open_regular(place) as file:
            made = _told(file)
    except FileNotFoundError:
        return None
    if made is None:
        raise InputError(f"{without_secrets(place)}: is in the way, and not of such a run; move it away")
    return made


def read_listed(url: str, size: int) -> Made | None:
    """The same of an object, by one read of its end; None where that does not tell it.

    Args:
        url: of the parquet.
        size: of the object, as it was listed.

    Raises:
        OSError: the read fails, as it does where the object is smaller by now.
    """
    return _told(io.BytesIO(storage.read_range(url, max(size - END, 0), size, patience=0)))


def _told(file: BinaryIO) -> Made | None:
    """What the end of a parquet says; None if it is not of such a run."""
    import pyarrow
    from pyarrow import parquet

    try:
        told = parquet.read_metadata(file).metadata or {}
        return Made(**json.loads(told[KEY.encode()]))
    except (pyarrow.ArrowException, KeyError, TypeError, ValueError):
        return None


def write_made(place: str, rows: list[Row], made: Made) -> None:
    """Write the parquet of a shard.

    Args:
        place: path or URL.
        rows: with the columns that are found for an image.
        made: for its metadata, and for what the rows say of their origin.

    Raises:
        OSError: it cannot be written.
    """
    import pyarrow

    origin = {"metric": made.metric, "version": made.version, "weights": made.weights}
    sink = pyarrow.BufferOutputStream()
    about = {KEY: json.dumps(made._asdict())}
    columns = output_columns(made.settings["--shares"], made.settings["--interval"])
    write_parquet(sink, (row | origin for row in rows), columns, about)
    write_whole(place, sink.getvalue().to_pybytes())


def write_whole(place: str, content: bytes) -> None:
    """Write a file or an object such that it has its name only when it is whole and on the disk.

    Raises:
        OSError: it cannot be written.
    """
    if is_url(place):
        storage.write_object(place, content)
        return
    path = Path(place)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    sync_folder(path.parent)


def delete_parts(folder: Path, seconds: float, now: float) -> None:
    """Delete what killed runs have left half-written, and no run is at work on.

    Args:
        folder: of the parquets.
        seconds: a part this old is nobody's any more: it is written in one go.
        now: the time.
    """
    for part in folder.glob(".*.parquet.*.part"):
        with suppress(OSError):
            if now - part.stat().st_mtime > seconds:
                part.unlink()
