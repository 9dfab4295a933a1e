"""What to score: order, duplicates, links in circles, tables, tars and parquets, and their faults."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import tarfile

import pyarrow as pa
import pytest
from pyarrow import parquet

from pyiqa_ma_agiqa.errors import InputError
from pyiqa_ma_agiqa.scoring.columns import columns
from pyiqa_ma_agiqa.scoring.inputs.items import Item, read_item
from pyiqa_ma_agiqa.scoring.inputs.listing import list_items
from pyiqa_ma_agiqa.scoring.rows.journal import Journal

MAX_BYTES = 1000


def names(*inputs, **options):
    return [item.name for item in list_items([str(text) for text in inputs], **options)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder `here` with images (their names as content), and some other files."""
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "A.JPG", "a.jpg", "notes.txt", "sub/c.webp", "sub/deep/d.tif", "other/e.bmp"):
        path = tmp_path / "here" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "here"


ALL = ["A.JPG", "a.jpg", "b.png", "other/e.bmp", "sub/c.webp", "sub/deep/d.tif"]


def test_a_folder_gives_its_images_in_order(folder):
    assert names("here") == [f"here/{name}" for name in ALL]


def test_links_in_circles_end(folder):
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "sub" / "up_again").symlink_to("..")
    (folder / "itself").symlink_to("itself")
    (folder / "itself.png").symlink_to("itself.png")
    expected = [*ALL[:3], "itself.png", *ALL[3:]]
    assert names("here") == [f"here/{name}" for name in expected]
    assert names("here/**/*.webp") == ["here/sub/c.webp"]
    with pytest.raises(InputError, match="cannot be read"):
        read_item(Item("here/itself.png"), MAX_BYTES)


