"""What a command prints never ends it: any encoding will do, and so will a reader that has gone.

`pyiqa-ma-agiqa explain ... | head -1` closes the pipe long before the work is done. The work goes on,
with its files and its exit status; what is printed from then on is dropped. Work that goes nowhere but
to the stream can look whether that is `lost`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class Printer:
    """A text stream without errors of writing; otherwise it is the stream that it is given.

    Attributes:
        lost: whether what is printed is dropped.
        problem: why the stream could not be written, unless its reader went away.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.lost = False
        self.problem = ""
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError as error:
            self._drop(error)
        return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError as error:
            self._drop(error)

    def as_a_file(self) -> None:
        """From here on, write what a file of text has, UTF-8 and plain line ends, whatever the locale."""
        if hasattr(self.stream, "reconfigure"):
            self.stream.reconfigure(encoding="utf-8", newline="\n")

    def _drop(self, error: OSError) -> None:
        self.lost = True
        if not isinstance(error, BrokenPipeError):
            self.problem = error.strerror or str(error)
        # What the stream still holds goes there, too, so that its end is no error either.
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def safe_streams() -> Iterator[Printer]:
    """Standard output and standard error as `Printer`s; gives the former."""
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere:  # a closed stream is None
        out, err = (Printer(stream or nowhere) for stream in before)
        sys.stdout, sys.stderr = out, err  # type: ignore[assignment]
        try:
            yield out
        finally:
            out.flush()
            err.flush()
            sys.stdout, sys.stderr = before
