"""Weights brought by hand, and what is recorded of good ones: nothing is lost, nothing changes unseen."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pyiqa_ma_agiqa import WeightsError
from pyiqa_ma_agiqa.published import files
from pyiqa_ma_agiqa.published.files import LANGUAGE_MODEL
from pyiqa_ma_agiqa.weights import downloads, importing
from pyiqa_ma_agiqa.weights.recorded_hashes import read_record, record_of, write_record

from ..tiny_lmm import save_tiny_lmm, without_one_tensor

HUB_ID = "MAGAer13/mplug-owl2-llama2-7b"


def accept(folder: Path) -> None:
    """A check that finds everything good."""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """pyiqa's cache folder, empty; it does not exist yet."""
    folder = tmp_path / "hub" / "pyiqa"
    monkeypatch.setattr(downloads, "cache_folder", lambda: folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no hub"))
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny_lmm(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def model(tiny, tmp_path):
    """A tiny large model, to be changed at will."""
    return shutil.copytree(tiny, tmp_path / "model")


@pytest.fixture
def reads(monkeypatch):
    """Names of the files whose SHA-256 was taken, for `language_model`."""
    from pyiqa_ma_agiqa.weights import recorded_hashes

    seen = []
    real = recorded_hashes.sha256
    monkeypatch.setattr(recorded_hashes, "sha256", lambda path: seen.append(path.name) or real(path))
    return seen


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def flip(path: Path) -> None:
    """Change one bit; size and time of the last change stay."""
    times = path.stat()
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    while path.stat().st_ctime_ns == times.st_ctime_ns:  # a disk's clock may move on every 10 ms only
        path.write_bytes(changed)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_an_imported_model_takes_the_place_of_the_hub(model, cache):
    imported = files.import_language_model(model)
    assert files.language_model(HUB_ID) == files.local_language_model() == imported == cache / LANGUAGE_MODEL
    assert content(imported) == content(model)
    files.verify_language_model(imported)
    (imported / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"config\.json: its SHA-256 is not"):
        files.verify_language_model(imported)


def test_what_is_not_read_is_not_imported(model, cache):
    (model / "model.safetensors").write_bytes(b"any content")
    (model / "notes.txt").write_text("")
    importing.import_folder(model, files.model_files(model), cache / LANGUAGE_MODEL, accept)
    assert content(cache / LANGUAGE_MODEL).keys() == {"model.safetensors", *files.SMALL_FILES}


def test_an_index_that_names_a_file_elsewhere_is_refused(model, cache):
    (model / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "../outside.bin"}}')
    (model.parent / "outside.bin").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"index\.json: names '\.\./outside\.bin'"):
        files.import_language_model(model)


def test_a_model_that_lacks_a_tensor_is_not_imported(model, cache):
    without_one_tensor(model)
    with pytest.raises(WeightsError, match=r"model: .*missing"):
        files.import_language_model(model)
    assert not (cache / LANGUAGE_MODEL).exists()


def test_another_model_than_the_recorded_one_is_not_imported(model, cache):
    imported = files.import_language_model(model)
    before = content(imported)
    flip(model / "pytorch_model-2-of-3.bin")
    with pytest.raises(WeightsError, match=r"model/pytorch_model-2-of-3\.bin: its SHA-256 is not") as caught:
        files.import_language_model(model)
    assert f"or delete {record_of(imported)} if its authors" in str(caught.value)
    assert content(imported) == before
    record_of(imported).unlink()
    files.import_language_model(model)
    assert content(imported) == content(model)


def test_a_damaged_model_is_replaced_by_a_good_one(model, cache):
    imported = files.import_language_model(model)
    flip(imported / "pytorch_model-1-of-3.bin")
    with pytest.raises(WeightsError, match="its SHA-256 is not"):
        files.language_model(HUB_ID)
    files.import_language_model(model)
    assert files.language_model(HUB_ID) == imported and content(imported) == content(model)


