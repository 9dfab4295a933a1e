"""What a run has done so far, on the disk beside its output: an SQLite file, ``OUT.journal``.

It holds the settings, the list of images as the first run found it, and the rows. SQLite keeps it
whole through kill -9 and power loss; a rerun scores the images that have no row. A row is on the
disk about half a second after it was made; what a crash takes with it is scored again.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .columns import Row, columns
from .items import Item
from .names import escape

SECONDS_BETWEEN_COMMITS = 0.5
PAGE = 1000
"""Rows that are held in memory at once."""
LIST = "items(number INTEGER PRIMARY KEY, key BLOB UNIQUE, name, container, start, size, col, problem)"
SQL_TYPES = {str: "TEXT", float: "REAL", int: "INTEGER"}


class Journal:
    """The journal of one output, locked while it is open.

    Args:
        path: of the journal.
        settings: all that the rows depend on, by the name that the user knows it by.
        shares: whether rows have shares.

    Raises:
        InputError: it was begun with other settings, another run has it open, or it is damaged.
    """

    def __init__(self, path: Path, settings: dict[str, Any], shares: bool) -> None:
        self.path = path
        self.columns = {name: kind for name, kind in columns(shares).items() if name != "path"}
        self.added: list[tuple[Any, ...]] = []
        self.committed = time.monotonic()
        self.database = _lock(path)
        try:
            self._begin(json.loads(json.dumps(settings)))
        except sqlite3.OperationalError as error:
            self.database.close()
            raise cannot_go_on(path, error) from None
        except (sqlite3.DatabaseError, ValueError) as error:
            self.database.close()
            raise InputError(f"{path}: damaged ({error}); give --restart to begin again") from None
        except InputError:
            self.database.close()
            raise

    def _begin(self, settings: dict[str, Any]) -> None:
        tables = {name for (name,) in self.database.execute("SELECT name FROM sqlite_master")}
        if "job" in tables:
            (before,) = self.database.execute("SELECT settings FROM job").fetchone()
            if json.loads(before) == settings:
                return
            if self.done():
                raise _other_settings(self.path, json.loads(before), settings)
        fields = ", ".join(f"{name} {SQL_TYPES[kind]}" for name, kind in self.columns.items())
        with self.database:
            # Without this, each table is a transaction of its own.
            self.database.execute("BEGIN IMMEDIATE")
            for name in ("job", "items", "rows"):
                self.database.execute(f"DROP TABLE IF EXISTS {name}")
            self.database.execute("CREATE TABLE job(settings, listed)")
            self.database.execute(f"CREATE TABLE {LIST}")
            self.database.execute(f"CREATE TABLE rows(number INTEGER PRIMARY KEY, {fields})")
            self.database.execute("INSERT INTO job VALUES (?, 0)", [json.dumps(settings)])

    def list_once(self, items: Iterable[Item]) -> int:
        """Take the list of images, unless an earlier run has; returns how many there are.

        An image that comes twice is taken the first time.
        """
        (listed,) = self.database.execute("SELECT listed FROM job").fetchone()
        if not listed:
            with self.database:
                self.database.execute("DELETE FROM items")
                self.database.executemany(
                    "INSERT OR IGNORE INTO items VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", map(_stored, items)
                )
                self.database.execute("UPDATE job SET listed = 1")
        (count,) = self.database.execute("SELECT COUNT(*) FROM items").fetchone()
        return count

    def done(self) -> int:
        """How many images have a row."""
        return self.database.execute("SELECT COUNT(*) FROM rows").fetchone()[0]

    def pending(self) -> Iterator[tuple[int, Item]]:
        """Number and image, for images without a row; rows may be added meanwhile."""
        last = 0
        while True:
            page = self.database.execute(
                "SELECT number, name, container, start, size, col, problem FROM items WHERE number > ? "
                "AND number NOT IN (SELECT number FROM rows) ORDER BY number LIMIT ?",
                [last, PAGE],
            ).fetchall()
            if not page:
                return
            for number, name, container, *rest in page:
                yield number, Item(os.fsdecode(name), os.fsdecode(container), *rest)
            last = page[-1][0]

    def add(self, number: int, row: Row) -> None:
        """Take the row of an image."""
        self.added.append((number, *(row[name] for name in self.columns)))
        if time.monotonic() - self.committed > SECONDS_BETWEEN_COMMITS or len(self.added) >= PAGE:
            self.commit()

    def commit(self) -> None:
        """Put the rows on the disk."""
        marks = ", ".join("?" * (1 + len(self.columns)))
        with self.database:
            self.database.executemany(f"INSERT OR REPLACE INTO rows VALUES ({marks})", self.added)
        self.added.clear()
        self.committed = time.monotonic()

    def rows(self, rest: str = "ORDER BY number", *values: Any) -> Iterator[Row]:
        """Rows with their paths; `rest` is what comes after FROM in SQL."""
        fields = ["name", *self.columns]
        query = f"SELECT {', '.join(fields)} FROM items JOIN rows USING (number) {rest}"
        for name, *cells in self.database.execute(query, values):
            yield dict(zip(["path", *self.columns], [escape(os.fsdecode(name)), *cells], strict=True))

    def scores(self) -> np.ndarray:
        """All scores, in no particular order."""
        found = self.database.execute("SELECT score FROM rows WHERE score IS NOT NULL")
        return np.fromiter((score for (score,) in found), float)

    def failures(self) -> int:
        return self.database.execute("SELECT COUNT(*) FROM rows WHERE error != ''").fetchone()[0]

    def close(self) -> None:
        self.database.close()

    def remove(self) -> None:
        """Delete the journal: its output is there."""
        self.close()
        _delete(self.path)


def _stored(item: Item) -> tuple[Any, ...]:
    name, container, *rest = item
    return (item.key(), os.fsencode(name), os.fsencode(container), *rest)


def _lock(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=0)
    try:
        # The lock of this mode is kept until the end, and the log then needs no shared memory,
        # which network file systems do not have.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("BEGIN IMMEDIATE")
        database.commit()
    except sqlite3.OperationalError as error:
        database.close()
        if "locked" in str(error):
            raise InputError(f"{path}: another run writes this output; wait for its end") from None
        raise cannot_go_on(path, error) from None
    except sqlite3.DatabaseError as error:
        database.close()
        raise InputError(f"{path}: damaged ({error}); give --restart to begin again") from None
    return database


def cannot_go_on(path: Path, error: Exception) -> InputError:
    """The error of a journal, or of the output beside it, that the system does not let us write."""
    return InputError(
        f"{path}: cannot be written ({error}); make room or check the folder's permissions, then repeat "
        "the command"
    )


def _other_settings(path: Path, before: dict[str, Any], now: dict[str, Any]) -> InputError:
    differing = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    listed = "; ".join(f"{name} was {before.get(name)}, is {now.get(name)}" for name in differing)
    return InputError(
        f"{path}: holds rows of other settings ({listed}); repeat the command that began it to go on, "
        "or give --restart to begin again"
    )


def restart(path: Path) -> None:
    """Delete the journal that an earlier run left, if there is one.

    Raises:
        InputError: another run has it open.
    """
    if path.exists():
        try:
            _lock(path).close()
        except InputError as error:
            if "another run" in str(error):
                raise
        _delete(path)


def _delete(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
