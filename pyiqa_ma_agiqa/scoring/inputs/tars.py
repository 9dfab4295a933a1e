"""Members of tars as `tar -x` would leave them: the last of a name counts, links lead to their targets.

A hard link has the bytes that its target had by then; a symbolic link has those that its target has in
the end, and never leads out of the tar. A tar is read once, header by header, into a temporary database
that SQLite keeps on the disk: memory stays the same for millions of members, and the temporary folder
takes some 200 bytes for each. Who wants the members at once gets them as the headers are read.
"""

from __future__ import annotations

import os
import posixpath
import sqlite3
import tarfile
from collections.abc import Generator, Iterator
from typing import Any, BinaryIO, NamedTuple

from ...errors import InputError
from ...names import printable
from ...places import absolute
from .items import MEMBER, Item
from .stamps import changes, is_still, open_regular, stamp
from .streams import check_codec, codec, plain_bytes

BLOCK = 512
"""Bytes of a block of a tar."""
LINKS = 40
"""Links that lead to links are followed so often, as Linux does."""
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
"""First bytes of gzip, bzip2, xz and zstd."""
MEMBERS = """CREATE TABLE members(
    number INTEGER PRIMARY KEY, tar, name, given, start, size, link, problem, UNIQUE(tar, name))"""
TAKE = """INSERT INTO members VALUES (NULL, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(tar, name)
    DO UPDATE SET start = excluded.start, size = excluded.size, link = excluded.link,
    problem = excluded.problem"""
COLUMNS = "start, size, link, problem"
DAMAGED = "the tar is damaged; images after this point are missing; fetch it again"


class _Tar(NamedTuple):
    """What is known of a tar beside its members: their range, and whether that is all of them."""

    number: int
    stamp: str
    first: int
    last: int
    damaged: bool


