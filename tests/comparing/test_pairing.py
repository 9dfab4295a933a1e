"""Which images of two sides belong together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyiqa_ma_agiqa.comparing.pairing import match_names
from pyiqa_ma_agiqa.names import escape


@pytest.mark.parametrize(
    ("a", "b", "pairs"),
    [
        (["old/1.png", "old/2.png"], ["new/2.png", "new/1.png"], [[0, 1], [1, 0]]),
        (["/x/old/k/1.png", "/x/old/l/1.png"], ["new/l/1.png", "new/k/1.png"], [[0, 1], [1, 0]]),
        # Below the shared folders the names are 1 and 2, and x/1 and y/2.
        (["old/x/1.png", "old/x/2.png"], ["new/x/1.png", "new/y/2.png"], [[0, 0], [1, 1]]),
        # The same name twice on one side.
        (["old/x/1.png", "old/y/1.png", "old/z/2.png"], ["1.png", "2.png"], [[2, 1]]),
        # One accident among three.
        (["a.png", "b.png", "grid.png"], ["c.png", "d.png", "grid.png"], []),
        (["a.png"], ["b.png"], []),
        (["a.png"], ["other/a.png"], [[0, 0]]),
        # Folders that begin alike.
        (["x/old-1/a.png", "x/old-2/a.png"], ["old-2/a.png", "old-1/a.png"], [[0, 1], [1, 0]]),
        (["./a.png", "b//c.png"], ["new/b/c.png", "new/a.png"], [[0, 1], [1, 0]]),
    ],
)
def test_names_that_match(a, b, pairs):
    assert match_names(a, b).pairs.tolist() == pairs


@pytest.mark.parametrize(
    ("a", "b", "pairs", "by"),
    [
        (["o/1.png", "o/2.PNG"], ["n/2.jpg", "n/1.webp"], [[0, 1], [1, 0]], "path without suffix"),
        (["o/k/1.png", "o/l/1.png"], ["l/1.jpg", "k/1.jpg"], [[0, 1], [1, 0]], "path without suffix"),
        (["o/k/1.png", "o/k/2.png"], ["k/1.jpg", "l/2.jpg"], [[0, 0], [1, 1]], "file name without suffix"),
        # With their suffixes as many match: those count.
        (["1.png", "1.jpg", "2.png"], ["1.png", "1.jpg", "2.jpg"], [[0, 0], [1, 1]], "path"),
        # Two images of one stem match nothing.
        (["1.png", "1.webp", "2.png", "3.png"], ["1.jpg", "2.jpg", "3.jpg"], [[2, 1], [3, 2]], None),
        # What comes after a point is not always a suffix.
        (["cfg_1.5", "cfg_1.6"], ["cfg_1.4", "cfg_1.5"], [[0, 1]], "path"),
        (["cfg_1.5", "x"], ["cfg_1.4", "y"], [], "path"),
        ([".png", "a"], ["b", ".png"], [[0, 1]], "path"),
    ],
)
def test_the_suffix_does_not_matter_where_it_hinders(a, b, pairs, by):
    found = match_names(a, b)
    assert found.pairs.tolist() == pairs
    assert by in (found.by, None)


@pytest.mark.parametrize(
    ("a", "b", "pairs", "by"),
    [
        (
            ["old.tar!/1.png", "old.tar!/2.png"],
            ["s/new.tar!/2.png", "s/new.tar!/1.png"],
            [[0, 1], [1, 0]],
            "path",
        ),
        # Cut into other shards, with folders in them.
        (
            ["o/00.TAR!/k/1.png", "o/00.TAR!/l/1.png", "o/01.TAR!/k/2.png"],
            ["n/a.tar!/k/1.png", "n/b.tar!/./l/1.png", "n/b.tar!/k/2.png"],
            [[0, 0], [1, 1], [2, 2]],
            "path in the tar",
        ),
        # A folder against tars.
        (
            ["old/k/1.png", "old/l/1.png"],
            ["n/a.tar!/k/1.jpg", "n/b.tar!/l/1.jpg"],
            [[0, 0], [1, 1]],
            "path in the tar without suffix",
        ),
        (["old!/k/1.png", "old!/l/1.png"], ["new/k/1.png", "new/l/1.png"], [[0, 0], [1, 1]], "path"),
        (["a\n.tar!/1.png", "b\n.tar!/2.png"], ["1.png", "2.png"], [[0, 0], [1, 1]], "path in the tar"),
    ],
)
def test_members_of_tars(a, b, pairs, by):
    found = match_names(a, b)
    assert (found.pairs.tolist(), found.by) == (pairs, by)


@pytest.mark.parametrize(
    "a",
    [
        ["C:\\out\\old\\k\\1.png", "C:\\out\\old\\l\\1.png"],
        ["old\\k\\1.png", "old\\l\\1.png"],
        ["\\\\server\\old\\k\\1.png", "\\\\server\\old\\l\\1.png"],
        ["old\\a.tar!/k/1.png", "old\\a.tar!/l/1.png"],
        ["D:/old/k\\1.png", "D:/old/l\\1.png"],
    ],
)
def test_paths_of_windows(a):
    assert match_names(a, ["new/l/1.png", "new/k/1.png"]).pairs.tolist() == [[0, 1], [1, 0]]


def test_bytes_that_are_not_utf_8_are_no_folders():
    names = [b"caf\xe9.png".decode(errors="surrogateescape"), b"th\xe9.png".decode(errors="surrogateescape")]
    a = [escape(f"old/{name}") for name in names]
    b = [escape(f"new/{folder}/{name}") for folder, name in zip("kl", names, strict=True)]
    found = match_names(a, b[::-1])
    assert (found.pairs.tolist(), found.by) == ([[0, 1], [1, 0]], "file name")


@given(st.permutations([f"{folder}/{number}.png" for folder in "ab" for number in range(4)]))
def test_the_order_of_names_does_not_matter(names):
    ordered = sorted(names)
    for row, other in match_names([f"old/{name}" for name in ordered], names).pairs:
        assert ordered[row] == names[other]
    assert match_names(ordered, names).matched == len(names)


def test_what_is_in_no_pair():
    a = ["o/1.png", "o/2.png", "o/only.png", "o/k/twice.png", "o/l/twice.png", "o/one.png", "4.png", "5.png"]
    b = ["1.png", "2.png", "b.png", "twice.png", "k/one.png", "l/one.png", "c.png", "4.png", "5.png"]
    found = match_names(a, b)
    assert found.by == "file name"
    assert found.pairs.tolist() == [[0, 0], [1, 1], [6, 7], [7, 8]]
    assert [rows.tolist() for rows in found.without_partner] == [[2], [2, 6]]
    assert [rows.tolist() for rows in found.ambiguous] == [[3, 4, 5], [3, 4, 5]]


def test_of_separate_sets_nothing_is_left_out():
    found = match_names(["a.png", "b.png", "grid.png"], ["c.png", "d.png", "grid.png"])
    assert found.matched == 1
    assert not any(len(rows) for rows in (*found.without_partner, *found.ambiguous))
