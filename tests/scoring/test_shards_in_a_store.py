"""Shards of an S3 store, of a process of its own: failures, refusals, secrets; and a run in which all die."""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet
from s3fs import S3FileSystem

from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.scoring.inputs import storage
from pyiqa_ma_agiqa.scoring.rows import outage
from pyiqa_ma_agiqa.scoring.shards import run, there

from ..command_runs import get_ready, start
from ..s3_server import KEY, SECRET
from .conftest import MACHINE, needs_ray, new_cluster
from .made_shards import ENTROPY, image, make_tar, make_tars, rows, score


@pytest.fixture
def here(tmp_path, monkeypatch, s3):
    monkeypatch.chdir(tmp_path)
    make_tars(tmp_path / "in", 3)
    upload("in", "in")
    yield tmp_path
    s3.fail()


def upload(folder, prefix):
    for file in Path(folder).iterdir():
        storage.write_object(f"s3://images/{prefix}/{file.name}", file.read_bytes())


def stored(prefix):
    """Rows of all parquets below."""
    found = []
    for name in storage.below(f"s3://images/{prefix}"):
        with storage.RangeFile(name) as file:
            found += parquet.read_table(file).to_pylist()
    return sorted(found, key=lambda row: row["path"])


def under(table, before, after):
    return [row | {"path": row["path"].replace(before, after, 1)} for row in table]


def test_from_a_store_to_a_store(here, s3, capsys, request):
    out = f"s3://images/{request.node.name}/"
    score("in/*.tar", out="plain.parquet")
    s3.fail(unavailable=2)
    score("s3://images/in/x-{000..002}.tar", out=out)
    assert under(stored(request.node.name), "s3://images/", "") == rows("plain.parquet")
    make_tar(here / "in" / "x-001.tar", {"new.png": image(30)})
    upload("in", "in")
    score("s3://images/in/*.tar", out=out)
    told = capsys.readouterr()
    assert "1 scored, 2 there already" in told.out and "x-001.tar: was changed; scored again" in told.err
    assert len(stored(request.node.name)) == 9


OTHERWISE = 10
"""Requests of a run that are not for one of its shards: listings, and whether it may write."""


@pytest.mark.parametrize("pattern", ["x-{000..019}.tar", "*.tar"])
def test_a_rerun_sends_one_request_for_a_finished_shard(here, s3, capsys, monkeypatch, pattern):
    out, shards = f"s3://images/{here.name}", 20
    make_tars(here / "many", shards, 1)
    upload("many", here.name + "-in")
    score(f"{out}-in/*.tar", out=out)
    monkeypatch.setattr(there, "FEW", 0)
    before = s3.requests()
    score(f"{out}-in/{pattern}", out=out)
    assert "0 scored, 20 there already" in capsys.readouterr().out
    assert s3.requests() - before <= shards + OTHERWISE
    make_tar(here / "many" / "x-011.tar", {"new.png": image(30)})
    upload("many", here.name + "-in")  # the others anew, with the content that they had
    score(f"{out}-in/{pattern}", out=out)
    told = capsys.readouterr()
    assert "1 scored, 19 there already" in told.out and "x-011.tar: was changed; scored again" in told.err


def test_a_folder_of_few_finished_shards_is_not_listed(here, monkeypatch):
    out = f"s3://images/{here.name}"
    score("s3://images/in/x-{000..002}.tar", out=out)
    listed = []
    by_itself = storage.listed
    monkeypatch.setattr(storage, "listed", lambda folder: listed.append(folder) or by_itself(folder))
    score("s3://images/in/x-{000..002}.tar", out=out)
    assert listed == [out]


def refuse(folder):
    raise PermissionError("as told")


def tell_of_before(folder, by_itself=storage.listed):
    return {name: storage.Facts(facts.size + 9, "old") for name, facts in by_itself(folder).items()}


