"""Files that change after they were listed: refused or an error row, never the bytes of something else."""

from __future__ import annotations

import csv
import io
import os
import tarfile
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.errors import InputError
from pyiqa_ma_agiqa.scoring import run
from pyiqa_ma_agiqa.scoring.columns import columns
from pyiqa_ma_agiqa.scoring.inputs import items, stamps
from pyiqa_ma_agiqa.scoring.inputs.items import Item, read_item
from pyiqa_ma_agiqa.scoring.inputs.listing import list_items
from pyiqa_ma_agiqa.scoring.rows import journal

ENTROPY = ["--metric", "entropy", "--device", "cpu", "--workers", "1"]
MAX_BYTES = 10**6
COUNT = 6


def png(level):
    file = io.BytesIO()
    pixels = np.random.default_rng(level).integers(0, level + 2, (24, 24, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return file.getvalue()


def write(kind, levels):
    """A source of images, of equal size whatever the levels; named `x.KIND`."""
    images = [png(level) for level in levels]
    if kind == "tar":
        with tarfile.open("x.tar", "w") as tar:
            for number, image in enumerate(images):
                info = tarfile.TarInfo(f"{number}.png")
                info.size = len(image)
                tar.addfile(info, io.BytesIO(image))
    elif kind == "parquet":
        parquet.write_table(pa.table({"path": images}), "x.parquet", row_group_size=2, compression="none")
    else:
        for level, image in zip(levels, images, strict=True):
            Path(f"{level:03}.png").write_bytes(image)
        if kind == "csv":
            Path("x.csv").write_text("path\n" + "".join(f"{level:03}.png\n" for level in levels))
        elif kind == "jsonl":
            Path("x.jsonl").write_text("".join(f'{{"path": "{level:03}.png"}}\n' for level in levels))
        else:
            os.makedirs("x", exist_ok=True)
            table = pa.table({"path": [f"{level:03}.png" for level in levels]})
            parquet.write_table(table, "x/part-00000.parquet")


FORMS = {"tar": "x.tar", "parquet": "x.parquet", "csv": "x.csv", "jsonl": "x.jsonl", "parts": "x"}
OLD, NEW = range(0, 120, 20), range(110, -1, -20)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def interrupted(monkeypatch):
    """The run stops, as by Ctrl-C, after some rows."""

    def stop_after(rows, *words):
        add = journal.Journal.add

        def fragile(self, *row):
            add(self, *row)
            self.commit()
            if self.done() == rows:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(journal.Journal, "add", fragile)
            assert main(["score", *words]) == 130

    return stop_after


def scores(path="out.csv"):
    with open(path, newline="") as file:
        return [row["score"] or row["error"] for row in csv.DictReader(file)]


@pytest.mark.parametrize("kind", FORMS)
def test_a_source_that_changed_is_refused(interrupted, capsys, kind):
    source = FORMS[kind]
    words = [source, *ENTROPY, "--out", "out.csv"]
    write(kind, OLD)
    interrupted(3, *words)
    before = {path: os.stat(path) for path in Path().rglob("x*") if path.is_file()}
    before |= {path: os.stat(path) for path in Path().rglob("part*")}
    write(kind, NEW)
    capsys.readouterr()
    assert main(["score", *words]) == 2
    said = capsys.readouterr().err
    assert f"/{source}" in said and "was changed after" in said and "--restart" in said
    assert not Path("out.csv").exists()
    # Put back as it was, it goes on.
    write(kind, OLD)
    for path, facts in before.items():
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert main(["score", *words]) == 0
    whole = scores()
    assert main(["score", *words, "--restart"]) == 0
    assert scores() == whole
    write(kind, NEW)
    assert main(["score", *words, "--restart"]) == 0
    assert scores() != whole


def test_a_source_that_is_gone_is_refused(interrupted, capsys):
    write("tar", OLD)
    interrupted(3, "x.tar", *ENTROPY, "--out", "out.csv")
    os.unlink("x.tar")
    assert main(["score", "x.tar", *ENTROPY, "--out", "out.csv"]) == 2
    assert "x.tar: was changed after" in capsys.readouterr().err


def test_a_tar_that_a_table_names_is_a_source(interrupted, capsys):
    write("tar", OLD)
    Path("list.csv").write_text("path\n" + "".join(f"x.tar!/{number}.png\n" for number in range(COUNT)))
    interrupted(3, "list.csv", *ENTROPY, "--out", "out.csv")
    write("tar", NEW)
    assert main(["score", "list.csv", *ENTROPY, "--out", "out.csv"]) == 2
    assert "x.tar: was changed after" in capsys.readouterr().err


def test_before_the_first_row_the_list_is_taken_anew(interrupted, monkeypatch):
    write("tar", OLD)
    with monkeypatch.context() as patch:
        patch.setattr(run, "_score_pending", lambda *words: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(["score", "x.tar", *ENTROPY, "--out", "out.csv"]) == 130
    write("tar", NEW)
    assert main(["score", "x.tar", *ENTROPY, "--out", "out.csv"]) == 0
    assert main(["score", "x.tar", *ENTROPY, "--out", "fresh.csv"]) == 0
    assert scores() == scores("fresh.csv")


def test_after_the_last_row_nothing_is_lost(interrupted):
    write("tar", OLD)
    interrupted(COUNT, "x.tar", *ENTROPY, "--out", "out.csv")
    os.unlink("x.tar")
    assert main(["score", "x.tar", *ENTROPY, "--out", "out.csv"]) == 0
    assert len(scores()) == COUNT


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_container_that_changes_within_a_run_gives_errors(tmp_path, kind):
    write(kind, OLD)
    with closing(journal.Journal(tmp_path / "x.journal", {}, columns(shares=False))) as begun:
        begun.list_once(list_items([FORMS[kind]]))
        listed = list(begun.pending())
    first = read_item(listed[0][1], MAX_BYTES)
    assert first == png(OLD[0])
    size = os.path.getsize(FORMS[kind])
    write(kind, NEW)
    assert os.path.getsize(FORMS[kind]) == size
    with pytest.raises(InputError, match="was changed after its images were listed"):
        read_item(listed[-1][1], MAX_BYTES)
    anew = list(list_items([FORMS[kind]]))
    assert read_item(anew[0], MAX_BYTES) != first
    Path(FORMS[kind]).write_bytes(b"something else")
    items._cells.cache_clear()
    with pytest.raises(InputError, match="was changed after its images were listed"):
        read_item(anew[0], MAX_BYTES)


def test_a_row_of_a_changed_tar_says_so(monkeypatch):
    write("tar", OLD)
    pending = journal.Journal.pending

    def changed_meanwhile(self):
        for number, item in pending(self):
            if number == 4:
                write("tar", NEW)
            yield number, item

    monkeypatch.setattr(journal.Journal, "pending", changed_meanwhile)
    assert main(["score", "x.tar", *ENTROPY, "--out", "out.csv"]) == 1
    assert all("x.tar was changed after its images were listed" in error for error in scores()[3:])


@pytest.mark.parametrize("writes", [1, 100])
def test_a_file_written_while_it_is_read_is_never_a_mix(monkeypatch, writes):
    """Read again as a whole, or an error."""
    contents = [bytes([65 + number]) * 1000 for number in range(10)]
    Path("a.png").write_bytes(contents[0])
    is_still = stamps.is_still
    written = []

    def write_before_the_check(*words):
        if len(written) < writes:
            written.append(1)
            Path("a.png").write_bytes(contents[len(written)])
        return is_still(*words)

    monkeypatch.setattr(items, "is_still", write_before_the_check)
    if writes == 1:
        assert read_item(Item("a.png"), MAX_BYTES) == contents[1]
    else:
        with pytest.raises(InputError, match=r"a\.png: is being written; wait until it is whole"):
            read_item(Item("a.png"), MAX_BYTES)


def test_a_change_within_a_tick_of_the_clock_is_seen(monkeypatch):
    """The stamp is taken when the last change is so long ago that another one has another time."""
    Path("a.png").write_bytes(b"a")
    changed = os.stat("a.png").st_mtime_ns
    times = iter([changed + 1, changed + stamps.TICK])
    waited = []
    clock = SimpleNamespace(time_ns=lambda: next(times), sleep=waited.append)
    monkeypatch.setattr(stamps, "time", clock)  # its alone: other threads of this process look, too
    with open("a.png", "rb") as file:
        stamps.stamp(file)
    assert waited == [pytest.approx(stamps.TICK / 1e9)]
    with open("a.png", "rb") as file:
        clock.time_ns = lambda: changed - 10**12  # is behind
        stamps.stamp(file)
    assert len(waited) == 1


@pytest.mark.parametrize("kind", ["tar", "csv", "parquet"])
def test_a_source_that_is_being_written_is_one_error(monkeypatch, kind):
    write(kind, OLD)
    listing = list_items([FORMS[kind]])
    if kind == "tar":  # is read as a whole before its first image
        monkeypatch.setattr("pyiqa_ma_agiqa.scoring.inputs.tars.is_still", lambda *words: False)
    else:
        next(listing)
        os.utime(FORMS[kind], ns=(0, 0))
    with pytest.raises(InputError, match=f"{FORMS[kind]}: is being written"):
        list(listing)
