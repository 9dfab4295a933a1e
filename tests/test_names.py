"""File names as text: nothing lost in tables, nothing that steers a terminal."""

from __future__ import annotations

import csv
import io
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyiqa_ma_agiqa.names import defuse, escape, printable, unescape
from pyiqa_ma_agiqa.scoring.rows.output import _cell

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


@given(st.binary() | SPECIAL.map(b"".join), st.sampled_from(["", *"=+-@\t\r\n ＝", " =", "\\u003d", "\\"]))
def test_every_name_survives_where_formulas_are_defused(name, start):
    name = start.encode() + name
    text = defuse(escape(os.fsdecode(name)))
    assert not re.match(r"\s*[=+\-@＝＋－＠]|[\t\r\n]", text)
    assert os.fsencode(unescape(text)) == name


@given(st.lists(st.text(st.sampled_from("=+-@\t\r\n,;\"' ab\\u003d")), min_size=2, max_size=5))
def test_no_cell_of_a_csv_file_is_a_formula(texts):
    """Whatever the spreadsheet takes for a separator; and every cell is read back."""
    line = ",".join(map(_cell, texts)) + "\n"
    (cells,) = csv.reader(io.StringIO(line, newline=""))
    assert cells == [defuse(text) for text in texts]
    for separator in ",;\t":
        outside = re.sub(r'"(?:[^"]|"")*"', "Q", line)
        assert not re.search(rf"(?:^|{separator})\s*[=+\-@]", outside)


def test_numbers_stay_numbers():
    assert [_cell(value) for value in (-0.5, 3, None, -2)] == ["-0.5", "3", "", "-2"]
    assert _cell("-0.5") == r"\u002d0.5"
