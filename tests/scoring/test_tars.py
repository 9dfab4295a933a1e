"""Tars as `tar -x` reads them: repeated names, links, long names, sparse files, and any bytes at all."""

from __future__ import annotations

import io
import os
import posixpath
import subprocess
import tarfile
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pyiqa_ma_agiqa.errors import InputError
from pyiqa_ma_agiqa.scoring.inputs import tars
from pyiqa_ma_agiqa.scoring.inputs.items import read_item
from pyiqa_ma_agiqa.scoring.inputs.listing import list_items

MAX_BYTES = 10_000
FILE, HARD, SOFT = tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE


def make_tar(path, members, form=tarfile.PAX_FORMAT):
    """Members: type, name, and what it holds or links to."""
    with tarfile.open(path, "w", format=form) as tar:
        for kind, name, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == FILE:
                info.size = len(content)
            elif content:
                info.linkname = content
            tar.addfile(info, io.BytesIO(content) if kind == FILE else None)


def contents(path):
    """Content, or the error, by the name of the member."""
    found = {}
    for item in list_items([str(path)]):
        name = item.name.removeprefix(f"{path}!/")
        assert name not in found
        try:
            found[name] = read_item(item, MAX_BYTES)
        except InputError as error:
            found[name] = str(error)
    return found


@pytest.fixture
def tar(tmp_path):
    return tmp_path / "x.tar"


def test_the_last_of_a_name_counts_at_the_place_of_the_first(tar):
    make_tar(tar, [(FILE, "a.png", b"old"), (FILE, "b.png", b"b"), (FILE, "./a.png", b"the new one")])
    assert list(contents(tar).items()) == [("a.png", b"the new one"), ("b.png", b"b")]


def test_links(tar):
    members = [
        (FILE, "dir/a.png", b"first"),
        (HARD, "hard.png", "dir/a.png"),
        (SOFT, "dir/soft.png", "a.png"),
        (SOFT, "up.png", "dir/../dir/soft.png"),
        (HARD, "early.png", "later.png"),
        (SOFT, "forward.png", "later.png"),
        (FILE, "later.png", b"later"),
        (FILE, "dir/a.png", b"second"),
        (FILE, "data", b"no suffix"),
        (HARD, "data.png", "./data"),
        (SOFT, "notes.txt", "/etc/passwd"),
        (HARD, "hard.png", "hard.png"),
    ]
    make_tar(tar, members)
    found = contents(tar)
    assert found.pop("early.png").startswith("is a hard link to later.png, which does not come before it")
    assert found == {
        "dir/a.png": b"second",
        "hard.png": b"first",
        "dir/soft.png": b"second",
        "up.png": b"second",
        "forward.png": b"later",
        "later.png": b"later",
        "data.png": b"no suffix",
    }


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("/etc/hostname", "link to /etc/hostname, which leads out of the tar"),
        ("../other/b.png", "leads out of the tar"),
        ("..", "leads out of the tar"),
        ("none.png", "link to none.png, which is no file of the tar"),
        ("a.png", "leads in a circle"),
        (os.fsdecode(b"caf\xe9.png"), r"link to caf\\udce9.png, which is no file"),
    ],
)
def test_links_that_lead_nowhere_are_rows(tar, link, message):
    (tar.parent / "other").mkdir()
    (tar.parent / "other" / "b.png").write_text("outside")
    make_tar(tar, [(SOFT, "a.png", link)])
    (item,) = list_items([str(tar)])
    item.problem.encode()
    with pytest.raises(InputError, match=message):
        read_item(item, MAX_BYTES)


def test_what_is_no_file_is_a_row(tar):
    make_tar(tar, [(tarfile.FIFOTYPE, "pipe.png", ""), (tarfile.DIRTYPE, "folder.png", "")])
    assert contents(tar) == {"pipe.png": "is not a regular file; make the tar without it"}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_every_form_of_tar(tar, form):
    names = ["deep/" * 30 + "a.png", os.fsdecode(b"caf\xe9.png"), "größe.png", "two\nlines.png"]
    names += [] if form == tarfile.USTAR_FORMAT else ["long" * 60 + ".png"]
    members = [(FILE, name, name.encode(errors="surrogateescape")) for name in names]
    make_tar(tar, [*members, (HARD, "link.png", names[-1])], form)
    found = contents(tar)
    assert found.pop("link.png") == os.fsencode(names[-1])
    assert found == {name: os.fsencode(name) for name in names}


