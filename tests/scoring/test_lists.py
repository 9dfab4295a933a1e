"""Tables as lists of images: what `score` wrote is one, wherever it lies and whatever its format."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.errors import InputError
from pyiqa_ma_agiqa.scoring.inputs.items import read_item
from pyiqa_ma_agiqa.scoring.inputs.listing import list_items

from ..command_runs import make_images

ENTROPY = ["--metric", "entropy", "--device", "cpu", "--workers", "1"]
MAX_BYTES = 10_000
OWN = "path,score,error,width,height\n"


def rows_of(path):
    """Rows of any output, as text."""
    path = Path(path)
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    else:
        rows = parquet.read_table(path).to_pylist()
    return [{name: "" if cell is None else str(cell) for name, cell in row.items()} for row in rows]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Images of every source, in the working directory."""
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / "images", 3)
    (tmp_path / "images" / "00001.png").write_bytes(b"broken")
    files = sorted((tmp_path / "images").iterdir())
    shutil.copy(files[0], "=1+1.png")
    shutil.copy(files[0], os.fsdecode(b"caf\xe9.png"))
    with tarfile.open("x.tar", "w") as tar:
        for file in files:
            tar.add(file, f"in/{file.name}")
        tar.add(files[2], "a!/b.png")
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "nowhere"
        tar.addfile(link)
    Path("y.tar").write_bytes(Path("x.tar").read_bytes()[:2000])
    image = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    parquet.write_table(pa.table({"image": image, "text": ["a", "b", "c"]}), "hf.parquet")
    Path("list.csv").write_text("image\nimages/00000.png\n''\n\"\"\n")
    return tmp_path


INPUTS = ["images", "=1+1.png", "*.tar", "caf*.png", "hf.parquet", "list.csv", "none.png"]


@pytest.mark.parametrize("out", ["x.csv", "x.jsonl", "x.parquet", "x"])
@pytest.mark.parametrize("folder", ["", "sub/deep"])
def test_an_output_is_a_list(here, out, folder):
    """Of all its images, in order, with the same rows."""
    os.makedirs("sub/deep")
    first = os.path.join(folder, out)
    assert main(["score", *INPUTS, "--column", "image", *ENTROPY, "--out", first]) == 1
    assert main(["score", first, *ENTROPY, "--out", f"again{Path(out).suffix}"]) == 1
    rows, again = rows_of(first), rows_of(f"again{Path(out).suffix}")
    assert len(rows) == 3 + 1 + 5 + 2 + 1 + 3 + 2 + 1
    assert [row["path"] for row in again] == [row["path"] for row in rows]
    assert [row["score"] for row in again] == [row["score"] for row in rows]
    assert sum(row["score"] != "" for row in rows) == 2 + 1 + 3 + 1 + 1 + 2
    assert all(bool(row["error"]) == (row["score"] == "") for row in again)


def test_an_output_that_was_moved_with_its_images(here, tmp_path, monkeypatch):
    assert main(["score", "images", "x.tar", *ENTROPY, "--out", "x.csv"]) == 1
    (tmp_path / "moved").mkdir()
    for name in ("x.csv", "images", "x.tar"):
        shutil.move(name, tmp_path / "moved" / name)
    assert main(["score", "moved/x.csv", *ENTROPY, "--out", "y.csv"]) == 1
    again = [row["path"].removeprefix("moved/") for row in rows_of("y.csv")]
    assert again == [row["path"] for row in rows_of("moved/x.csv")]
    assert [row["score"] for row in rows_of("y.csv")] == [row["score"] for row in rows_of("moved/x.csv")]


