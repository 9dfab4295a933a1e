"""`--retry-errors`: the images whose row has an error become pending again; all other rows stay.

The inputs are listed again, since a folder or a tar that could not be read is one row, in the place of
all its images. An image that is listed now and was not before is left out, unless the row of its folder
or container has an error. A row whose image is no longer listed stays, at the end.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...errors import InputError
from ...names import unescape
from ..columns import Row
from ..inputs.items import Item
from .crashes import VERDICT
from .journal import ITEM, Journal
from .output import identity

_STORED = f"key, {ITEM}"


def take_in(journal: Journal, path: Path, output: Iterable[Row]) -> None:
    """Take the rows of a finished output into a journal without rows, which may then replace it.

    Raises:
        InputError: the output has a path twice.
    """
    with journal.database:
        journal.database.execute("BEGIN IMMEDIATE")
        journal.clear()
        journal.allow(identity(path))
        try:
            for number, row in enumerate(output, 1):
                journal.insert_items([Item(unescape(row["path"]))], "ABORT")
                journal.insert_rows([(number, *(row[name] for name in journal.columns))])
        except sqlite3.IntegrityError:
            raise InputError(f"{path}: has {row['path']} twice; give --restart to begin again") from None


def retry_errors(journal: Journal, listed: Iterable[Item], died: bool = False) -> None:
    """Drop the rows with errors, and list what is behind them again.

    Args:
        journal: with rows.
        listed: the images of the inputs.
        died: whether the process of the last run died. This one goes on with it then: images that are
            known to have killed it keep their rows, or the command would have no end.
    """
    execute = journal.database.execute
    rows = ", ".join(journal.columns)
    with journal.database:
        execute("BEGIN IMMEDIATE")
        execute(f"CREATE TABLE old AS SELECT {_STORED}, {rows} FROM items LEFT JOIN rows USING (number)")
        execute("CREATE UNIQUE INDEX old_names ON old(name)")
        execute("CREATE TABLE answered(name BLOB PRIMARY KEY)")
        journal.clear()
        journal.insert_items(_wanted(journal.database, listed))
        (last,) = execute("SELECT COALESCE(MAX(number), 0) FROM items").fetchone()
        execute(
            f"INSERT OR IGNORE INTO items({_STORED}) SELECT {_STORED} FROM old WHERE name NOT IN "
            "(SELECT name FROM items UNION SELECT name FROM answered) ORDER BY rowid"
        )
        execute(
            f"INSERT INTO rows(number, {rows}) SELECT number, {rows} FROM old JOIN items USING (name) "
            "WHERE error = '' OR (error != '' AND number > ?) OR (error = ? AND ?)",
            [last, VERDICT, died],
        )
        if not died:
            execute("UPDATE suspects SET deaths = 0")
        execute("DROP TABLE old")
        execute("DROP TABLE answered")


def _wanted(database: sqlite3.Connection, listed: Iterable[Item]) -> Iterator[Item]:
    for item in listed:
        if database.execute("SELECT 1 FROM old WHERE name = ?", [os.fsencode(item.name)]).fetchone():
            yield item
        elif holder := _failed_holder(database, item):
            database.execute("INSERT OR IGNORE INTO answered VALUES (?)", [holder])
            yield item


def _failed_holder(database: sqlite3.Connection, item: Item) -> bytes | None:
    """The name of a folder or container of the image that has a row with an error."""
    name = item.container or os.path.dirname(item.name)
    while True:
        for spelt in (name, name + os.sep):
            holder = os.fsencode(spelt)
            if database.execute("SELECT 1 FROM old WHERE name = ? AND error != ''", [holder]).fetchone():
                return holder
        above = os.path.dirname(name)
        if above == name:
            return None
        name = above
