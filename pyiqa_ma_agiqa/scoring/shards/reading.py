"""The rows of a shard, which is read once from front to back, never as a whole; a parquet page by page.

The rows are those that the images have one by one. Of a tar they are known at its end: the last member of
a name counts then, and links lead to what is there. What links lead to and is not called an image is read
in a second pass, which tars seldom need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from ...errors import InputError
from ...names import escape
from ...places import is_url, joined, parent, without_secrets
from ..columns import Row
from ..inputs.items import CUT_OFF, MEMBER, READ_FAILED, Item, Loaded, cell_content, check_size
from ..inputs.listing import is_image
from ..inputs.stamps import changes, is_still, open_regular, stamp
from ..inputs.streams import plain_bytes
from ..inputs.tables import check_column, holds
from ..inputs.tars import Tars
from .shard import Shard

ROWS = 8
"""Images of a parquet that are read at once."""
BUFFER = 2**20
"""Bytes of a column of a parquet that are read at once."""

Images = Iterable[tuple[int, Item | Loaded]]
Score = Callable[[Images], Iterator[tuple[int, Row]]]
"""Gives number and row, without the path, for each image."""


class Unreadable(Exception):
    """A shard that cannot be read to its end; nothing is said against the others.

    Attributes:
        lost: whether the store did not answer, so that others may not be readable either.
    """

    def __init__(self, why: str, lost: bool = False) -> None:
        super().__init__(why)
        self.lost = lost


def rows_of(shard: Shard, score: Score, max_bytes: int) -> tuple[list[Row], str]:
    """All rows of a shard, with their paths, and the stamp of what was read.

    Args:
        shard: what to read.
        score: scores images as they are read.
        max_bytes: of an image.

    Raises:
        Unreadable: it cannot be read, or no image of a block, or it was changed meanwhile.
    """
    if shard.is_block:
        found = dict(score(enumerate(shard.items)))
        rows = [_row(shard, name, found[number]) for number, name in enumerate(shard.names)]
        if all(row["error"].startswith(READ_FAILED) for row in rows):
            raise Unreadable(f"none of its images can be read, the first: {rows[0]['error']}", lost=True)
        return rows, shard.stamp()
    read = _parquet if shard.column else _tar
    return read(shard, score, max_bytes)


def _row(shard: Shard, name: str, row: Row) -> Row:
    if not shard.is_block:
        name = shard.name + name.removeprefix(shard.place)
    error = without_secrets(row["error"]) if is_url(shard.place) else row["error"]
    return row | {"path": escape(name), "error": error}


def told(shard: Shard, error: Exception) -> Unreadable:
    """The error of a shard that cannot be read."""
    lost = isinstance(error, OSError) and not isinstance(error, (FileNotFoundError, PermissionError))
    text = without_secrets(str(getattr(error, "strerror", None) or error).removeprefix(f"{shard.place}: "))
    if isinstance(error, FileNotFoundError):
        text = "no such file; check its name, then repeat the command"
    elif isinstance(error, OSError):
        text = f"cannot be read ({text}); see to that, then repeat the command"
    return Unreadable(text, lost)


def _guarded(shard: Shard, images: Images) -> Images:
    """The images; what is wrong with their shard is no error of the metric."""
    try:
        yield from images
    except (OSError, InputError) as error:
        raise told(shard, error) from None


def _tar(shard: Shard, score: Score, max_bytes: int) -> tuple[list[Row], str]:
    stamps: dict[str, str] = {}
    tars = Tars(stamps)
    found = dict(score(_guarded(shard, _members(tars, shard, max_bytes))))
    items = [item for item in tars.items(shard.place) if not item.container or is_image(item.name)]
    rest = {number: item for number, item in enumerate(items) if item.problem or item.start not in found}
    again = dict(score(_guarded(shard, _second_pass(shard, rest, max_bytes))))
    rows = [
        _row(shard, item.name, again[number] if number in rest else found[item.start])
        for number, item in enumerate(items)
    ]
    return rows, stamps[shard.place]


def _members(tars: Tars, shard: Shard, max_bytes: int) -> Images:
    """Images by the byte at which they begin, as they come."""
    for item, file in tars.scan(shard.place):
        if is_image(item.name) and item.size <= max_bytes:
            yield item.start, _loaded(item, file)


def _loaded(item: Item, file: BinaryIO) -> Loaded:
    file.seek(item.start)
    content = file.read(item.size)
    return Loaded(item.name, content, "" if len(content) == item.size else CUT_OFF)


def _second_pass(shard: Shard, rest: dict[int, Item], max_bytes: int) -> Images:
    wanted = []
    for number, item in rest.items():
        if item.problem or item.size > max_bytes:
            yield number, item  # whose bytes are not read
        else:
            wanted.append((item.start, number, item))
    if wanted:
        with open_regular(shard.place) as packed:
            file = plain_bytes(packed, shard.place)
            for _, number, item in sorted(wanted):
                yield number, _loaded(item, file)
            if not is_still(packed, wanted[0][2].stamp):
                raise changes(packed)


def _parquet(shard: Shard, score: Score, max_bytes: int) -> tuple[list[Row], str]:
    names: list[str] = []
    stamps: list[str] = []
    found = dict(score(_guarded(shard, _cells(shard, names, stamps, max_bytes))))
    return [_row(shard, name, found[number]) for number, name in enumerate(names)], stamps[0]


def _cells(shard: Shard, names: list[str], stamps: list[str], max_bytes: int) -> Images:
    import pyarrow
    from pyarrow import parquet

    with open_regular(shard.place) as file:
        stamps.append(stamp(file))
        try:
            opened = parquet.ParquetFile(file, buffer_size=BUFFER)
            schema = opened.schema_arrow
        except pyarrow.ArrowException as error:
            raise InputError(f"not a parquet file ({error}); write it again") from None
        check_column(shard.place, shard.column, schema.names)
        kind = schema.field(shard.column).type
        if holds(kind) != "images":
            why = f"column {shard.column} holds {kind}, not images as the first of these parquets"
            raise InputError(f"{why}; give it by itself")
        for group in range(opened.num_row_groups):
            for cell in _group(opened, group, shard.column):
                names.append(f"{shard.place}{MEMBER}{len(names)}")
                yield len(names) - 1, _image(shard, names[-1], cell, max_bytes)
        if not is_still(file, stamps[0]):
            raise changes(file)


def _group(opened: Any, group: int, column: str) -> Iterator[Any]:
    """The cells of a row group; where it is damaged, from there on the error in the place of each."""
    import pyarrow

    missing = opened.metadata.row_group(group).num_rows
    try:
        for batch in opened.iter_batches(ROWS, row_groups=[group], columns=[column]):
            for cell in batch.column(0):
                missing -= 1
                yield cell
    except (pyarrow.ArrowException, OSError) as error:
        if getattr(error, "errno", None):  # the system's, not pyarrow's
            raise
        damage = InputError(f"its row group is damaged ({error}); make or fetch the parquet again")
        yield from [damage] * missing


def _image(shard: Shard, name: str, cell: Any, max_bytes: int) -> Item | Loaded:
    try:
        if isinstance(cell, InputError):
            raise cell
        content = cell_content(cell, shard.column)
        if isinstance(content, str):
            return Item(joined(parent(shard.place), content))
        check_size(len(content), max_bytes)
    except InputError as error:
        return Loaded(name, b"", str(error))
    return Loaded(name, content)
