r"""File names as text: in tables without loss, on terminals without harm.

A file name is bytes; those that are not UTF-8 have no text. In every output file such a byte is
written as ``\udcXX``, XX being the byte in hexadecimal (Python's "surrogateescape" with
"backslashreplace"). A backslash that would be mistaken for the start of such an escape is written
``\u005c``. Every other name is written as it is; newlines and quotes are left to the file format.

In a CSV file, text that a spreadsheet would run as a formula has the character that makes it one written
the same way: ``\u003d`` for ``=``.
"""

from __future__ import annotations

import re

FORMULA = "=+-@\t\r\n＝＋－＠"
"""How text begins that a spreadsheet runs, or that it does once it has dropped a tab or a line's end."""
_CODES = "|".join(["dc[89a-f][0-9a-f]", *(f"{ord(letter):04x}" for letter in "\\" + FORMULA)])
_TO_ESCAPE = re.compile(rf"[\ud800-\udfff]|\\(?=u(?:{_CODES}))")
_ESCAPED = re.compile(rf"\\u({_CODES})")
_RUNS = re.compile(rf"\A(\s*?)([{re.escape(FORMULA)}])")


def escape(name: str) -> str:
    """A name of `os.fsdecode` as text that UTF-8 can hold; `unescape` gives it back."""
    return _TO_ESCAPE.sub(lambda match: _code(match[0]), name)


def _code(letter: str) -> str:
    return f"\\u{ord(letter):04x}"


def defuse(text: str) -> str:
    """Text of `escape` such that no spreadsheet runs it; `unescape` gives the name back as well."""
    return _RUNS.sub(lambda match: match[1] + _code(match[2]), text)


def unescape(text: str) -> str:
    """The name that `escape`, or `escape` and `defuse`, wrote."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)


def printable(name: str) -> str:
    """The name on one line, without characters that could steer a terminal."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in escape(name)
    )
