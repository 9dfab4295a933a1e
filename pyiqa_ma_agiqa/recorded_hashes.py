"""SHA-256 of fetched files, recorded beside them in the form of `sha256sum`, and enforced from then on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from .errors import WeightsError

SUFFIX = ".sha256"


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        WeightsError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    return digest.hexdigest()


def record_of(path: Path) -> Path:
    """Where the hashes of a file, or of the files in a folder, are recorded."""
    return path.with_name(path.name + SUFFIX)


def write_record(path: Path, hashes: dict[str, str]) -> None:
    """Record hashes by file name. The record appears whole or not at all.

    Raises:
        OSError: the folder cannot be written to.
    """
    record = record_of(path)
    temporary = record.with_name(f"{record.name}.{os.getpid()}.part")
    temporary.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items())))
    temporary.replace(record)


def read_record(path: Path) -> dict[str, str]:
    """Recorded hashes by file name; empty where nothing is recorded.

    Raises:
        WeightsError: the record is damaged.
    """
    record = record_of(path)
    try:
        lines = record.read_text().splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{record}: not readable ({error}); delete it and verify again") from None
    hashes = {}
    for line in lines:
        digest, gap, name = line.partition("  ")
        if len(digest) != 64 or not gap or not name:
            raise WeightsError(f"{record}: not a list of SHA-256; delete it and verify again")
        hashes[name] = digest
    return hashes


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
