"""An image that kills the process, as a fault in a codec can, is found in two more runs and then left out.

While images are scored, a small file beside the journal says how far the run has got, and Python's
faulthandler adds to it when the process dies of a fault of its own. A run that ends in any other way,
also by an error or by Ctrl-C, deletes it. The next run scores by itself each image that was begun and
has no row, so that a second death has one image to blame. kill -9 and a lost machine are deaths too;
as those are seldom an image's fault, they count half.
"""

from __future__ import annotations

import faulthandler
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ...errors import InputError
from ..inputs.items import Item
from .journal import Journal

VERDICT = (
    "the process died each time while this image was scored; make or fetch the file again, or convert "
    "it, then give --retry-errors"
)
_HEAD = "pyiqa-ma-agiqa score: begun {:019}, alone {:019}\n"
_OURS = b"pyiqa-ma-agiqa score: "
_WHOLE = re.compile(rb".*begun (\d{19}), alone (\d{19})\n")


class Death(NamedTuple):
    """What a run was at when its process died.

    Attributes:
        reached: images up to this number were begun.
        alone: number of the image that was scored by itself, or 0.
        fault: whether the process died of a fault of its own.
    """

    reached: int
    alone: int
    fault: bool


class CrashNote:
    """The note that a run leaves when its process dies.

    Args:
        path: of the note.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def take(self) -> Death | None:
        """What the last run left, if its process died; the note is gone then.

        Raises:
            InputError: the file is not such a note.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        if content.strip(b"\0") and not content.startswith(_OURS):  # power loss can leave zeros
            raise InputError(f"{self.path}: is in the way, and not of this run; move it away")
        self.path.unlink()
        head = _WHOLE.match(content)
        reached, alone = map(int, head.groups()) if head else (0, 0)
        return Death(reached, alone, b"Fatal Python error" in content or b"Windows fatal" in content)

    def hand_over(self, journal: Journal) -> bool:
        """Let the journal know what the last run was at, if its process died; returns whether it did."""
        death = self.take()
        if death:
            journal.suspect(death.reached, death.alone, 2 if death.fault else 1, VERDICT)
        return death is not None

    def __enter__(self) -> CrashNote:
        self.head = open(self.path, "wb", buffering=0)
        self._write(0, 0)
        self.dump = open(self.path, "ab")
        self.other = faulthandler.is_enabled()
        faulthandler.enable(self.dump)
        return self

    def __exit__(self, *error: object) -> None:
        faulthandler.disable()
        if self.other and sys.__stderr__:
            faulthandler.enable(sys.__stderr__)
        self.dump.close()
        self.head.close()
        self.path.unlink(missing_ok=True)

    def beginning(self, items: Iterator[tuple[int, Item]]) -> Iterator[tuple[int, Item]]:
        """Pass images on, taking note of each."""
        for number, item in items:
            self._write(number, 0)
            yield number, item

    def alone(self, number: int) -> None:
        """Take note that one image is now scored by itself."""
        self._write(0, number)

    def _write(self, reached: int, alone: int) -> None:
        self.head.seek(0)
        self.head.write(_HEAD.format(reached, alone).encode())