def make_tar(path, name, content):
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("name", ["a.png", "x.tar!/a.png"])
def test_where_relative_paths_lead(tmp_path, monkeypatch, name):
    """A plain list: from its folder. An output: from its folder or the working directory, never a guess."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lists").mkdir()

    def put(folder, content):
        make_tar(folder / "x.tar", "a.png", content) if "!" in name else (folder / "a.png").write_bytes(
            content
        )

    def read(table):
        (item,) = list_items([table])
        return item.problem or (item.name, read_item(item, MAX_BYTES))

    Path("lists/plain.csv").write_text(f"path\n{name}\n")
    Path("lists/own.csv").write_text(f"{OWN}{name},1.0,,16,16\n")
    put(tmp_path, b"in the working directory")
    (item,) = list_items(["lists/plain.csv"])
    assert item.name == f"lists/{name}"
    assert read("lists/own.csv") == (name, b"in the working directory")
    put(tmp_path / "lists", b"beside the list")
    assert read("lists/plain.csv") == (f"lists/{name}", b"beside the list")
    assert read("lists/own.csv") == f"is in lists and in {tmp_path}; give the path from the root"
    Path(name.partition("!")[0]).unlink()
    assert read("lists/own.csv") == (f"lists/{name}", b"beside the list")
    Path("lists", name.partition("!")[0]).unlink()
    (item,) = list_items(["lists/own.csv"])
    assert item.name == name
    os.symlink("lists", "link")
    put(tmp_path / "lists", b"one file by two ways")
    shutil.copy("lists/own.csv", "own.csv")
    assert read(str(tmp_path / "link" / "own.csv"))[1] == b"one file by two ways"


def test_one_image_by_two_ways_is_no_fault(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lists").mkdir()
    Path("a.png").write_bytes(b"image")
    os.symlink("../a.png", "lists/a.png")
    Path("lists/own.csv").write_text(f"{OWN}a.png,1.0,,16,16\n")
    (item,) = list_items(["lists/own.csv"])
    assert (item.name, item.problem) == ("a.png", "")


def test_folders_of_parts(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    for number in (1, 0):
        table = pa.table({"path": [f"{number}.png", None], "score": [1.0, 2.0]})
        parquet.write_table(table, tmp_path / "out" / f"part-0000{number}.parquet")
    expected = [
        tmp_path / "0.png",
        "part-00000.parquet!/path/1",
        tmp_path / "1.png",
        "part-00001.parquet!/path/1",
    ]
    for folder, text in (
        (tmp_path, "out"),
        (tmp_path, "out/"),
        (tmp_path / "out", "."),
        ("/", f"{tmp_path}/out"),
    ):
        monkeypatch.chdir(folder)
        names = [item.name for item in list_items([text])]
        assert [os.path.abspath(name) for name in names[::2]] == [str(name) for name in expected[::2]]
        assert [name.rpartition("part-0")[2] for name in names[1::2]] == [n[6:] for n in expected[1::2]]
    # With anything else in it, it is a folder of images.
    Image.new("RGB", (20, 20)).save(tmp_path / "out" / "a.png")
    assert [item.name for item in list_items([f"{tmp_path}/out"])] == [f"{tmp_path}/out/a.png"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.tar!/none.png", "the tar has no such member"),
        ("none.tar!/a.png", ""),
        ("x.tar!", ""),
        ("one.parquet!/2", "the parquet has only 2 rows"),
        ("one.parquet!/-1", "is a cell without an image"),
        ("one.parquet!/²", "is a cell without an image"),
        ("one.parquet!/path/1", "is a cell without an image"),
        ("two.parquet!/0", "the parquet has 2 columns of images .a, b.; give it by itself, with --column"),
        ("paths.parquet!/0", "the parquet has 0 columns of images"),
        ("junk.parquet!/0", "not a parquet file"),
        ("gzip.tar!/a.png", "is a compressed tar"),
        ("junk.tar!/a.png", "the tar is damaged"),
        ("list.csv!/path/0", "is a cell without an image"),
        ("both.tar!/a.png", "is a file, and what a tar or a parquet holds; rename one of them"),
    ],
)
def test_names_of_nothing_are_rows(tmp_path, name, message):
    make_tar(tmp_path / "x.tar", "a.png", b"image")
    make_tar(tmp_path / "both.tar", "a.png", b"image")
    (tmp_path / "both.tar!").mkdir()
    (tmp_path / "both.tar!" / "a.png").write_bytes(b"another image")
    parquet.write_table(pa.table({"image": [b"a", b"b"], "path": ["a", None]}), tmp_path / "one.parquet")
    parquet.write_table(pa.table({"a": [b"a"], "b": [b"b"]}), tmp_path / "two.parquet")
    parquet.write_table(pa.table({"path": ["a"]}), tmp_path / "paths.parquet")
    (tmp_path / "gzip.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    for junk in ("junk.parquet", "junk.tar"):
        (tmp_path / junk).write_bytes(b"junk" * 200)
    (tmp_path / "list.csv").write_text(f"path\n{name}\n", encoding="utf-8")
    (item,) = list_items([str(tmp_path / "list.csv")])
    assert item.name == str(tmp_path / name)
    with pytest.raises(InputError, match=message or "no such file|no folder"):
        read_item(item, MAX_BYTES)


def test_folders_that_are_called_like_tars(tmp_path):
    (tmp_path / "x.tar!").mkdir()
    (tmp_path / "x.tar!" / "a.png").write_bytes(b"in a folder")
    (tmp_path / "y.tar").mkdir()
    make_tar(tmp_path / "y.tar" / "x.tar", "a!/b.tar!/c.png", b"in a tar")
    (tmp_path / "list.csv").write_text("path\nx.tar!/a.png\ny.tar/x.tar!/a!/b.tar!/c.png\n")
    found = [read_item(item, MAX_BYTES) for item in list_items([str(tmp_path / "list.csv")])]
    assert found == [b"in a folder", b"in a tar"]


def test_compare_reads_names_from_every_format(here):
    """Pairs by name, of a CSV file, where a formula is defused, and of a parquet."""
    inputs = ["=1+1.png", os.fsdecode(b"caf\xe9.png"), "images/00000.png", "images/00002.png"]
    for out in ("x.csv", "x.parquet"):
        assert main(["score", *inputs, *ENTROPY, "--out", out]) == 0
    assert rows_of("x.csv")[0]["path"] == r"\u003d1+1.png" and rows_of("x.parquet")[0]["path"] == "=1+1.png"
    assert main(["compare", "x.csv", "x.parquet", "--json", "compared.json"]) == 0
    assert json.loads(Path("compared.json").read_text())["pairs"] == 4
