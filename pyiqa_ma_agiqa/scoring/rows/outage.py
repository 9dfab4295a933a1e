"""A disk or a network share that goes away in mid-run ends the run: its images are not at fault."""

from __future__ import annotations

from ...errors import InputError
from ...names import printable
from ..columns import Row
from ..inputs.items import READ_FAILED, Item
from ..inputs.stamps import open_regular
from .journal import Journal

IN_A_ROW = 100
"""After so many images in a row that could not be read, it is checked whether any can be."""


class Outage:
    """Watches the rows of a run.

    Images that can never be read, such as those of a list whose folder is gone, do not end a run: an
    image that was scored before can then still be read.

    Args:
        journal: of the run.
        again: what goes on with the run, for the error.
    """

    def __init__(self, journal: Journal, again: str) -> None:
        self.journal = journal
        self.again = again
        self.unread = 0

    def see(self, row: Row) -> None:
        """Take notice of the next row.

        Raises:
            InputError: nothing can be read any more.
        """
        self.unread = self.unread + 1 if row["error"].startswith(READ_FAILED) else 0
        if self.unread < IN_A_ROW:
            return
        self.unread = 0
        probes = self.journal.probes()
        if not any(map(_readable, probes)):
            raise InputError(
                f"{printable(probes[0].name) if probes else 'images'}: cannot be read, like "
                f"{IN_A_ROW} images in a row ({row['error']}); see to the disk or the network, then "
                f"{self.again} goes on"
            )


def _readable(item: Item) -> bool:
    try:
        with open_regular(item.container or item.name) as file:
            return bool(file.read(1))
    except (OSError, ValueError):  # of which an `InputError` is one
        return False