def test_a_link_to_another_folder_is_followed(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.png").write_text("x")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    assert "here/link/x.png" in names("here")


def test_globs(folder):
    assert names("here/*.[jp]*g") == ["here/a.jpg", "here/b.png"]
    assert names("here/s*") == ["here/sub/c.webp", "here/sub/deep/d.tif"]
    assert names("here/**/*.tif") == ["here/sub/deep/d.tif"]
    (folder / "[a].png").write_text("brackets")
    assert names("here/[a].png") == ["here/[a].png"]
    with pytest.raises(InputError, match="matches nothing"):
        names("here/*.gif")


def test_a_missing_file_is_an_item(folder):
    assert names("here/none.png", "here/a.jpg") == ["here/none.png", "here/a.jpg"]
    with pytest.raises(InputError, match="no such file"):
        read_item(Item("here/none.png"), MAX_BYTES)


def test_an_unreadable_folder_is_an_item(folder):
    (folder / "sub" / "gone").symlink_to(folder / "other")
    items = list_items(["here"])
    first = next(items)
    (folder / "other" / "e.bmp").unlink()
    (folder / "other").rmdir()
    problems = [item.name for item in items if item.problem]
    assert first.name == "here/A.JPG" and problems == ["here/other"]


@pytest.mark.parametrize(
    "content", ["file\na.jpg\nsub/c.webp\n", '\ufeffid,"file"\n1,"a.jpg"\n2,sub/c.webp\n']
)
def test_csv(folder, content):
    (folder / "list.csv").write_text(content, encoding="utf-8")
    assert names("here/list.csv", column="file") == ["here/a.jpg", "here/sub/c.webp"]


def test_csv_with_difficult_names(folder):
    difficult = [
        "two\nlines.png",
        'say "hi", please.png',
        os.fsdecode(b"caf\xe9.png"),
        "NA",
        "=1+1.png",
        "ü.png",
    ]
    with open(folder / "list.csv", "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows([["path"], *([name] for name in difficult)])
    assert names("here/list.csv") == [f"here/{name}" for name in difficult]


def test_parquet_of_paths(folder):
    table = pa.table({"path": [str(folder / "a.jpg"), None, r"caf\udce9.png", "a\0.jpg"]})
    parquet.write_table(table, folder / "list.parquet")
    items = list(list_items(["here/list.parquet"]))
    caf = os.path.join("here", os.fsdecode(b"caf\xe9.png"))
    table = "here/list.parquet"
    names_in_order = [str(folder / "a.jpg"), f"{table}!/path/1", caf, f"{table}!/path/3"]
    assert [item.name for item in items] == names_in_order
    for row, message in ((1, "the cell of column path is empty"), (3, "has a null character")):
        with pytest.raises(InputError, match=message):
            read_item(items[row], MAX_BYTES)


def test_parquet_of_bytes(folder):
    contents = [f"image {number}".encode() * (number + 1) for number in range(25)]
    contents[7] = None
    parquet.write_table(pa.table({"image": contents}), folder / "images.parquet", row_group_size=4)
    items = list(list_items(["here/images.parquet"], "image"))
    assert [item.name for item in items] == [f"here/images.parquet!/{row}" for row in range(25)]
    order = [*range(25), 3, 24, 0]
    for row in order:
        if row == 7:
            with pytest.raises(InputError, match="is empty"):
                read_item(items[row], MAX_BYTES)
        else:
            assert read_item(items[row], MAX_BYTES) == contents[row]
    with pytest.raises(InputError, match="more than --max-bytes 100"):
        read_item(items[24], 100)


def make_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_tar(folder):
    members = [
        ("01.jpg", b"one"),
        ("01.txt", b"a prompt"),
        ("dir/" + "long" * 60 + ".png", b"two" * 300),
        ("2.webp", b""),
    ]
    make_tar(folder / "shard.tar", members)
    items = list(list_items(["here/*.tar"]))
    wanted = [member for member in members if not member[0].endswith("txt")]
    assert [item.name for item in items] == [f"here/shard.tar!/{name}" for name, _ in wanted]
    assert [read_item(item, MAX_BYTES) for item in items] == [content for _, content in wanted]
    with pytest.raises(InputError, match="has 900 bytes, more than --max-bytes 899"):
        read_item(items[1], 899)


def test_a_damaged_tar_gives_what_it_has_and_says_so(folder):
    path = folder / "shard.tar"
    make_tar(path, [(f"{number}.png", b"x" * 600) for number in range(4)])
    whole = path.read_bytes()
    third = whole.index(b"2.png")
    damaged = bytearray(whole)
    damaged[third + 150] ^= 255
    for content in (bytes(damaged), whole[: third + 100], whole[: third + 600]):
        path.write_bytes(content)
        items = list(list_items(["here/shard.tar"]))
        good = [item.name for item in items if not item.problem][:2]
        assert good == ["here/shard.tar!/0.png", "here/shard.tar!/1.png"]
        with pytest.raises(InputError, match=r"damaged|ends within"):
            for item in items:
                read_item(item, MAX_BYTES)


def test_not_a_tar(folder):
    (folder / "x.tar").write_bytes(b"junk" * 400)
    (item,) = list_items(["here/x.tar"])
    assert item.name == "here/x.tar" and "damaged" in item.problem


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.csv", None, "No such file"),
        ("gone.parquet", None, "No such file"),
        ("gone.tar", None, "No such file"),
        ("x.csv", b"file,mos\na.png,1\n", "no column path; there are file, mos"),
        ("x.csv", b"", "no column path"),
        ("x.parquet", b"junk" * 10, "not a parquet file"),
        ("x.tar.gz", b"", "compressed tar"),
        ("x.tar", gzip.compress(bytes(10240), mtime=0), "x.tar: is a compressed tar; unpack it to a .tar"),
        ("x.jsonl", b"", "no column path; it is empty"),
        ("x.jsonl", b'{"file": "a.png"}\n', "no column path; there are file"),
        ("x.jsonl", b'{"path": "a.png"}\n{"path": "b', "not a JSON Lines file .line 2: "),
        ("x.jsonl", b'["a.png"]\n', "line 1 is not an object"),
        ("x.jsonl", b"[" * 100_000, "line 1 is not an object"),
        ("x.csv", b"path,score,path\na.png,1,b.png\n", "has 2 columns path; rename all but one"),
        ("x.csv", "path\na.png\n".encode("utf-16"), "no column path"),
    ],
)
def test_tables_that_cannot_be_used(folder, name, content, message):
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        names(f"here/{name}")


