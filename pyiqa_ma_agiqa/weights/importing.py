"""Weights brought by hand: copied into their place, checked, and never in the way of what was there.

A file is replaced in one step. A folder cannot be: the old one is renamed aside, the new one renamed in,
and the old one deleted. Whoever next asks for a folder that a kill left aside puts it back.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from ..errors import WeightsError
from .downloads import locked, put_in_place, unwritable
from .recorded_hashes import admitted, blocks, held_against, read_record, sha256, states_of, write_record

INCOMING, ASIDE = ".imported", ".replaced"
"""Ends of the names of what is not yet in its place, and of a folder that no longer is."""


def import_file(source: Path, path: Path, check: Callable[[Path], None], known: str | None) -> None:
    """Copy a file that was brought by hand into its place, checked as a fetched one.

    Args:
        source: the file.
        path: where it goes.
        check, known: as for `recorded_hashes.enforce`.

    Raises:
        WeightsError: it is not the file it should be, or there is no room.
    """
    with locked(path):
        digest = admitted(source, path, check, known)
        incoming = path.with_name(path.name + INCOMING)
        try:
            if _copied(source, incoming) != digest or sha256(incoming) != digest:
                raise _differs(incoming, source)
            put_in_place(incoming, path, digest)
        except OSError as error:
            raise unwritable(path, error) from None
        finally:
            with suppress(OSError):
                incoming.unlink()


def import_folder(source: Path, names: Iterable[str], path: Path, check: Callable[[Path], None]) -> None:
    """Copy files of a folder into its place, checked; whatever was there stays until the copy is whole.

    Args:
        source: the folder.
        names: of the files that are read.
        path: where the folder goes; a link is followed.
        check: refuses a folder of wrong structure; asked where no SHA-256 was recorded.

    Raises:
        WeightsError: it is not the folder it should be, or there is no room.
    """
    with locked(path):
        recorded = read_record(path).hashes
        if not recorded:
            check(source)
        _put_back(path)
        incoming = _beside(path, INCOMING)
        try:
            shutil.rmtree(incoming, ignore_errors=True)
            incoming.mkdir()
            hashes = {}
            for name in names:
                hashes[name] = _copied(source / name, incoming / name)
                held_against(path, source, name, hashes[name], recorded)
                if sha256(incoming / name) != hashes[name]:
                    raise _differs(incoming / name, source / name)
            states = states_of(incoming, hashes)
            _exchange(incoming, path)
            # After the new one is in place: a record of other files would condemn the old one.
            with suppress(OSError):  # no room: checked again the next time
                write_record(path, hashes, states)
        except OSError as error:
            raise unwritable(path, error) from None
        finally:
            shutil.rmtree(incoming, ignore_errors=True)


def imported_folder(path: Path) -> Path | None:
    """A folder that was imported, put back if a kill left it aside; None where there is none.

    Raises:
        WeightsError: it is aside, and cannot be put back.
    """
    if _beside(path, ASIDE).exists():
        try:
            with locked(path):  # or another process is at it just now
                _put_back(path)
        except WeightsError:
            if not path.is_dir():
                raise
    return path if path.is_dir() else None


def _beside(path: Path, ending: str) -> Path:
    """A name on the same disk; where the path is a link, beside what it points to."""
    place = path.resolve()
    return place.with_name(place.name + ending)


def _exchange(incoming: Path, path: Path) -> None:
    place, aside = path.resolve(), _beside(path, ASIDE)
    if place.exists():
        place.rename(aside)
    try:
        incoming.rename(place)
    finally:
        _put_back(path)


def _put_back(path: Path) -> None:
    """Undo an exchange that was broken off; after one that was done, delete what it left aside."""
    aside, incoming = _beside(path, ASIDE), _beside(path, INCOMING)
    if not aside.exists():
        return
    try:
        if path.exists():
            # Under the name of what nobody puts back: a kill may leave half of it.
            shutil.rmtree(incoming, ignore_errors=True)
            aside.rename(incoming)
            shutil.rmtree(incoming, ignore_errors=True)
        else:
            aside.rename(path.resolve())
    except OSError as error:
        raise unwritable(aside, error) from None


def _copied(source: Path, target: Path) -> str:
    """Copy a file's content; its SHA-256 as it was read.

    Raises:
        WeightsError: the source cannot be read.
        OSError: the target cannot be written.
    """
    digest = hashlib.sha256()
    with open(target, "wb") as writing:
        for block in blocks(source):
            digest.update(block)
            writing.write(block)
    return digest.hexdigest()


def _differs(copy: Path, source: Path) -> WeightsError:
    return WeightsError(f"{copy}: the copy differs from {source}; check the disk, import again")