class TestChecksAgain:
    """A model that was found good is read again only when a file is another one."""

    @pytest.fixture
    def imported(self, model, cache):
        """As `files.import_language_model` brings it, but not checked, which takes half a second."""
        place = cache / LANGUAGE_MODEL
        importing.import_folder(model, files.model_files(model), place, accept)
        return place

    def test_nothing_is_read_while_nothing_changes(self, imported, reads):
        assert files.language_model(HUB_ID) == imported
        assert not reads

    def test_without_a_record_all_is_checked_and_recorded(self, imported, reads):
        record_of(imported).unlink()
        files.language_model(HUB_ID)
        assert sorted(reads) == sorted(read_record(imported).hashes) == sorted(content(imported))
        files.language_model(HUB_ID)
        assert len(reads) == len(content(imported))

    def test_a_file_replaced_by_an_older_one_is_seen(self, imported, tmp_path):
        shard = imported / "pytorch_model-3-of-3.bin"
        other = tmp_path / "other.bin"
        shutil.copy2(shard, other)
        flip(other)
        os.utime(other, ns=(1, 1))
        shutil.copy2(other, shard)  # cp -p
        with pytest.raises(WeightsError, match=r"3-of-3\.bin: its SHA-256 is not"):
            files.language_model(HUB_ID)

    def test_a_change_that_keeps_size_and_time_is_seen(self, imported):
        flip(imported / "tokenizer.model")
        with pytest.raises(WeightsError, match=r"tokenizer\.model: its SHA-256 is not"):
            files.language_model(HUB_ID)

    def test_a_file_that_would_be_read_in_place_of_the_checked_ones_is_seen(self, imported):
        (imported / "model.safetensors").write_bytes(b"other weights")
        with pytest.raises(WeightsError, match=r"model\.safetensors: was not there when"):
            files.language_model(HUB_ID)

    def test_a_copy_with_new_times_is_read_once(self, imported, reads):
        for path in imported.iterdir():
            os.utime(path, ns=(1, 1))  # now may be the time that it has: a disk's clock moves on in ticks
        files.language_model(HUB_ID)
        assert len(reads) == len(content(imported))
        files.language_model(HUB_ID)
        assert len(reads) == len(content(imported))

    def test_what_is_not_good_is_not_recorded(self, imported):
        record_of(imported).unlink()
        without_one_tensor(imported)
        with pytest.raises(WeightsError, match=r"missing model\."):
            files.language_model(HUB_ID)
        assert not record_of(imported).exists()

    @pytest.mark.parametrize("damage", ["", "# size, mtime_ns and ctime_ns when they were checked: [1\n"])
    def test_states_that_are_lost_cost_one_reading(self, imported, reads, damage):
        hashes = read_record(imported).hashes
        lines = [f"{digest}  {name}\n" for name, digest in hashes.items()]
        record_of(imported).write_text("".join(lines) + damage)
        files.language_model(HUB_ID)
        files.language_model(HUB_ID)
        assert sorted(reads) == sorted(hashes)

    @pytest.mark.parametrize(
        "damage", [b"\xff\xfe", b"<html>\n", b"0123  config.json\n", b"g" * 64 + b"  config.json\n"]
    )
    def test_a_damaged_record_is_named(self, imported, damage):
        record_of(imported).write_bytes(damage)
        with pytest.raises(
            WeightsError, match=rf"^{record_of(imported)}: not .*; delete it and verify again"
        ):
            files.language_model(HUB_ID)

    def test_a_record_cut_short_admits_no_file_that_it_does_not_name(self, imported):
        lines = record_of(imported).read_text().splitlines(keepends=True)
        record_of(imported).write_text("".join(lines[:2]))
        with pytest.raises(WeightsError, match="was not there when the model was checked"):
            files.language_model(HUB_ID)

    def test_the_record_is_one_that_sha256sum_reads(self, imported):
        if shutil.which("sha256sum") is None:
            pytest.skip("NOT CHECKED: the form of records needs the program sha256sum")
        command = ["sha256sum", "--check", "--strict", str(record_of(imported))]
        done = subprocess.run(command, cwd=imported, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_a_record_that_cannot_be_kept_is_told(model, cache, logged, monkeypatch):
    cache.mkdir(parents=True)
    shutil.copytree(model, cache / LANGUAGE_MODEL)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyiqa_ma_agiqa.weights.recorded_hashes.write_record", full)
    assert files.language_model(HUB_ID) == cache / LANGUAGE_MODEL
    assert any("will be checked at each start" in line for line in logged)


def test_a_record_that_cannot_be_written_leaves_the_old_one_and_no_other(tmp_path, monkeypatch):
    write_record(tmp_path / "file", {"file": "0" * 64})

    def refused(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(OSError):
        write_record(tmp_path / "file", {"file": "1" * 64})
    assert read_record(tmp_path / "file").hashes == {"file": "0" * 64}
    assert len(list(tmp_path.iterdir())) == 1


# Kills, full disks, links -------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path):
    """Two folders with one file each, and where the first of them was imported."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(name * 1000)
    place = tmp_path / "cache" / "model"
    importing.import_folder(tmp_path / "old", ["weights"], place, accept)
    record_of(place).unlink()  # its authors have published a new one
    return tmp_path / "old", tmp_path / "new", place


STEPS = """
import os, sys
from pathlib import Path
from pyiqa_ma_agiqa.weights import importing
left = int(sys.argv[3])
def stepping(event, arguments):
    global left
    if event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "open"):
        if str(arguments[0]).startswith(sys.argv[4]) and (event != "open" or "w" in str(arguments[1])):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), 9)
