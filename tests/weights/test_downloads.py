"""Weights from a real server: whole, or not at all, and one clear error."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pyiqa_ma_agiqa import WeightsError
from pyiqa_ma_agiqa.published import files
from pyiqa_ma_agiqa.published.checkpoint import official_layout
from pyiqa_ma_agiqa.published.files import CHECKPOINT, LANGUAGE_MODEL
from pyiqa_ma_agiqa.weights import downloads
from pyiqa_ma_agiqa.weights.manifest import load_manifest
from pyiqa_ma_agiqa.weights.recorded_hashes import record_of

from ..drive_server import Drive, self_signed
from ..published_nets import constant
from ..weights_server import Server

SHORT_LAYOUT = {name: official_layout()[name] for name in ("fc784_784.weight", "gating.bias")}


@pytest.fixture(autouse=True)
def short_layout(request, monkeypatch):
    """A layout of two tensors, so that no check takes a second; `whole_layout` undoes it."""
    if "whole_layout" not in request.fixturenames:
        monkeypatch.setattr("pyiqa_ma_agiqa.published.checkpoint.official_layout", lambda: SHORT_LAYOUT)


@pytest.fixture
def whole_layout():
    pass


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A file of 2.5 MB with the two tensors."""
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(shape, generator=generator) for name, (shape, _) in SHORT_LAYOUT.items()}
    path = tmp_path_factory.mktemp("source") / "checkpoint.pt"
    torch.save(state, path)
    return path


@pytest.fixture
def server(checkpoint):
    server = Server(checkpoint.read_bytes())
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """pyiqa's cache folder, empty; it does not exist yet."""
    folder = tmp_path / "hub" / "pyiqa"
    monkeypatch.setattr(downloads, "cache_folder", lambda: folder)
    return folder


@pytest.fixture
def source(server, monkeypatch):
    """Makes the manifest name a path of the server as the checkpoint's source."""
    monkeypatch.setattr(downloads, "RETRIES", 1)
    real = files.entry

    def served(path):
        url = path if path.startswith("http") else server.url(path)
        monkeypatch.setattr(
            files, "entry", lambda name: real(name) | ({"url": url} if name == CHECKPOINT else {})
        )

    return served


def whole(path, checkpoint):
    return path.read_bytes() == checkpoint.read_bytes()


def nothing_left(cache):
    left = [path.name for path in cache.iterdir()] if cache.is_dir() else []
    return not [name for name in left if not name.endswith(".lock")]


def test_the_folder_is_pyiqas_also_before_pyiqa_is_imported(monkeypatch):
    from pyiqa.utils.download_util import DEFAULT_CACHE_DIR

    assert downloads.cache_folder() == Path(DEFAULT_CACHE_DIR)
    monkeypatch.delitem(sys.modules, "pyiqa.utils.download_util")
    assert downloads.cache_folder() == Path(DEFAULT_CACHE_DIR)


@pytest.mark.parametrize("path", ["/good", "/slow"])
def test_a_good_file_is_fetched_once_and_its_hash_recorded(server, cache, source, checkpoint, path):
    source(path)
    server.pace = 0.002
    found = files.official_checkpoint()
    assert found == cache / CHECKPOINT and whole(found, checkpoint)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert record_of(found).read_text() == f"{digest}  {CHECKPOINT}\n"
    assert files.official_checkpoint() == found
    assert server.requests[path] == 1


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/truncated", "what came is not the file"),
        ("/flipped", "what came is not the file.*damaged"),
        ("/quota", "what came is not the file"),
        ("/missing", "404"),
    ],
)
def test_what_is_not_the_file_is_one_error_and_leaves_nothing(cache, source, path, reason, checkpoint):
    source(path)
    with pytest.raises(WeightsError, match=rf"(?s)^{CHECKPOINT} \(0.66 GB\) is not here.*{reason}") as caught:
        files.official_checkpoint()
    assert "weights import" in str(caught.value) and "`ma_agiqa` runs without it" in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert nothing_left(cache)
    source("/good")
    assert whole(files.official_checkpoint(), checkpoint), "a later try is not spoilt"