class Tars:
    """The tars of a list of inputs; each is read once.

    Args:
        stamps: takes the stamp of every tar by its absolute path.
    """

    def __init__(self, stamps: dict[str, str]) -> None:
        self.stamps = stamps
        self.tars: dict[str, _Tar] = {}
        self.scans = 0
        self.database = sqlite3.connect("")
        self.database.execute(MEMBERS)

    def items(self, path: str) -> Iterator[Item]:
        """All members that are no folders, in the order in which their names come first.

        Raises:
            InputError: missing, unreadable, compressed, or being written.
        """
        tar = self._read(path)
        found = self.database.execute(
            f"SELECT name, given, {COLUMNS} FROM members WHERE number BETWEEN ? AND ? ORDER BY number",
            [tar.first, tar.last],
        )
        for name, given, *rest in found:
            yield self._item(path, tar, name, given, rest)
        if tar.damaged:
            yield Item(path, problem=DAMAGED)

    def find(self, path: str, member: str) -> Item:
        """One member.

        Raises:
            InputError: as `items`.
        """
        tar = self._read(path)
        name = _normal(os.fsencode(member))
        found = self.database.execute(
            f"SELECT given, {COLUMNS} FROM members WHERE tar = ? AND name = ?", [tar.number, name]
        ).fetchone()
        if not found:
            problem = DAMAGED if tar.damaged else "the tar has no such member; check the name"
            return Item(f"{path}{MEMBER}{member}", path, problem=problem)
        return self._item(path, tar, name, found[0], found[1:])

    def _item(self, path: str, tar: _Tar, name: bytes, given: bytes, rest: Any) -> Item:
        start, size, _, problem = self._follow(tar, name, rest)
        return Item(f"{path}{MEMBER}{os.fsdecode(given)}", path, start, size, "", problem, tar.stamp)

    def _follow(self, tar: _Tar, name: bytes, rest: Any) -> Any:
        for _ in range(LINKS):
            link = rest[2]
            if link is None:
                return rest
            name = posixpath.normpath(posixpath.join(posixpath.dirname(name), link))
            leads = f"is a link to {printable(os.fsdecode(link))}, which "
            if name.startswith((b"/", b"../")) or name == b"..":
                return _problem(leads + "leads out of the tar; put the image itself into the tar")
            rest = self.database.execute(
                f"SELECT {COLUMNS} FROM members WHERE tar = ? AND name = ?", [tar.number, name]
            ).fetchone()
            if not rest:
                return _problem(leads + "is no file of the tar; put the image itself into the tar")
        return _problem("is a link that leads in a circle; put the image itself into the tar")

    def scan(self, path: str) -> Iterator[tuple[Item, BinaryIO]]:
        """Read a tar from front to back; all its members are known then.

        Yields:
            A member that is a file, as it comes, and the bytes of the tar, to seek those of the member in.

        Raises:
            InputError: compressed as it should not be, being written, or changed by the end of it.
            OSError: missing or unreadable.
        """
        check_codec(path)
        with open_regular(path) as file:
            self.stamps[absolute(path)] = before = stamp(file)
            tar = yield from self._scan(file, path, before)
            if not is_still(file, before):
                raise changes(file)
        self.tars[absolute(path)] = tar

    def _read(self, path: str) -> _Tar:
        if absolute(path) not in self.tars:
            try:
                for _ in self.scan(path):
                    pass
            except OSError as error:
                raise InputError(f"{path}: {error.strerror or error}; check the path") from None
            except sqlite3.Error as error:
                raise InputError(f"{path}: no room for its members ({error}); set TMPDIR") from None
        return self.tars[absolute(path)]

    def _scan(self, packed: BinaryIO, path: str, before: str) -> Generator[tuple[Item, BinaryIO], None, _Tar]:
        if packed.read(6).startswith(COMPRESSED) and not codec(path):
            raise InputError(
                f"{path}: is a compressed tar; unpack it to a .tar, or call it .tar.gz or .tar.zst"
            )
        packed.seek(0)
        file = plain_bytes(packed, path)
        self.scans += 1
        number, first = self.scans, self._last() + 1
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # else they add up
                    if not member.isdir():
                        self._take(number, member)
                    if member.isreg() and not member.issparse():
                        start, size = member.offset_data, member.size
                        yield Item(f"{path}{MEMBER}{member.name}", path, start, size, "", "", before), file
                # tarfile takes a damaged header for the end.
                file.seek(tar.offset)
                damaged = bool(file.read(BLOCK).strip(b"\0"))
        except (tarfile.TarError, EOFError, ValueError, OverflowError):
            damaged = True
        return _Tar(number, before, first, self._last(), damaged)

    def _last(self) -> int:
        return self.database.execute("SELECT COALESCE(MAX(number), 0) FROM members").fetchone()[0]

    def _take(self, tar: int, member: tarfile.TarInfo) -> None:
        given = os.fsencode(member.name)
        content = self._content(tar, member)
        self.database.execute(TAKE, [tar, _normal(given), given, *content])

    def _content(self, tar: int, member: tarfile.TarInfo) -> Any:
        if member.islnk():
            found = self.database.execute(
                f"SELECT {COLUMNS} FROM members WHERE tar = ? AND name = ?",
                [tar, _normal(os.fsencode(member.linkname))],
            ).fetchone()
            leads = f"is a hard link to {printable(member.linkname)}, which does not come before it"
            return found or _problem(f"{leads} in the tar; make the tar again")
        if member.issym():
            return (0, 0, os.fsencode(member.linkname), "")
        if member.issparse():
            return _problem("is stored as a sparse file; make the tar without --sparse")
        if member.isreg():
            return (member.offset_data, member.size, None, "")
        return _problem("is not a regular file; make the tar without it")


def _problem(reason: str) -> tuple[int, int, None, str]:
    return 0, 0, None, reason


def _normal(name: bytes) -> bytes:
    """The name as the place at which `tar -x` would put the member."""
    return posixpath.normpath(name.lstrip(b"/"))
