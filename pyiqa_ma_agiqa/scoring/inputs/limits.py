"""How large an image may be that nobody vouches for."""

from __future__ import annotations

from typing import NamedTuple

MAX_PIXELS = 40_000_000
"""8K video frames have 33 million."""
MAX_BYTES = 100 * 2**20


class Limits(NamedTuple):
    """What an image may have at most: pixels, as its header says, and bytes of its file."""

    max_pixels: int = MAX_PIXELS
    max_bytes: int = MAX_BYTES
