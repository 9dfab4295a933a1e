"""Which shards a run has: one after another as they are asked for, never all of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from ...errors import InputError
from ...places import absolute, is_url, joined, parent, without_secrets
from ..inputs.containers import Containers
from ..inputs.expanding import expanded
from ..inputs.items import Item
from ..inputs.listing import is_image, items_at
from ..inputs.streams import is_tar
from ..inputs.tables import SUFFIXES
from ..request import Request
from ..rows.output import MADE, check_apart
from .made import read_made
from .shard import Shard, block, made_place, shard_at

BLOCK = 10_000
"""Images of a block of a list."""
TABLES = (*SUFFIXES, ".json", ".tsv")
"""Whoever gives a URL that ends so wants a single file."""
LOOSE = "images"
"""What the list of images is called that are given one by one."""


def is_by_shards(request: Request) -> bool:
    """Whether each shard of the inputs becomes a parquet of its own, rather than all rows one output.

    So it is for a URL, and for a folder where all inputs are shards, unless the run has a journal already.
    """
    if request.out is None:
        return False
    if is_url(str(request.out)):
        return True
    ends = (without_secrets(text).lower() for text in request.inputs)
    return (
        not Path(request.out).suffix
        and not os.path.lexists(f"{request.out}.journal")
        and all(is_tar(text) or text.endswith(SUFFIXES) for text in ends)
    )


def check_out(request: Request) -> str:
    """The folder, which is there then, or the URL for the parquets.

    Raises:
        InputError: no such folder, or one of other things, or one that holds an input; the URL of a table.
        OSError: it cannot be made.
    """
    out = str(request.out)
    if is_url(out):
        if out.lower().startswith(("http://", "https://")) or without_secrets(out) != out:
            why = "is no place to write to; give a URL such as s3://BUCKET/FOLDER"
            raise InputError(f"--out {without_secrets(out)}: {why}, without a query or a user")
        if out.lower().endswith(TABLES):
            why = "a single file is written on this machine only"
            raise InputError(
                f"--out {out}: {why}; give a path, or for a parquet of each shard a URL without suffix"
            )
        return out.rstrip("/")
    path = Path(out)
    if not path.parent.is_dir():
        raise InputError(f"--out {path}: no folder {path.parent}; make it first")
    check_apart(path, [], [text for text in request.inputs if not is_url(text)])
    path.mkdir(exist_ok=True)
    with os.scandir(path) as entries:
        if not all(entry.name.startswith(".") or MADE.fullmatch(entry.name) for entry in entries):
            raise InputError(f"--out {path}: is a folder of other things; give another name")
    return os.path.abspath(path)


def shards_of(request: Request, out: str) -> Iterator[Shard]:
    """The shards of the inputs, in their order; images that are given one by one come last, in blocks.

    Raises:
        InputError: a pattern that matches nothing, a list that cannot be read, or one that was longer; when
            all shards of the other inputs have been given. Or there are no inputs.
    """
    if not request.inputs:
        raise InputError("no images there; check the inputs")
    loose: list[str] = []
    refused: list[InputError] = []
    for text in request.inputs:
        try:
            yield from _of_input(text, request.column, out, loose)
        except InputError as error:
            refused.append(error)
    if loose:
        folders = sorted({parent(absolute(place)) for place in loose})
        yield from _blocks(LOOSE, items_at(loose, request.column), out, joined("\n".join(folders), LOOSE))
    if refused:
        raise refused[0]


def _of_input(text: str, column: str, out: str, loose: list[str]) -> Iterator[Shard]:
    """The shards of an input; images that it gives one by one go into `loose`."""
    kind = ""
    for place in expanded(text):
        name = without_secrets(place).lower() if is_url(place) else place.lower()
        if is_tar(name):
            yield shard_at(place)
            continue
        if name.endswith(".parquet"):
            # One is looked into, since a look at each would take a round trip for each.
            kind = kind or _kind(place, column)
        if name.endswith(".parquet") and kind != "paths":
            yield shard_at(place, column)
        elif is_image(name):
            loose.append(place)
        else:  # a list or a folder
            yield from _blocks(place, items_at([place], column), out)


def _kind(place: str, column: str) -> str:
    """What a parquet holds, "images" or "paths"; nothing if it cannot be read."""
    try:
        return "images" if column in Containers({}).image_columns(place) else "paths"
    except InputError:
        return ""


def _blocks(name: str, items: Iterable[Item], out: str, place: str = "") -> Iterator[Shard]:
    """A list in blocks, in each of which an image counts once; place as of `block`."""
    remaining = iter(items)
    number = 0
    while taken := list(islice(remaining, BLOCK)):
        once: dict[bytes, Item] = {}
        for item in taken:
            once.setdefault(item.key(), item)
        yield block(name, number, list(once.values()), place)
        number += 1
    left = made_place(out, block(name, number, (), place))
    if read_made(left):
        raise InputError(
            f"{without_secrets(left)}: is of a block that {name} has no longer; delete it, and those of the "
            "blocks after it"
        )