def test_a_parquet_column_of_numbers_is_refused(folder):
    parquet.write_table(pa.table({"path": [1, 2]}), folder / "x.parquet")
    with pytest.raises(InputError, match="holds int64, not paths or bytes"):
        names("here/x.parquet")


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.string(), pa.large_string(), pa.string_view()),
        *(pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.large_string())),
    ],
    ids=str,
)
def test_every_kind_of_text_is_a_path(folder, kind):
    paths = ["a.jpg", None, "a.jpg", "größe.png"]
    parquet.write_table(pa.table({"path": pa.array(paths, kind)}), folder / "x.parquet")
    found = ["here/a.jpg", "here/x.parquet!/path/1", "here/a.jpg", "here/größe.png"]
    assert names("here/x.parquet") == found


def test_paths_in_a_parquet_that_are_not_utf_8(folder):
    raw = pa.array([b"caf\xe9.png"], pa.binary())
    text = pa.StringArray.from_buffers(1, raw.buffers()[1], raw.buffers()[2])
    parquet.write_table(pa.table({"path": text}), folder / "x.parquet")
    assert names("here/x.parquet") == [os.path.join("here", os.fsdecode(b"caf\xe9.png"))]


@pytest.mark.parametrize(
    "kind",
    [pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int8(), pa.binary())],
    ids=str,
)
def test_every_kind_of_bytes_is_an_image(folder, kind):
    contents = [b"one", b"two", b"one"]
    # A column whose name goes on where the other's ends.
    table = pa.table({"image.x": [0, 1, 2], "image": pa.array(contents, kind)})
    parquet.write_table(table, folder / "x.parquet")
    items = list(list_items(["here/x.parquet"], "image"))
    assert [read_item(item, MAX_BYTES) for item in items] == contents


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()], ids=str)
def test_images_as_datasets_writes_them(folder, kind):
    """Struct of `bytes` and `path`; without bytes the path counts, from the parquet's folder."""
    image = pa.struct([("bytes", kind), ("path", pa.string())])
    cells = [
        {"bytes": b"inside", "path": "a.jpg"},
        {"bytes": None, "path": "a.jpg"},
        {"bytes": b"", "path": None},
        {"bytes": None, "path": None},
        None,
        {"bytes": None, "path": "none.jpg"},
    ]
    parquet.write_table(pa.table({"image": pa.array(cells, image)}), folder / "x.parquet", row_group_size=2)
    items = list(list_items(["here/x.parquet"], "image"))
    assert [item.name for item in items] == [f"here/x.parquet!/{row}" for row in range(6)]
    assert [read_item(item, MAX_BYTES) for item in items[:3]] == [b"inside", b"a.jpg", b""]
    for row, message in ((3, "is empty"), (4, "is empty"), (5, "no such file")):
        with pytest.raises(InputError, match=message):
            read_item(items[row], MAX_BYTES)
    with pytest.raises(InputError, match="has 5 bytes, more than --max-bytes 4"):
        read_item(items[1], 4)
    with pytest.raises(InputError, match="no column path; there are image; name one with --column"):
        names("here/x.parquet")


def test_a_damaged_row_group_is_the_fault_of_its_images(folder):
    contents = [os.urandom(300) for _ in range(4)]
    path = folder / "x.parquet"
    parquet.write_table(pa.table({"image": contents}), path, row_group_size=2, compression="gzip")
    whole = bytearray(path.read_bytes())
    group = parquet.read_metadata(path).row_group(0).column(0)
    whole[group.dictionary_page_offset : group.data_page_offset] = bytes(
        group.data_page_offset - group.dictionary_page_offset
    )
    path.write_bytes(whole)
    items = list(list_items(["here/x.parquet"], "image"))
    with pytest.raises(InputError, match="its row group is damaged"):
        read_item(items[0], MAX_BYTES)
    assert read_item(items[2], MAX_BYTES) == contents[2]