@pytest.mark.parametrize("listed", [refuse, tell_of_before])
def test_listings_that_are_refused_or_of_before(here, capsys, monkeypatch, listed):
    """Then the shards and their parquets are asked themselves."""
    out = f"s3://images/{here.name}"
    monkeypatch.setattr(there, "FEW", 0)
    score("s3://images/in/*.tar", out=out)
    monkeypatch.setattr(storage, "listed", listed)
    score("s3://images/in/*.tar", out=out)
    assert "0 scored, 3 there already" in capsys.readouterr().out


def test_one_file_of_what_a_store_holds(here):
    """With a journal, as of files here: tars, images, lists, parquets, by name and by folder."""
    images = [image(number) for number in range(3)]
    for number, content in enumerate(images):
        storage.write_object(f"s3://images/loose/{number}.png", content)
    storage.write_object(
        "s3://images/loose/list.csv", b"path\n1.png\ns3://images/in/x-000.tar!/000-001.png\n"
    )
    table = pa.BufferOutputStream()
    parquet.write_table(pa.table({"path": images}), table)
    storage.write_object("s3://images/loose/bytes.parquet", table.getvalue().to_pybytes())
    inputs = ["s3://images/loose/", "s3://images/loose/list.csv", "s3://images/in/x-001.tar"]
    score(*inputs, "s3://images/loose/bytes.parquet", "s3://images/loose/none.png", out="x.parquet", status=1)
    found = {row["path"].rpartition("images/")[2]: row for row in rows("x.parquet")}
    assert len(found) == 3 + 1 + 4 + 3 + 1
    assert found["loose/none.png"]["error"] == "no such file; check the URL"
    assert [row["path"] for row in found.values() if row["error"]] == ["s3://images/loose/none.png"]
    scores = [
        [found[f"loose/{name}{number}"]["score"] for number in range(3)] for name in ("bytes.parquet!/",)
    ]
    assert scores == [[found[f"loose/{number}.png"]["score"] for number in range(3)]]
    score("x.parquet", out="again.parquet", status=1)
    assert rows("again.parquet") == rows("x.parquet")


def test_loose_images_become_blocks_in_a_store(here, request):
    upload("in", "in")
    os.mkdir("images")
    for number in range(3):
        Path("images", f"{number}.png").write_bytes(image(number))
    score("images", "in/x-000.tar", out=f"s3://images/{request.node.name}")
    names = [name.rpartition("/")[2] for name in storage.below(f"s3://images/{request.node.name}")]
    assert len(stored(request.node.name)) == 7 and names[0].startswith("images-00000-")


def test_images_of_several_folders_are_blocks_of_their_own(here, request, capsys):
    """None takes the place of another one's; a folder may grow, images that are given one by one may not."""
    out = f"s3://images/{request.node.name}"
    for folder, number in (("one", 1), ("two", 2)):
        os.mkdir(folder)
        for place in range(2):
            Path(folder, f"{place}.png").write_bytes(image(10 * number + place))
    score("one", out=out)
    score("two", "one/1.png", out=out)
    score("two/0.png", out=out)
    assert len(stored(request.node.name)) == 6
    Path("two", "2.png").write_bytes(image(22))
    score("two", out=out)
    assert "two: was changed; scored again" in capsys.readouterr().err
    assert len(stored(request.node.name)) == 7
    assert main(["score", "two/1.png", *ENTROPY, "--out", out]) == 2
    assert "is of other images; give the folder of the images" in capsys.readouterr().err
    score("two/1.png", "--restart", out=out)
    paths = [row["path"] for row in stored(request.node.name)]
    assert paths == ["one/0.png", "one/1.png", "one/1.png", *(f"two/{n}.png" for n in (0, 1, 1, 2))]


