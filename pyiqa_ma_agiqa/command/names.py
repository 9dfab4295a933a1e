r"""File names as text: in tables without loss, on terminals without harm.

A file name is bytes; those that are not UTF-8 have no text. In every output file such a byte is
written as ``\udcXX``, XX being the byte in hexadecimal (Python's "surrogateescape" with
"backslashreplace"). A backslash that would be mistaken for the start of such an escape is written
``\u005c``. Every other name is written as it is; newlines and quotes are left to the file format.
"""

from __future__ import annotations

import re

_TO_ESCAPE = re.compile(r"[\ud800-\udfff]|\\(?=u(?:d[89a-f]|005c))")
_ESCAPED = re.compile(r"\\u(d[89a-f][0-9a-f]{2}|005c)")


def escape(name: str) -> str:
    """A name of `os.fsdecode` as text that UTF-8 can hold; `unescape` gives it back."""
    return _TO_ESCAPE.sub(lambda match: f"\\u{ord(match[0]):04x}", name)


def unescape(text: str) -> str:
    """The name that `escape` wrote."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)


def printable(name: str) -> str:
    """The name on one line, without characters that could steer a terminal."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in escape(name)
    )
