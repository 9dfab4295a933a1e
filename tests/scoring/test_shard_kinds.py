"""Shards of all kinds, read once from front to back: the rows that their images have one by one."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.scoring.shards import plan, reading

from ..command_runs import run_measured
from .made_shards import ENTROPY, about, image, make_tar, rows, score


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def odd_members():
    """Type, name, and content or target: all that `tar -x` makes something of."""
    file, hard, soft = tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE
    return [
        (file, "a.png", image(1)),
        (file, "blob", image(2)),
        (hard, "hard.png", "a.png"),
        (soft, "soft.png", "a.png"),
        (soft, "named.png", "blob"),
        (soft, "lost.png", "nowhere.png"),
        (soft, "out.png", "../out.png"),
        (file, "large.png", image(7) * 100),
        (file, "broken.jpg", b"broken"),
        (file, "empty.png", b""),
        (file, "aligned.png", image(3).ljust(1024, b"\0")),
        (file, "n" * 200 + ".png", image(4)),
        (tarfile.FIFOTYPE, "pipe.png", ""),
        (file, "./a.png", image(5)),
        (file, "end.png", image(6)),
    ]


def odd_tar(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for kind, name, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.linkname = content
                tar.addfile(info)
    return file.getvalue()


LIMIT = ["--max-bytes", "5000"]
PACKED = {".tar.gz": "gzip", ".tar.zst": "zstd", ".tgz": "gzip"}


def packed(content, suffix):
    return pa.compress(content, PACKED[suffix], asbytes=True) if suffix in PACKED else content


@pytest.mark.parametrize("suffix", [".tar", *PACKED])
def test_a_tar_as_a_plain_run_reads_it(here, suffix):
    content = odd_tar(odd_members())
    Path("x.tar").write_bytes(content)
    Path(f"y{suffix}").write_bytes(packed(content, suffix))
    score("x.tar", *LIMIT, out="plain.parquet", status=1)
    score(f"y{suffix}", *LIMIT, out="out", status=1)
    (file,) = Path("out").iterdir()
    assert file.name.startswith("y-")
    in_order = parquet.read_table(file).to_pylist()
    expected = parquet.read_table("plain.parquet").to_pylist()
    names = [row["path"].partition("!/")[2] for row in in_order]
    assert len(names) == 13 and names == [row["path"].partition("!/")[2] for row in expected]
    for row, plain in zip(in_order, expected, strict=True):
        assert row | {"path": ""} == plain | {"path": ""}
    by_name = dict(zip(names, in_order, strict=True))
    assert by_name["named.png"]["score"] is not None and by_name["soft.png"]["score"] is not None
    assert by_name["hard.png"]["score"] != by_name["soft.png"]["score"]  # the one before, the last one


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_tar_that_was_cut_off(here, suffix):
    """Anywhere: in a header, in an image, between; the images before are scored, the rest is told of."""
    whole = odd_tar(odd_members()[:4])
    for number, place in enumerate([0, 100, 512, 700, 1536, 1900, 2048, 2600, len(whole) - 5120 - 900]):
        cut = whole[:place]
        Path(f"{number}.tar").write_bytes(cut)
        compressed = packed(whole, suffix)
        # As much of the compressed tar as holds about as much of the other.
        cut = compressed[: len(compressed) * place // len(whole)] if suffix in PACKED else cut
        Path(f"cut-{number}{suffix}").write_bytes(cut)
    score("?.tar", out="plain.parquet", status=1)
    score(f"cut-?{suffix}", out="out", status=1)
    found = rows("out")
    damaged = [row for row in found if row["error"].startswith("the tar is damaged")]
    # Where it ends with a member, nothing tells that it was longer, but for the compression.
    assert len(damaged) == (7 if suffix == ".tar" else 9) and not any("!/" in row["path"] for row in damaged)
    if suffix == ".tar":
        found = [row | {"path": row["path"].removeprefix("cut-")} for row in found]
        assert found == rows("plain.parquet")


def test_tars_without_images(here):
    make_tar(here / "none.tar", {})
    make_tar(here / "text.tar.gz", {"a.txt": b"no image"}, "w:gz")
    score("none.tar", "text.tar.gz", out="out")
    assert len(list(Path("out").iterdir())) == 2 and rows("out") == []


def test_a_compressed_tar_under_a_wrong_name(here, capsys):
    make_tar(here / "x.tar", {"a.png": image(1)}, "w:gz")
    make_tar(here / "y.tar.gz", {"a.png": image(1)})
    (here / "z.tar.bz2").touch()
    score("x.tar", "y.tar.gz", out="out", status=1)
    assert "x.tar: is a compressed tar; unpack it to a .tar, or call it .tar.gz" in capsys.readouterr().out
    assert [row["error"][:18] for row in rows("out")] == ["the tar is damaged"]
    assert main(["score", "z.tar.bz2", *ENTROPY, "--out", "x.csv"]) == 2
    assert "z.tar.bz2: is compressed with bzip2 or xz" in capsys.readouterr().err


def test_parquets_of_images(here, capsys):
    (here / "beside.png").write_bytes(image(50))
    contents = [*(image(number) for number in range(150)), b"broken", image(3) * 100, None]
    structs = [{"bytes": content, "path": "x"} for content in contents]
    structs += [{"bytes": None, "path": "beside.png"}, {"bytes": None, "path": "missing.png"}, None]
    for name, cells in (("a", structs), ("b", structs[:5]), ("c", structs[5:9])):
        parquet.write_table(pa.table({"image": cells, "n": range(len(cells))}), f"{name}.parquet", 40)
    words = ["--column", "image", *LIMIT]
    score("[ab].parquet", *words, out="plain.parquet", status=1)
    score("[ab].parquet", *words, out="out", status=1)
    assert rows("out") == rows("plain.parquet") and len(rows("out")) == 161
    parquet.write_table(pa.table({"image": ["a.png"]}), "b.parquet")
    Path("c.parquet").write_bytes(b"PAR1 no parquet PAR1")
    score("[abc].parquet", *words, out="out", status=1)
    told = capsys.readouterr().out
    assert "0 scored, 1 there already, 2 not read" in told and "c.parquet: not a parquet file" in told
    assert "b.parquet: column image holds string, not images as the first" in told


def test_a_damaged_row_group(here):
    file = here / "x.parquet"
    table = pa.table({"image": [image(number) for number in range(90)]})
    parquet.write_table(table, file, 30, compression="none", use_dictionary=False)
    content = bytearray(file.read_bytes())
    start = parquet.read_metadata(file).row_group(1).column(0).data_page_offset
    content[start : start + 12] = b"\xff" * 12
    file.write_bytes(content)
    score("x.parquet", "--column", "image", out="plain.parquet", status=1)
    score("x.parquet", "--column", "image", out="out", status=1)
    assert len(rows("out")) == 90
    for found, plain in zip(rows("out"), rows("plain.parquet"), strict=True):
        assert found["score"] == plain["score"] and found["path"] == plain["path"]
        assert found["error"][:25] == plain["error"][:25]
    assert sum(row["error"].startswith("its row group is damaged") for row in rows("out")) == 30


@pytest.mark.parametrize("out", ["out", "plain.parquet"])
def test_bytes_beside_a_path_that_is_no_text(here, out):
    """Not UTF-8, as other writers may leave it; without bytes the row says so."""
    content = pa.array([image(1), None, image(2), None, None])
    path = pa.array([b"\xff.png", b"\xff.png", None, b"a.png", None]).view(pa.string())
    there = pa.array([False, False, False, False, True])
    cells = pa.StructArray.from_arrays([content, path], ["bytes", "path"], mask=there)
    parquet.write_table(pa.table({"image": cells}), "x.parquet")
    Path("a.png").write_bytes(image(3))
    score("x.parquet", "--column", "image", out=out, status=1)
    scored, no_text, other, by_path, empty = rows(out)
    assert not (scored["error"] or other["error"] or by_path["error"])
    assert no_text["error"] == "the path in the cell of column image is not UTF-8"
    assert empty["error"] == "the cell of column image is empty"


@pytest.fixture
def blocks_of_ten(monkeypatch):
    monkeypatch.setattr(plan, "BLOCK", 10)


def list_images(here, count, suffix=".csv"):
    names = [f"images/{number:03}.png" for number in range(count)]
    (here / "images").mkdir(exist_ok=True)
    for number, name in enumerate(names):
        (here / name).write_bytes(image(number))
    if suffix == ".csv":
        (here / "list.csv").write_text("\n".join(["path", *names, names[-1]]))
    else:
        parquet.write_table(pa.table({"path": names}), here / "list.parquet")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_list_in_blocks(here, blocks_of_ten, capsys, suffix):
    list_images(here, 25, suffix)
    score(f"list{suffix}", out="plain.jsonl")
    score(f"list{suffix}", out="plain.parquet")
    score(f"list{suffix}", out="out")
    assert rows("out") == rows("plain.parquet") and len(rows("out")) == 25
    files = sorted(Path("out").iterdir())
    assert [file.name[:11] for file in files] == ["list-00000-", "list-00001-", "list-00002-"]
    assert [about(file)["size"] for file in files] == [10, 10, 5]


def test_a_list_that_grows_and_one_that_shrinks(here, blocks_of_ten, capsys):
    list_images(here, 25)
    score("list.csv", out="out")
    list_images(here, 35)
    score("list.csv", out="out")
    told = capsys.readouterr()
    assert "2 scored, 2 there already" in told.out and "list.csv: was changed; scored again" in told.err
    assert len(rows("out")) == 35
    list_images(here, 15)
    assert main(["score", "list.csv", *ENTROPY, "--out", "out"]) == 2
    assert "-00002-" in (told := capsys.readouterr().err) and "that list.csv has no longer; delete it" in told


def test_a_list_of_which_no_image_can_be_read_is_not_done(here, blocks_of_ten, capsys):
    list_images(here, 15)
    os.rename("images", "away")
    score("list.csv", out="out", status=1)
    told = capsys.readouterr().out
    assert "0 scored, 0 there already, 2 not read" in told
    assert "none of its images can be read, the first: cannot be read (no folder " in told
    assert not list(Path("out").iterdir())
    os.rename("away", "images")
    os.rename("images/000.png", "images/moved.png")
    score("list.csv", out="out", status=1)
    assert len(rows("out")) == 15 and sum(not row["error"] for row in rows("out")) == 14


def test_images_that_the_list_names_in_tars(here):
    make_tar(here / "x.tar", {"a.png": image(1), "b.png": image(2)})
    make_tar(here / "x.tar.gz", {"a.png": image(1)}, "w:gz")
    Path("list.csv").write_text("path\nx.tar!/b.png\nx.tar.gz!/a.png\nmissing.png\n")
    score("list.csv", out="out", status=1)
    found = {row["path"]: row for row in rows("out")}
    assert found["x.tar!/b.png"]["error"] == ""
    assert found["x.tar.gz!/a.png"]["error"].startswith("is in a compressed tar, which is read from front")
    assert found["missing.png"]["error"].startswith("no such file")


def test_what_it_writes_is_read_as_a_list(here):
    """Rows of tars and of images, errors included."""
    make_tar(here / "x.tar", {"a.png": image(1), "b.png": b"broken"})
    list_images(here, 3)
    score("x.tar", "list.csv", out="out", status=1)
    score("out", out="again.parquet", status=1)
    assert rows("again.parquet") == rows("out") and len(rows("out")) == 5


def test_a_mixture_with_images_keeps_the_journal(here):
    make_tar(here / "x.tar", {"a.png": image(1)})
    list_images(here, 1)
    score("x.tar", "images", out="out")
    assert os.listdir("out") == ["part-00000.parquet"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", [".tar", ".tar.gz", ".parquet"])
def test_no_shard_is_in_memory_as_a_whole(here, kind):
    """120 MiB; of the parquet in one row group."""
    member = image(1) + bytes(2**20)
    peaks = []
    for count in (20, 120):
        name = f"x{count}{kind}"
        if kind == ".parquet":
            # Else all images are one page, which is read as a whole.
            pages = {"use_dictionary": False, "write_batch_size": 8}
            parquet.write_table(pa.table({"path": [member] * count}), name, **pages)
        else:
            make_tar(
                here / name,
                {f"{number}.png": member for number in range(count)},
                "w" if kind == ".tar" else "w:gz",
            )
        status, peak = run_measured(here, "score", name, *ENTROPY, "--workers", "1", "--out", f"out{count}")
        assert status == 0, Path("log").read_text()
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 60


def test_a_block_of_a_parquet_is_read_at_once(monkeypatch, here):
    monkeypatch.setattr(reading, "ROWS", 2)
    parquet.write_table(pa.table({"path": [image(number) for number in range(5)]}), "x.parquet", 3)
    score("x.parquet", out="out")
    assert [row["path"] for row in rows("out")] == [f"x.parquet!/{number}" for number in range(5)]
