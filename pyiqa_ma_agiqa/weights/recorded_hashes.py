"""SHA-256 of fetched files, recorded beside them in the form of `sha256sum`, and enforced from then on.

Below the hashes a comment line notes size and times of each file when it was found good, so that a large
model need not be read again at each start: it is, once any of them differs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..errors import WeightsError

SUFFIX = ".sha256"
NOTED = "# size, mtime_ns and ctime_ns when they were checked: "
State = list[int]
"""Size, time of the last change of the content, and of the last change of the file, in nanoseconds."""


class Record(NamedTuple):
    """What is recorded of files, by name: their SHA-256, and their state when that was checked."""

    hashes: dict[str, str]
    states: dict[str, State]


def blocks(path: Path) -> Iterator[bytes]:
    """A file's content, piece by piece.

    Raises:
        WeightsError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                yield block
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        WeightsError: the file cannot be read.
    """
    digest = hashlib.sha256()
    for block in blocks(path):
        digest.update(block)
    return digest.hexdigest()


def record_of(path: Path) -> Path:
    """Where the hashes of a file, or of the files in a folder, are recorded."""
    return path.with_name(path.name + SUFFIX)


def states_of(folder: Path, names: Iterable[str]) -> dict[str, State]:
    """The state of files by name, links followed."""
    found = {name: (folder / name).stat() for name in names}
    return {name: [state.st_size, state.st_mtime_ns, state.st_ctime_ns] for name, state in found.items()}


def write_record(path: Path, hashes: dict[str, str], states: dict[str, State] | None = None) -> None:
    """Record hashes, and states if given, by file name. The record appears whole or not at all.

    Raises:
        OSError: the folder cannot be written to.
    """
    record = record_of(path)
    lines = [f"{digest}  {name}" for name, digest in sorted(hashes.items())]
    lines += [NOTED + json.dumps(states, sort_keys=True)] if states else []
    temporary = record.with_name(f"{record.name}.{os.getpid()}.part")
    try:
        temporary.write_text("\n".join([*lines, ""]), encoding="utf-8")
        temporary.replace(record)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def read_record(path: Path) -> Record:
    """What is recorded of a file or folder; empty where nothing is.

    Raises:
        WeightsError: the hashes are damaged. Damaged states count as none.
    """
    record = record_of(path)
    try:
        lines = record.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return Record({}, {})
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{record}: not readable ({error}); delete it and verify again") from None
    hashes: dict[str, str] = {}
    states: dict[str, State] = {}
    for line in lines:
        if line.startswith("#"):
            with suppress(ValueError):
                found = json.loads(line.removeprefix(NOTED))
                states = found if isinstance(found, dict) else {}
            continue
        digest, gap, name = line.partition("  ")
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef") or not gap or not name:
            raise WeightsError(f"{record}: not a list of SHA-256; delete it and verify again")
        hashes[name] = digest
    return Record(hashes, states)


def changed(path: Path, expected: str, record: Path | None = None) -> WeightsError:
    """The error for a file that is not the one whose hash is known.

    Args:
        path: the file at fault.
        expected: its SHA-256, in hexadecimal.
        record: where that was recorded, if it is neither the manifest nor the hub that says it.
    """
    unless = f"; or delete {record} if its authors have published a new one" if record else ""
    return WeightsError(
        f"{path}: its SHA-256 is not {expected}, which is known to be right; delete the file and fetch it "
        f"again with `pyiqa-ma-agiqa weights fetch`{unless}"
    )


def admitted(file: Path, path: Path, check: Callable[[Path], None], known: str | None) -> str:
    """SHA-256 of a file that is what should lie at `path`.

    Raises:
        WeightsError: it is not.
    """
    digest = sha256(file)
    expected = known or read_record(path).hashes.get(path.name)
    if expected is None:
        check(file)
    elif digest != expected:
        raise changed(file, expected, None if known else record_of(path))
    return digest


def enforce(path: Path, check: Callable[[Path], None], known: str | None) -> None:
    """Refuse a file that is not the one whose SHA-256 is known or was recorded; if none was, record it.

    Args:
        path: the file.
        check: refuses a file of wrong structure; asked where no SHA-256 is known.
        known: the SHA-256, where the manifest has it.

    Raises:
        WeightsError: the file has changed, or its structure is wrong.
    """

    def checked(path: Path) -> None:
        try:
            check(path)
        except WeightsError as error:
            raise WeightsError(f"{error}. Delete that file, and it is fetched anew") from None

    digest = admitted(path, path, checked, known)
    if path.name not in read_record(path).hashes:
        with suppress(OSError):  # a folder that may only be read: checked again the next time
            write_record(path, {path.name: digest})


def held_against(record: Path, folder: Path, name: str, digest: str, hashes: dict[str, str]) -> None:
    """Refuse a file of a folder whose SHA-256 is not the recorded one, where hashes were recorded.

    Args:
        record: path beside which they were.
        folder, name: of the file.
        digest: its SHA-256.
        hashes: what was recorded of the folder's files, or nothing.

    Raises:
        WeightsError: it has changed, or was not there then.
    """
    # In the hub's cache a name is a link, and the file behind it would be linked again.
    file = (folder / name).resolve()
    if hashes and name not in hashes:
        raise WeightsError(
            f"{file}: was not there when the model was checked; remove it, or delete {record_of(record)} if "
            "its authors have published a new one"
        )
    if hashes and hashes[name] != digest:
        raise changed(file, hashes[name], record_of(record))


def verify_folder(folder: Path, names: Iterable[str], record: Path, check: Callable[[Path], None]) -> None:
    """Check files of a folder in full, by their SHA-256; where none is recorded, by their structure.

    Files of the hub's cache that it keeps under their SHA-256 are held against that; all files against
    what was recorded the first time they were found good.

    Args:
        folder: where the files lie.
        names: of the files that are read.
        record: path beside which the hashes are recorded.
        check: refuses a folder of wrong structure.

    Raises:
        WeightsError: names the file at fault.
    """
    names = list(names)
    recorded = read_record(record)
    states = states_of(folder, names)  # before reading: what changes meanwhile is read again
    hashes = {}
    for name in names:
        hashes[name] = sha256(folder / name)
        blob = (folder / name).resolve()
        if (folder / name).is_symlink() and len(blob.name) == 64 and blob.name != hashes[name]:
            raise changed(blob, blob.name)
        held_against(record, folder, name, hashes[name], recorded.hashes)
    if not recorded.hashes:
        check(folder)
    if recorded != (hashes, states):
        with suppress(OSError):  # a folder that may only be read: checked again the next time
            record_of(record).parent.mkdir(parents=True, exist_ok=True)
            write_record(record, hashes, states)


def unchanged(folder: Path, names: Iterable[str], record: Path) -> bool:
    """Whether files of a folder were found good, and look as they did then.

    Raises:
        WeightsError: the record is damaged.
    """
    names = list(names)
    recorded = read_record(record)
    return set(names) <= recorded.hashes.keys() and all(
        recorded.states.get(name) == state for name, state in states_of(folder, names).items()
    )