@pytest.mark.parametrize("journal", [True, False])
def test_images_that_a_store_refuses_do_not_end_a_run(here, monkeypatch, journal):
    """As long as another one can be read."""
    monkeypatch.setattr(outage, "IN_A_ROW", 3)
    by_itself = storage.facts

    def facts(url):
        if "refused" in url:
            raise PermissionError(errno.EACCES, "as told")
        return by_itself(url)

    monkeypatch.setattr(storage, "facts", facts)
    storage.write_object("s3://images/own/a.png", image(1))
    names = ["a", *(f"refused{number}" for number in range(8))]
    Path("list.csv").write_text("\n".join(["path", *(f"s3://images/own/{name}.png" for name in names)]))
    out = "x.parquet" if journal else "out"
    score("list.csv", out=out, status=1)
    found = rows(out)
    assert len(found) == 9 and sum("cannot be read (as told)" in row["error"] for row in found) == 8


def test_no_credential_is_told(here, request, capfd):
    url = S3FileSystem().sign("images/in/x-000.tar", expiration=1000)
    missing = url.replace("x-000", "x-{007..008}")
    assert "Signature=" in url and url.startswith("http://127.0.0.1")
    score(url, missing, "--max-bytes", "2000", out="out", status=1)
    assert [row["path"].partition("!/")[0] for row in rows("out")] == [url.partition("?")[0]] * 4
    assert main(["score", url, *ENTROPY, "--out", "x.csv"]) == 2
    assert main(["score", url, *ENTROPY]) == 2
    Path("list.csv").write_text(f"path\n{url}!/000-000.png\n")
    score("list.csv", out="x.csv", status=1)
    assert main(["score", url, *ENTROPY, "--metric", "piqe", "--out", "out"]) == 2
    told = "".join(capfd.readouterr())
    assert "x-007.tar: no such file" in told and "its URL holds what may be a credential" in told
    files = [*Path("out").iterdir(), Path("x.csv"), *Path().glob("*.journal*")]
    for text in (told, *(file.read_bytes().decode(errors="replace") for file in files)):
        assert not [secret for secret in (KEY, SECRET, "Signature=") if secret in text]


def test_a_prefix_that_cannot_be_written(here, s3, capsys):
    s3.fail(denied=1)
    assert main(["score", "in/*.tar", *ENTROPY, "--out", "s3://images/denied"]) == 2
    told = capsys.readouterr().err
    assert "--out s3://images/denied: cannot be written (as told); see to that, then" in told
    assert "shards/s" not in told, "it was known before anything was scored"


def test_a_store_that_goes_away_ends_the_run(here, s3, capsys, monkeypatch):
    monkeypatch.setattr(storage, "PATIENCE", 0.1)
    monkeypatch.setattr(run, "OUTAGE", 2)
    monkeypatch.setattr(S3FileSystem, "retries", 1)  # its own, before ours
    score("s3://images/in/x-000.tar", out="out")
    s3.fail(unavailable=10**6)
    assert main(["score", "s3://images/in/x-{000..009}.tar", *ENTROPY, "--out", "out"]) == 2
    assert "like 2 shards in a row (cannot be read (" in capsys.readouterr().err
    s3.fail()
    score("s3://images/in/*.tar", out="out")
    assert len(rows("out")) == 12


