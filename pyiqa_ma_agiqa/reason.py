"""What an error says, in few words."""

from __future__ import annotations

from .names import printable


def reason(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    return printable((str(error).strip() or type(error).__name__).splitlines()[0])
