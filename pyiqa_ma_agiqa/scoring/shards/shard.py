"""A shard: a tar, a parquet of images or a block of a list, which is scored in one go into one parquet."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from ...names import escape
from ...places import absolute, joined, without_secrets
from ..inputs.items import Item
from ..inputs.stamps import open_regular, stamp
from ..inputs.streams import CODECS

LONGEST_STEM = 100
"""Characters of a shard's own name in that of its parquet."""


class Shard(NamedTuple):
    """What is scored in one go.

    Attributes:
        name: as the rows call it: the input as given, without what may be a credential.
        place: absolute path or URL of the tar, the parquet or the list.
        column: of a parquet of images; else empty.
        number: of a block in its list, else -1.
        names: of the images of a block, as the rows have them.
        items: of a block, which are found from every folder.
        is_fixed: whether other names are of other images, rather than of a list that has changed.
    """

    name: str
    place: str
    column: str = ""
    number: int = -1
    names: tuple[str, ...] = ()
    items: tuple[Item, ...] = ()
    is_fixed: bool = False

    @property
    def is_block(self) -> bool:
        return self.number >= 0

    def stamp(self) -> str:
        """Its size, a colon, and what else changes with its content.

        Raises:
            OSError: it cannot be read.
            InputError: it is being written, or is no file.
        """
        if self.is_block:
            names = os.fsencode("\0".join(self.names))
            return f"{len(self.names)}:{hashlib.sha256(names).hexdigest()}"
        with open_regular(self.place) as file:
            return stamp(file)


def shard_at(given: str, column: str = "") -> Shard:
    """The shard of a tar, or with a column of a parquet of images."""
    return Shard(without_secrets(given), absolute(given), column)


def block(given: str, number: int, items: Sequence[Item], place: str = "") -> Shard:
    """A block of a list or a folder; with a place that is neither's, of images that were given one by one."""
    names = tuple(item.name for item in items)
    found = tuple(item.found_from_anywhere() for item in items)
    return Shard(without_secrets(given), place or absolute(given), "", number, names, found, bool(place))


def made_name(shard: Shard) -> str:
    """What the parquet of a shard is called: as the shard, and another one for each place."""
    place = without_secrets(shard.place)
    name = re.split(r"[/\\]", place)[-1]
    suffix = next((end for end in CODECS if name.lower().endswith(end)), os.path.splitext(name)[1])
    stem = re.sub(r"[^\w.-]+", "_", escape(name[: len(name) - len(suffix)]), flags=re.ASCII)[:LONGEST_STEM]
    number = f"-{shard.number:05}" if shard.is_block else ""
    digest = hashlib.sha256(os.fsencode(place)).hexdigest()[:8]
    return f"{stem}{number}-{digest}.parquet"


def made_place(out: str, shard: Shard) -> str:
    """Where the parquet of a shard lies."""
    return joined(out, made_name(shard))