def test_a_source_out_of_reach_is_named(cache, source):
    source("http://127.0.0.1:9/nothing")
    with pytest.raises(
        WeightsError, match=r"Google Drive, file id 1YT9Fryok.*drive\.google\.com/file"
    ) as caught:
        files.official_checkpoint()
    assert "\n" not in str(caught.value)


def test_a_dropped_connection_goes_on_where_it_broke_off(server, cache, source, checkpoint):
    source("/dropped")
    server.drops = 1
    assert whole(files.official_checkpoint(), checkpoint)
    assert server.requests["/dropped"] == 2
    assert server.sent["/dropped"] < 1.2 * len(server.content), "the first half came only once"


def test_a_file_that_changes_later_is_refused(cache, source):
    source("/good")
    path = files.official_checkpoint()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        WeightsError, match=r"its SHA-256 is not .* delete the file and fetch it again"
    ) as caught:
        files.official_checkpoint()
    assert f"or delete {record_of(path)} if its authors have published a new one" in str(caught.value)
    path.unlink()
    assert files.official_checkpoint() == path, "the recorded hash holds for the file that comes again"


def test_a_source_that_has_another_file_than_the_recorded_one_is_refused(cache, source):
    source("/good")
    path = files.official_checkpoint()
    path.unlink()
    record_of(path).write_text(f"{'0' * 64}  {CHECKPOINT}\n")
    with pytest.raises(WeightsError, match=rf"what came is not the file .*delete {record_of(path)} if"):
        files.official_checkpoint()
    assert not path.exists()
    record_of(path).unlink()
    assert files.official_checkpoint() == path


@pytest.mark.parametrize("surplus", [b"", b"longer than the file has become"])
def test_a_part_that_cannot_be_continued_is_not_in_the_way(cache, source, checkpoint, surplus):
    cache.mkdir(parents=True)
    # What a kill leaves behind between the last byte and the renaming, under the name that gdown gives.
    part = cache / f"{CHECKPOINT}.incoming01234567.part"
    part.write_bytes(checkpoint.read_bytes() + surplus)
    source("/good")
    assert whole(files.official_checkpoint(), checkpoint)
    assert not part.exists()


def test_a_part_survives_a_source_out_of_reach(cache, source, server, checkpoint):
    cache.mkdir(parents=True)
    part = cache / f"{CHECKPOINT}.incoming01234567.part"
    part.write_bytes(checkpoint.read_bytes()[:1_000_000])
    for path in ("http://127.0.0.1:9/nothing", "/missing"):
        source(path)
        with pytest.raises(WeightsError, match="cannot be fetched"):
            files.official_checkpoint()
        assert part.stat().st_size == 1_000_000
    source("/good")
    assert whole(files.official_checkpoint(), checkpoint)
    # gdown asks for the file once without a range, and turns that answer away.
    assert server.sent["/good"] < 2 * len(server.content)


def test_a_file_brought_by_hand_is_checked_and_recorded(cache, whole_layout):
    cache.mkdir(parents=True)
    state = {}
    for name, (shape, _) in official_layout().items():
        fixed = constant(name)
        state[name] = torch.zeros(1).expand(shape) if fixed is None else fixed  # one number, repeated
    torch.save(state, cache / CHECKPOINT)
    files.official_checkpoint()
    assert record_of(cache / CHECKPOINT).is_file()
    record_of(cache / CHECKPOINT).unlink()
    torch.save({"something": torch.zeros(2)}, cache / CHECKPOINT)
    with pytest.raises(WeightsError, match=r"missing vit\.cls_token.*Delete that file"):
        files.official_checkpoint()
    assert not record_of(cache / CHECKPOINT).exists()


FETCH = """
import sys
from pathlib import Path
import gdown, requests  # as a fetch does first, which takes a second
from pyiqa_ma_agiqa import WeightsError
from pyiqa_ma_agiqa.weights import downloads
print("ready", flush=True)
try:
    downloads.fetch_file(sys.argv[1], Path(sys.argv[2]), lambda path: None, None)
except WeightsError as error:
    sys.exit(f"refused: {error}")
"""


