"""What a run has done so far, on the disk beside its output: an SQLite file, ``OUT.journal``.

It holds the settings, the list of images as the first run found it, the rows, and which outputs the
run may replace. SQLite keeps it whole through kill -9 and power loss; a rerun scores the images that
have no row. A row is on the disk about half a second after it was made; what a crash takes with it is
scored again.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...names import escape, printable
from ..columns import Row
from ..inputs.items import READ_FAILED, Item
from ..inputs.stamps import is_still_at
from ..settings import differing
from .output import identity

SECONDS_BETWEEN_COMMITS = 0.5
PAGE = 1000
"""Rows that are held in memory at once."""
ITEM = "name, container, start, size, col, problem, stamp"
"""The fields of an `Item`, in the order that it has them in."""
WITHOUT_ROW = "number NOT IN (SELECT number FROM rows)"
SQL_TYPES = {str: "TEXT", float: "REAL", int: "INTEGER"}
APPLICATION_ID = 0x41474951
"""By which SQLite files are told apart: in the header, from byte 68 on."""
_APPLICATION = slice(68, 72)
PROBES = 10
"""At most so many images are looked at to tell whether any can be read."""


class Damaged(InputError):
    """A journal that SQLite cannot read."""


class Journal:
    """The journal of one output, locked while it is open.

    Args:
        path: of the journal.
        settings: all that the rows depend on, by the name that the user knows it by.
        columns: what is found for each image, and its type.
        restart: whether to forget what an earlier run has done.

    Raises:
        InputError: it was begun with other settings, another run has it open, it is damaged, or
            something else is in its place.
    """

    def __init__(
        self, path: Path, settings: dict[str, Any], columns: dict[str, type], restart: bool = False
    ) -> None:
        self.path = path
        self.part = path.with_name(path.name + "-part")
        """Where the output is written before it takes its name."""
        self.columns = {name: kind for name, kind in columns.items() if name != "path"}
        self.added: list[tuple[Any, ...]] = []
        self.committed = time.monotonic()
        try:
            self._open(settings, restart)
        except Damaged:
            if not restart:
                raise
            _delete(path)
            self._open(settings, restart)

    def _open(self, settings: dict[str, Any], restart: bool) -> None:
        self.database = _lock(self.path)
        try:
            self._begin(json.loads(json.dumps(settings)), restart)
            self._check_part()
        except InputError:
            self.database.close()
            raise
        except (sqlite3.OperationalError, OSError) as error:
            self.database.close()
            raise cannot_go_on(self.path, error) from None
        except (sqlite3.DatabaseError, ValueError) as error:
            self.database.close()
            raise damaged(self.path, error) from None

    def _begin(self, settings: dict[str, Any], restart: bool) -> None:
        if self.database.execute("SELECT 1 FROM sqlite_master WHERE name = 'job'").fetchone():
            (before,) = self.database.execute("SELECT settings FROM job").fetchone()
            if not restart and json.loads(before) == settings:
                self._forget_unread()
                return
            if self.done() and not restart:
                raise _other_settings(self.path, json.loads(before), settings)
            self._delete_part()
        with self.database:
            # Without this, each table is a transaction of its own.
            self.database.execute("BEGIN IMMEDIATE")
            for name in ("job", "items", "rows", "outputs", "suspects", "sources"):
                self.database.execute(f"DROP TABLE IF EXISTS {name}")
            self.database.execute("CREATE TABLE job(settings, part)")
            self.database.execute("CREATE TABLE outputs(files)")
            self.database.execute("CREATE TABLE sources(path BLOB, stamp)")
            self.database.execute("CREATE TABLE suspects(key BLOB PRIMARY KEY, deaths INTEGER)")
            fields = ", ".join(f"{name} {SQL_TYPES[kind]}" for name, kind in self.columns.items())
            self.database.execute(f"CREATE TABLE items(number INTEGER PRIMARY KEY, key BLOB UNIQUE, {ITEM})")
            self.database.execute(f"CREATE TABLE rows(number INTEGER PRIMARY KEY, {fields})")
            self.database.execute("INSERT INTO job VALUES (?, 0)", [json.dumps(settings)])

    def _forget_unread(self) -> None:
        """What could not be read in an earlier run may be there again."""
        with self.database:
            self.database.execute(
                "DELETE FROM rows WHERE substr(error, 1, ?) = ?", [len(READ_FAILED), READ_FAILED]
            )

    def list_once(self, items: Iterable[Item], stamps: Mapping[str, str] | None = None) -> int:
        """Take the list of images, unless there are rows of it; returns how many images there are.

        An image that comes twice is taken the first time.

        Args:
            items: the images.
            stamps: when all items are taken, of the tables and containers they come from, by path.

        Raises:
            InputError: one of these was changed since an earlier run took its list and began to score.
        """
        if not self.done():
            with self.database:
                self.clear()
                self.insert_items(items)
                self.keep(stamps or {})
        self._check_sources()
        return self.total()

    def clear(self) -> None:
        """Forget images and rows, within a transaction."""
        self.database.execute("DELETE FROM items")
        self.database.execute("DELETE FROM rows")

    def insert_items(self, items: Iterable[Item], if_twice: str = "IGNORE") -> None:
        """Add images to the list, within a transaction."""
        self.database.executemany(
            f"INSERT OR {if_twice} INTO items VALUES (NULL, ?{', ?' * len(Item._fields)})",
            map(_stored, items),
        )

    def insert_rows(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add rows, as tuples of a number and cells, within a transaction."""
        marks = ", ".join("?" * (1 + len(self.columns)))
        self.database.executemany(f"INSERT OR REPLACE INTO rows VALUES ({marks})", rows)

    def total(self) -> int:
        """How many images there are."""
        return self.database.execute("SELECT COUNT(*) FROM items").fetchone()[0]

    def keep(self, stamps: Mapping[str, str]) -> None:
        """Remember what the list was taken from, within a transaction."""
        self.database.execute("DELETE FROM sources")
        rows = ((os.fsencode(path), stamp) for path, stamp in stamps.items())
        self.database.executemany("INSERT INTO sources VALUES (?, ?)", rows)

    def _check_sources(self) -> None:
        query = f"SELECT EXISTS(SELECT 1 FROM items WHERE {WITHOUT_ROW})"
        if not self.database.execute(query).fetchone()[0]:
            return  # nothing is read any more
        for path, stamp in self.database.execute("SELECT path, stamp FROM sources"):
            if not is_still_at(os.fsdecode(path), stamp):
                raise InputError(
                    f"{printable(os.fsdecode(path))}: was changed after {self.path} listed its images; put "
                    "it back as it was to go on, or give --restart to begin again"
                )

    def done(self) -> int:
        """How many images have a row."""
        return self.database.execute("SELECT COUNT(*) FROM rows").fetchone()[0]

    def pending(self) -> Iterator[tuple[int, Item]]:
        """Number and image, for images without a row; rows may be added meanwhile."""
        last = 0
        while True:
            page = self.database.execute(
                f"SELECT number, {ITEM} FROM items WHERE number > ? AND {WITHOUT_ROW} "
                "ORDER BY number LIMIT ?",
                [last, PAGE],
            ).fetchall()
            if not page:
                return
            yield from map(_numbered, page)
            last = page[-1][0]

    def probes(self) -> list[Item]:
        """By which to tell whether images can be read at all: the last one that was scored, or else a few
        without a row, from all over the list."""
        self.commit()
        scored = "items JOIN rows USING (number) WHERE score IS NOT NULL ORDER BY number DESC"
        found = self.database.execute(f"SELECT number, {ITEM} FROM {scored} LIMIT 1").fetchall()
        (last,) = self.database.execute("SELECT MAX(number) FROM items").fetchone()
        pending = (
            f"SELECT number, {ITEM} FROM items WHERE number >= ? AND {WITHOUT_ROW} ORDER BY number LIMIT 1"
        )
        for tenth in range(0 if found else PROBES):
            found += self.database.execute(pending, [last * (tenth + 1) // PROBES]).fetchall()
        return [item for _, item in map(_numbered, found)]

    def suspect(self, reached: int, alone: int, weight: int, verdict: str) -> None:
        """Remember what the last run was at when its process died.

        Args:
            reached: images up to this number were begun; those without a row are suspects.
            alone: number of the image that was scored by itself then, or 0.
            weight: how much that death counts against it; an image of weight 2 gets an error row.
            verdict: the error of that row.
        """
        with self.database:
            self.database.execute(
                "INSERT OR IGNORE INTO suspects SELECT key, 0 FROM items "
                f"WHERE number <= ? AND {WITHOUT_ROW}",
                [reached],
            )
            self.database.execute(
                "UPDATE suspects SET deaths = deaths + ? "
                "WHERE key = (SELECT key FROM items WHERE number = ?)",
                [weight, alone],
            )
            self.database.execute(
                "INSERT INTO rows(number, error) SELECT number, ? FROM items JOIN suspects USING (key) "
                f"WHERE deaths >= 2 AND {WITHOUT_ROW}",
                [verdict],
            )

    def suspects(self) -> list[tuple[int, Item]]:
        """Number and image, for images without a row that were begun when a process died."""
        found = self.database.execute(
            f"SELECT number, {ITEM} FROM items JOIN suspects USING (key) WHERE {WITHOUT_ROW} ORDER BY number"
        )
        return [_numbered(row) for row in found]

    def add(self, number: int, row: Row) -> None:
        """Take the row of an image."""
        self.added.append((number, *(row[name] for name in self.columns)))
        if time.monotonic() - self.committed > SECONDS_BETWEEN_COMMITS or len(self.added) >= PAGE:
            self.commit()

    def commit(self) -> None:
        """Put the rows on the disk.

        Raises:
            InputError: the journal is no longer there.
        """
        if not self.path.exists():
            raise InputError(
                f"{self.path}: was removed during the run, and its rows with it; leave it where it is "
                "until the output is there, and begin again"
            )
        with self.database:
            self.insert_rows(self.added)
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

    def allow(self, files: Iterable[tuple[str, int, int]]) -> None:
        """Take note that an output with these files may be replaced, within a transaction."""
        self.database.execute("INSERT INTO outputs VALUES (?)", [json.dumps(list(files))])

    def allow_part(self, part: Path) -> None:
        """Take note that this run may replace what it is about to put in the output's place."""
        with self.database:
            self.allow(identity(part))

    def allows(self, files: Iterable[tuple[str, int, int]]) -> bool:
        """Whether all of these files are of one output that may be replaced: it may be deleted in part."""
        there = set(files)
        stored = self.database.execute("SELECT files FROM outputs")
        return any(there <= set(map(tuple, json.loads(allowed))) for (allowed,) in stored)

    def make_part(self) -> Path:
        """Where to write the output: nothing is there any more."""
        self._check_part()
        self._delete_part()
        with self.database:
            self.database.execute("UPDATE job SET part = 1")
        return self.part

    def _check_part(self) -> None:
        (ours,) = self.database.execute("SELECT part FROM job").fetchone()
        if os.path.lexists(self.part) and not ours:
            raise InputError(f"{self.part}: is in the way, and not of this run; move it away")

    def _delete_part(self) -> None:
        (ours,) = self.database.execute("SELECT part FROM job").fetchone()
        if ours and self.part.is_dir():
            shutil.rmtree(self.part)
        elif ours:
            self.part.unlink(missing_ok=True)

    def close(self) -> None:
        self.database.close()

    def remove(self) -> None:
        """Delete the journal: its output is there."""
        self.close()
        _delete(self.path)


def _stored(item: Item) -> tuple[Any, ...]:
    name, container, *rest = item
    return (item.key(), os.fsencode(name), os.fsencode(container), *rest)


def _numbered(row: tuple[Any, ...]) -> tuple[int, Item]:
    number, name, container, *rest = row
    return number, Item(os.fsdecode(name), os.fsdecode(container), *rest)


def _lock(path: Path) -> sqlite3.Connection:
    try:
        new = _is_new(path)
        database = sqlite3.connect(path, timeout=0)
    except (sqlite3.OperationalError, OSError) as error:
        raise cannot_go_on(path, error) from None
    try:
        # The lock of this mode is kept until the end, and the log then needs no shared memory,
        # which network file systems do not have.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        if new:
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
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
        raise damaged(path, error) from None
    return database


def _is_new(path: Path) -> bool:
    """Whether there is no journal yet; what somebody else has put there is left alone."""
    if not os.path.lexists(path):
        return True
    with open(path, "rb") as file:
        header = file.read(100)
    if header and header[_APPLICATION] != APPLICATION_ID.to_bytes(4, "big"):
        raise InputError(f"{path}: is not a journal of this command; move it away, or give another --out")
    return not header


def cannot_go_on(path: Path, error: Exception, again: str = "the same command") -> InputError:
    """The error of a journal, or of the output beside it, that the system does not let us write."""
    return InputError(
        f"{path}: cannot be written ({error}); make room or check the folder's permissions, then {again} "
        "goes on"
    )


def damaged(path: Path, error: Exception) -> Damaged:
    return Damaged(f"{path}: damaged ({error}); give --restart to begin again")


def _other_settings(path: Path, before: dict[str, Any], now: dict[str, Any]) -> InputError:
    return InputError(
        f"{path}: holds rows of other settings ({differing(before, now)}); repeat the command that began "
        "it to go on, or give --restart to begin again"
    )


def _delete(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
