"""File names as text: nothing lost in tables, nothing that steers a terminal."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyiqa_ma_agiqa.command.names import escape, printable, unescape

SPECIAL = st.lists(st.sampled_from([b"\\", b"u", b"dc", b"8", b"0", b"005c", b"\xff", "é".encode(), b"\n"]))


@given(st.binary() | SPECIAL.map(b"".join))
def test_every_name_survives(name):
    text = escape(os.fsdecode(name))
    text.encode("utf-8")
    assert os.fsencode(unescape(text)) == name


@given(st.text())
def test_printable_names_stay_on_one_line(name):
    assert printable(name).isprintable()


@pytest.mark.parametrize(
    "name", ["a.png", "dir\\a.png", 'say "hi".png', "two\nlines.png", "größe.png", "\\n"]
)
def test_names_that_are_text_stay_as_they_are(name):
    assert escape(name) == name


def test_a_byte_that_is_not_text_is_escaped():
    assert escape(os.fsdecode(b"caf\xe9.png")) == r"caf\udce9.png"
    assert printable("\x1b[31mred\n") == r"\x1b[31mred\n"