def fetching(url, path):
    command = [sys.executable, "-c", FETCH, url, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end_well(process):
    """What it prints is read meanwhile: the progress of a slow machine would fill a pipe."""
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error


def test_two_processes_fetch_once(server, tmp_path, checkpoint):
    server.pace = 0.01
    server.held_at = 0  # until both are there
    path = tmp_path / "cache" / CHECKPOINT
    processes = [fetching(server.url("/slow"), path) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    server.held_at = float("inf")
    for process in processes:
        end_well(process)
    assert whole(path, checkpoint)
    assert server.requests["/slow"] == 1


def test_a_kill_in_mid_download_costs_only_what_had_not_come(server, tmp_path, checkpoint):
    path = tmp_path / "cache" / CHECKPOINT
    server.held_at = 1_200_000
    killed = fetching(server.url("/slow"), path)
    deadline = time.monotonic() + 300

    def had():
        return sum(part.stat().st_size for part in path.parent.glob("*.part"))

    while not had():
        assert killed.poll() is None and time.monotonic() < deadline, "nothing came"
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not path.exists()
    assert 0 < had() <= server.held_at + 16384
    server.held_at = float("inf")
    rerun = fetching(server.url("/slow"), path)
    end_well(rerun)
    assert whole(path, checkpoint)
    assert server.requests["/slow"] >= 2
    assert not list(path.parent.glob("*.part"))


def test_a_full_disk_is_said(server, small_disk):
    process = fetching(server.url("/good"), small_disk / CHECKPOINT)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 1
    last = error.strip().splitlines()[-1]
    assert last.startswith(f"refused: {small_disk / CHECKPOINT}: cannot be written (No space left on device)")
    assert "TORCH_HOME" in last
    assert not (small_disk / CHECKPOINT).exists()


def read_only(folder):
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)


def test_a_read_only_cache_serves_what_it_has(small_disk, monkeypatch, source, server):
    state = {name: torch.zeros(1).expand(shape) for name, (shape, _) in SHORT_LAYOUT.items()}
    torch.save(state, small_disk / CHECKPOINT)
    read_only(small_disk)
    monkeypatch.setattr(downloads, "cache_folder", lambda: small_disk)
    source("/good")
    assert files.official_checkpoint() == small_disk / CHECKPOINT
    assert not server.requests


def test_a_read_only_cache_that_lacks_the_file_is_said(small_disk, monkeypatch, source):
    read_only(small_disk)
    monkeypatch.setattr(downloads, "cache_folder", lambda: small_disk)
    source("/good")
    with pytest.raises(WeightsError, match=r"cannot be written \(Read-only file system\)"):
        files.official_checkpoint()


class TestGoogleDrive:
    """The manifest's own address, through a proxy that answers for Google's hosts."""

    @pytest.fixture
    def drive(self, checkpoint, tmp_path, monkeypatch):
        signed = self_signed(tmp_path)
        if signed is None:
            pytest.skip("NOT CHECKED: the pages of Google Drive need the program openssl")
        drive = Drive(checkpoint.read_bytes(), *signed)
        for name in ("no_proxy", "NO_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "CURL_CA_BUNDLE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("https_proxy", drive.url())
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(signed[0]))
        monkeypatch.setattr(downloads, "RETRIES", 1)
        yield drive
        drive.shutdown()
        drive.server_close()

    def test_the_file_comes_from_behind_the_page_that_warns_of_large_files(self, drive, cache, checkpoint):
        drive.drops = 1
        assert whole(files.official_checkpoint(), checkpoint)
        assert drive.sent["/download"] < 1.2 * len(drive.content), "the first half came only once"
        assert drive.requests["/uc"] == 1

    def test_a_spent_quota_is_told_and_its_page_is_not_kept(self, drive, cache, checkpoint):
        drive.spent = True
        with pytest.raises(WeightsError, match=r"Too many users have viewed.*weights import") as caught:
            files.official_checkpoint()
        assert "\n" not in str(caught.value)
        assert nothing_left(cache)
        drive.spent = False
        assert whole(files.official_checkpoint(), checkpoint)


def test_the_manifest_names_both_sources():
    names = {entry["name"] for entry in load_manifest()["files"]}
    assert {CHECKPOINT, LANGUAGE_MODEL} <= names
    assert (
        files.entry(CHECKPOINT)["url"] == "https://drive.google.com/uc?id=1YT9Fryok-ozYPIvT1V3gEnEF-Ij3UxPp"
    )
    assert files.entry(LANGUAGE_MODEL)["hub_id"] == "MAGAer13/mplug-owl2-llama2-7b"
