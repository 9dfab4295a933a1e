"""What a file for reading has in common, wherever its bytes come from."""

from __future__ import annotations

import io
from typing import Any


class ReadFile(io.RawIOBase):
    """A file with a position, that can be sought in; `seek` and `read` are for its kind to say.

    Attributes:
        position: of the next byte.
    """

    position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer)) or b""
        buffer[: len(content)] = content
        return len(content)
