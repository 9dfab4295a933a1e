"""Compressed tars, and what they hold, as files that are read from front to back."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

from ...errors import InputError
from ...places import is_url, without_secrets
from .read_file import ReadFile

CODECS = {".tar.gz": "gzip", ".tgz": "gzip", ".tar.zst": "zstd", ".tzst": "zstd"}
"""By suffix, as pyarrow calls them."""
OTHERS = (".tar.bz2", ".tar.xz", ".tbz2", ".txz")
STEP = 2**20
"""Bytes that are skipped at once."""
MEMORY = 2**10
"""Bytes that can be gone back: `tarfile` looks at the one before a header, and `Tars` at the last header."""


def codec(path: str) -> str:
    """What a tar is compressed with, by its name; empty where it is not."""
    name = _name(path)
    return next((codec for suffix, codec in CODECS.items() if name.endswith(suffix)), "")


def is_tar(path: str) -> bool:
    return _name(path).endswith((".tar", *CODECS))


def check_codec(path: str) -> None:
    """Check that a tar is not compressed with what is not read here.

    Raises:
        InputError: it is.
    """
    if _name(path).endswith(OTHERS):
        raise InputError(f"{path}: is compressed with bzip2 or xz; make it a .tar, .tar.gz or .tar.zst")


def _name(path: str) -> str:
    return (without_secrets(path) if is_url(path) else path).lower()


def plain_bytes(file: BinaryIO, path: str) -> BinaryIO:
    """The bytes of a tar, of a compressed one without the compression.

    Args:
        file: the tar, at its beginning.
        path: whose suffix says how it is compressed.
    """
    return Forward(file, codec(path)) if codec(path) else file  # type: ignore[return-value]


class _Lent:
    """A file that pyarrow may read, and does not close when it is done with it."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self.read = file.read

    def close(self) -> None:
        pass


class Forward(ReadFile):
    """What a compressed file holds, as a file that can be skipped forward, and a little back.

    Damage is an end too early, as it is of a file that is not compressed.
    """

    def __init__(self, file: BinaryIO, codec: str) -> None:
        import pyarrow

        self.name = getattr(file, "name", "")
        self.stream: Any = pyarrow.CompressedInputStream(pyarrow.PythonFile(_Lent(file), mode="r"), codec)
        self.end = 0
        self.last = b""
        self.damaged = False

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Raises: OSError: too far back."""
        if whence != io.SEEK_SET or offset < self.end - len(self.last):
            raise OSError("a compressed file is read from front to back")
        while offset > self.end and self._read(min(offset - self.end, STEP)):
            pass
        self.position = min(offset, self.end)
        return self.position

    def read(self, size: int | None = -1) -> bytes:
        held = self.last[len(self.last) - (self.end - self.position) :] if self.position < self.end else b""
        if size is None or size < 0:
            raise OSError("a compressed file is read in pieces")
        parts = [held[:size]]
        missing = size - len(parts[0])
        while missing > 0 and (part := self._read(min(missing, STEP))):
            parts.append(part)
            missing -= len(part)
        self.position += size - missing
        return b"".join(parts)

    def _read(self, size: int) -> bytes:
        import pyarrow

        try:
            content = b"" if self.damaged else self.stream.read(size)
        except (pyarrow.ArrowException, OSError) as error:
            if getattr(error, "errno", None):  # the system's, not of the codec
                raise
            self.damaged, content = True, b""
        self.end += len(content)
        self.last = (self.last + content)[-MEMORY:] if content else self.last
        return content