source, place = Path(sys.argv[1]), Path(sys.argv[2])
sys.addaudithook(stepping)
importing.import_folder(source, ["weights"], place, lambda folder: None)
"""


def test_a_kill_at_any_step_leaves_the_old_or_the_new_one(pair):
    old, new, place = pair
    step, seen = 0, set()
    while True:
        pid = os.fork()
        if not pid:
            try:
                sys.argv = ["", str(new), str(place), str(step), str(place.parent)]
                exec(compile(STEPS, "steps", "exec"), {})
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        assert status in (0, signal.SIGKILL), status
        found = importing.imported_folder(place)
        assert found == place
        text = (place / "weights").read_text()
        assert text in ("old" * 1000, "new" * 1000)
        if status == 0:
            break
        seen.add(text[:3])
        # Back to the start.
        record_of(place).unlink(missing_ok=True)
        importing.import_folder(old, ["weights"], place, accept)
        record_of(place).unlink()
        assert {path.suffix for path in place.parent.iterdir()} <= {"", ".lock", ".part"}
        step += 1
    assert step > 6 and seen == {"old", "new"}
    # Of a record that was being written a few bytes may stay.
    assert {path.suffix for path in place.parent.iterdir()} <= {"", ".lock", ".sha256", ".part"}


def test_a_new_one_that_cannot_be_put_in_place_leaves_the_old_one(pair, monkeypatch):
    _, new, place = pair
    real = Path.rename

    def refused(path, target):
        if path.name.endswith(importing.INCOMING):
            raise OSError(5, "Input/output error")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(WeightsError, match=r"model: cannot be written \(Input/output error\)"):
        importing.import_folder(new, ["weights"], place, accept)
    assert (place / "weights").read_text() == "old" * 1000
    assert {path.suffix for path in place.parent.iterdir()} <= {"", ".lock"}


def test_two_imports_at_once_leave_one_whole_model(pair):
    old, new, place = pair
    sources = [old, new] * 4
    errors = []

    def bring(source):
        try:
            importing.import_folder(source, ["weights"], place, accept)
        except WeightsError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=bring, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The first to come was recorded; the four of the other are not what was.
    assert len(errors) == 4 and all("its SHA-256 is not" in error for error in errors)
    text = (place / "weights").read_text()
    assert text in ("old" * 1000, "new" * 1000)
    digest = read_record(place).hashes["weights"]
    assert importing.sha256(place / "weights") == digest
    assert {path.suffix for path in place.parent.iterdir()} <= {"", ".lock", ".sha256"}


def test_a_full_disk_is_said_and_keeps_what_was_there(small_disk, tmp_path):
    (tmp_path / "source").mkdir()
    source = tmp_path / "source" / "weights"
    source.write_bytes(os.urandom(300_000))
    place = small_disk / "model"
    importing.import_folder(source.parent, ["weights"], place, accept)
    importing.import_file(source, small_disk / "file", accept, None)
    for path in (place, small_disk / "file"):
        record_of(path).unlink()
    before = (place / "weights").read_bytes()
    source.write_bytes(os.urandom(600_000))
    for bring in (
        lambda: importing.import_folder(source.parent, ["weights"], place, accept),
        lambda: importing.import_file(source, small_disk / "file", accept, None),
    ):
        with pytest.raises(WeightsError, match=r"cannot be written \(No space left on device\)"):
            bring()
    assert (place / "weights").read_bytes() == (small_disk / "file").read_bytes() == before
    assert {path.suffix for path in small_disk.iterdir()} <= {"", ".lock"}


def test_a_place_that_is_a_link_is_followed(pair):
    _, new, place = pair
    elsewhere = place.parent.parent / "other disk"
    elsewhere.mkdir()
    place.rename(elsewhere / "large")
    place.symlink_to(elsewhere / "large")
    importing.import_folder(new, ["weights"], place, accept)
    assert place.is_symlink() and (elsewhere / "large" / "weights").read_text() == "new" * 1000
    assert [path.name for path in elsewhere.iterdir()] == ["large"]


def test_the_imported_folder_may_be_imported_again(pair):
    _, _, place = pair
    importing.import_folder(place, ["weights"], place, accept)
    assert (place / "weights").read_text() == "old" * 1000


def test_a_source_that_cannot_be_read_is_named(pair):
    old, _, place = pair
    with pytest.raises(WeightsError, match=r"old/nothing: cannot be read \(No such file"):
        importing.import_folder(old, ["nothing"], place, accept)
    assert (place / "weights").read_text() == "old" * 1000


def test_another_file_than_the_recorded_one_is_not_imported(tmp_path):
    source, place = tmp_path / "source", tmp_path / "cache" / "file"
    source.write_text("one")
    importing.import_file(source, place, accept, None)
    source.write_text("two")
    with pytest.raises(WeightsError, match=r"source: its SHA-256 is not"):
        importing.import_file(source, place, accept, None)
    assert place.read_text() == "one"