def kinds():
    """An image of every kind the decoder knows, by suffix, and some that are none."""
    levels = np.random.default_rng(0).integers(0, 256, (24, 20, 4), dtype=np.uint8)
    whole = Image.fromarray(levels)
    forms = {
        **{f"{mode}.png": ("PNG", whole.convert(mode)) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")},
        "16.png": ("PNG", Image.fromarray(levels[..., 0].astype(np.uint16) * 256)),
        **{f"{mode}.jpg": ("JPEG", whole.convert(mode)) for mode in ("L", "RGB", "CMYK")},
        **{f"{mode}.tif": ("TIFF", whole.convert(mode)) for mode in ("L", "RGB", "RGBA", "CMYK")},
        "a.webp": ("WEBP", whole),
        "a.gif": ("GIF", whole.convert("P")),
        "a.bmp": ("BMP", whole.convert("RGB")),
        "a.avif": ("AVIF", whole.convert("RGB")),
        "a.jp2": ("JPEG2000", whole.convert("RGB")),
        "a.ppm": ("PPM", whole.convert("RGB")),
        "a.qoi": ("QOI", whole.convert("RGB")),
    }
    found = {"broken.png": image(1)[:200], "none.png": b""}
    for name, (form, picture) in forms.items():
        file = io.BytesIO()
        picture.save(file, form)
        found[name] = file.getvalue()
    return found


LONGEST = 500
"""Seconds that a step may take on a machine that is busy with other things."""
SHARDS = int(os.environ.get("STORE_SHARDS", 10))
SUFFIXES = {0: (".tar.gz", "w:gz"), 1: (".tar.zst", "zst")}
"""Of shards by their number, modulo ten; the others are plain tars."""


def make_all(folder: Path, plain: Path):
    """The shards, and as plain tars what they hold."""
    folder.mkdir()
    plain.mkdir()
    contents = kinds()
    for number in range(SHARDS):
        members = {f"{number:03}/größe-{name}": content for name, content in contents.items()}
        suffix, mode = SUFFIXES.get(number % 10, (".tar", "w"))
        make_tar(folder / f"all-{number:03}{suffix}", members, mode)
        make_tar(plain / f"all-{number:03}.tar", members)


def enter(environment):
    os.environ.update(environment)


@needs_ray
def test_a_run_in_which_a_machine_the_store_and_the_driver_die(tmp_path, s3, monkeypatch):
    """Afterwards every image has one row, that of a plain run, and nothing is half-written.

    The store lets so many parquets be written before each death, so all die in the midst of the run.
    """
    get_ready()
    make_all(tmp_path / "all", tmp_path / "plain")
    upload(tmp_path / "all", "all")
    cluster = new_cluster()
    machine = cluster.add_node(**MACHINE)
    words = ["score", "s3://images/all/*.tar*", *ENTROPY, "--out", "s3://images/made", "--engine", "ray"]
    begin = partial(
        start, tmp_path, *words, before=partial(enter, s3.environment | {"RAY_ADDRESS": cluster.address})
    )
    machine_dies, store_dies, driver_dies = (SHARDS * tenths // 10 for tenths in (1, 3, 6))
    s3.fail(made=machine_dies)
    driver = begin()

    def wait_for(count):
        until = time.monotonic() + LONGEST
        # Not of the parquets is what the driver writes at first, to know whether it can.
        while sum(name.endswith(".parquet") for name in storage.below("s3://images/made")) < count:
            assert driver.is_alive() and time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.2)  # each look takes time of the store's

    try:
        wait_for(machine_dies)
        cluster.remove_node(machine, allow_graceful=False)
        s3.fail(made=store_dies)
        wait_for(store_dies)
        s3.stop()
        time.sleep(0.5)
        s3.start(made=driver_dies)
        wait_for(driver_dies)
        os.kill(driver.pid, signal.SIGKILL)
        driver.join()
        first = {name: storage.facts(name) for name in storage.below("s3://images/made")}
        assert len(first) == driver_dies
        s3.fail()
        driver = begin()
        driver.join(LONGEST)
        assert driver.exitcode == 1, (tmp_path / "log").read_text()  # some images are broken
    finally:
        driver.kill()
        cluster.shutdown()
    monkeypatch.chdir(tmp_path)
    score("plain/*.tar", out="plain.parquet", status=1)
    expected = under(rows("plain.parquet"), "plain/", "s3://images/all/")
    found = stored("made")
    for suffix, _ in SUFFIXES.values():
        found = under(found, f"{suffix}!/", ".tar!/")
    assert len(expected) == SHARDS * len(kinds()) and found == expected
    names = storage.below("s3://images/made")
    assert len(names) == SHARDS and all(name.endswith(".parquet") for name in names)
    assert {name: storage.facts(name) for name in first} == first
    (there,) = re.findall(r"(\d+) there already", (tmp_path / "log").read_text())
    assert driver_dies <= int(there) < SHARDS, "what was there was done once more"