def test_jsonl(folder):
    rows = [{"id": 1, "path": "a.jpg"}, {"path": None}, {}, {"path": 7}, {"path": "sub/c.webp"}]
    text = "\ufeff" + "\n\n".join(map(json.dumps, rows))
    (folder / "list.jsonl").write_text(text, encoding="utf-8")
    items = list(list_items(["here/list.jsonl"]))
    table = "here/list.jsonl!/path"
    found = ["here/a.jpg", f"{table}/1", f"{table}/2", f"{table}/3", "here/sub/c.webp"]
    assert [item.name for item in items] == found
    faults = [f"the cell of column path {fault}" for fault in ("is empty", "is empty", "is not text")]
    assert [item.problem for item in items] == ["", *faults, ""]


def test_text_that_is_no_file_name_is_a_row(folder):
    """Half of a pair of UTF-16, which no file name has."""
    (folder / "list.jsonl").write_text('{"path": "\\ud800.png"}\n{"path": "a.jpg"}\n')
    first, second = list_items(["here/list.jsonl"])
    assert first.problem.endswith("is not a file name") and second.name == "here/a.jpg"
    # What `escape` never writes is no escape.
    (folder / "list.csv").write_text("path\n\\ud800.png\n")
    assert names("here/list.csv") == [r"here/\ud800.png"]


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.parquet", "x.tar"])
def test_tables_of_nothing(folder, name):
    if name == "x.tar":
        make_tar(folder / name, [])
    elif name == "x.parquet":
        parquet.write_table(pa.table({"path": pa.array([], pa.string())}), folder / name)
    else:
        (folder / name).write_text("path\n" if name == "x.csv" else '{"path": "a.jpg"}\n')
    expected = ["here/a.jpg"] if name == "x.jsonl" else []
    assert names(f"here/{name}") == expected


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.parquet", "x.tar"])
def test_pipes_and_folders_that_are_called_like_tables(folder, name):
    os.mkfifo(folder / name)
    with pytest.raises(InputError, match=f"here/{name}: is not a regular file"):
        names(f"here/{name}")
    (folder / name).unlink()
    (folder / name).mkdir()
    (folder / name / "a.png").write_text("image")
    assert names(f"here/{name}") == [f"here/{name}/a.png"]


def test_an_image_given_twice_is_taken_once(folder, tmp_path):
    make_tar(folder / "shard.tar", [("1.png", b"first"), ("1.png", b"second")])
    (folder / "shard.tar!").mkdir()
    (folder / "shard.tar!" / "1.png").write_text("a file that is called like a member")
    inputs = ["here", "here/a.jpg", "here/*.png", str(folder / "b.png"), "./here/sub", "here/shard.tar"]
    journal = Journal(tmp_path / "x.journal", {}, columns(shares=False))
    assert journal.list_once(list_items([*inputs, *inputs])) == len(ALL) + 2
    listed = [item for _, item in journal.pending()]
    named = [*ALL[:4], "shard.tar!/1.png", *ALL[4:], "shard.tar!/1.png"]
    assert [item.name for item in listed] == [f"here/{name}" for name in named]
    assert read_item(listed[-1], MAX_BYTES) == b"second"
    journal.close()


def test_reading_never_waits_for_a_pipe(folder):
    os.mkfifo(folder / "pipe.png")
    with pytest.raises(InputError, match="not a regular file"):
        read_item(Item("here/pipe.png"), MAX_BYTES)
    with pytest.raises(InputError, match="is a folder"):
        read_item(Item("here/sub"), MAX_BYTES)
    with pytest.raises(InputError, match="null characters"):
        read_item(Item("here/\0.png"), MAX_BYTES)