@pytest.mark.parametrize("options", [["--format=gnu"], ["--format=pax"]])
def test_sparse_members_are_rows(tar, options):
    with open(tar.parent / "holes.png", "wb") as file:
        file.truncate(10**6)
        file.seek(500_000)
        file.write(b"image")
    (tar.parent / "a.png").write_text("image")
    command = ["tar", "-cSf", tar, *options, "holes.png", "a.png"]
    if subprocess.run(command, cwd=tar.parent, capture_output=True).returncode:
        pytest.skip("NOT CHECKED: sparse members are made by GNU tar, which is not here")
    found = contents(tar)
    if (
        found["holes.png"]
        == f"has {10**6} bytes, more than --max-bytes {MAX_BYTES}; raise that if you trust it"
    ):
        pytest.skip("NOT CHECKED: the file system has no holes")
    assert found == {
        "holes.png": "is stored as a sparse file; make the tar without --sparse",
        "a.png": b"image",
    }


NAMES = st.sampled_from(["a.png", "b.png", "d/a.png", "d/b.png", "./a.png"])
MEMBERS = st.lists(
    st.tuples(st.just(FILE), NAMES, st.binary(max_size=3))
    | st.tuples(st.just(HARD), NAMES, NAMES)
    | st.tuples(st.just(SOFT), NAMES, st.sampled_from(["a.png", "../a.png", "d/b.png", "../d/a.png"])),
    max_size=8,
)


@settings(max_examples=60)
@given(MEMBERS)
@example(
    [(FILE, "a.png", b"1"), (HARD, "b.png", "a.png"), (FILE, "a.png", b"2"), (SOFT, "d/a.png", "../b.png")]
)
def test_members_are_those_that_tar_leaves(members):
    """Against a model of `tar -x` that has files as objects, by name."""
    files: dict[str, object] = {}
    for kind, name, content in members:
        place = posixpath.normpath(name)
        if kind == HARD:
            files[place] = files.get(posixpath.normpath(content), "no target")
        else:
            files[place] = content

    def final(place):
        for _ in range(50):
            held = files.get(place)
            if not isinstance(held, str):
                return held
            place = posixpath.normpath(posixpath.join(posixpath.dirname(place), held))
        return None

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.tar")
        make_tar(path, members)
        found = {posixpath.normpath(name): content for name, content in contents(path).items()}
    assert found.keys() == files.keys()
    for place, content in found.items():
        assert content == final(place) if isinstance(content, bytes) else final(place) is None


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_bytes_of_any_kind_give_rows_or_one_error(tar, data):
    make_tar(tar, [(FILE, "a.png", b"x" * 700), (SOFT, "l.png", "a.png"), (FILE, "long" * 40 + ".png", b"y")])
    content = bytearray(tar.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 6000))] = data.draw(st.integers(0, 255))
    tar.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        found = contents(tar)
    except InputError as error:
        assert str(tar) in str(error)
    else:
        assert all(len(content) <= MAX_BYTES for content in found.values())


def test_a_tar_is_read_once(tar, monkeypatch):
    make_tar(tar, [(FILE, f"{number}.png", b"x") for number in range(9)])
    (tar.parent / "list.csv").write_text("path\n" + "".join(f"x.tar!/{n}.png\n" for n in range(9)))
    scans = []
    scan = tars.Tars._scan
    monkeypatch.setattr(tars.Tars, "_scan", lambda *words: scans.append(1) or scan(*words))
    inputs = [str(tar), str(tar.parent / "list.csv"), str(tar)]
    names = [item.name for item in list_items(inputs)]
    assert names == [f"{tar}!/{number}.png" for number in range(9)] * 3
    assert scans == [1]


def test_an_empty_tar_has_no_members_of_another(tmp_path):
    make_tar(tmp_path / "empty.tar", [])
    make_tar(tmp_path / "x.tar", [(FILE, "a.png", b"x")])
    (tmp_path / "list.csv").write_text("path\nempty.tar!/a.png\nx.tar!/a.png\nempty.tar!/a.png\n")
    problems = [item.problem for item in list_items([str(tmp_path / "list.csv")])]
    assert problems == [*["the tar has no such member; check the name", ""], problems[0]]


def test_memory_does_not_grow_with_the_number_of_members(tar):
    """Python's; SQLite keeps 2 MB of its temporary file in memory."""

    def most_memory(count):
        make_tar(tar, [(FILE, f"{'folder/' * 8}{number:08}.png", b"") for number in range(count)])
        tracemalloc.start()
        try:
            assert sum(1 for _ in list_items([str(tar)])) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert most_memory(2000) - most_memory(100) < 100_000
