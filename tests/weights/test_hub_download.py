"""The large model from a hub on this machine, and from folders: whole, or one clear error."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pyiqa_ma_agiqa import WeightsError
from pyiqa_ma_agiqa.published import files
from pyiqa_ma_agiqa.published.files import LANGUAGE_MODEL

from ..tiny_lmm import save_tiny_lmm
from ..weights_server import REVISION, Server

HUB_ID = "MAGAer13/mplug-owl2-llama2-7b"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_lmm(tmp_path_factory.mktemp("model"))


@pytest.fixture
def hub(model):
    server = Server(b"", model)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def ask(hub, tmp_path):
    """`language_model` of the published hub id in a fresh process, with a hub's cache of its own."""

    def asked(code="print(files.language_model(sys.argv[1]))", hub_id=HUB_ID, **variables):
        environ = os.environ | {
            "HF_ENDPOINT": hub.url(),
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DOWNLOAD_TIMEOUT": "300",
            "HF_HUB_ETAG_TIMEOUT": "300",
        }
        frame = (
            # pyiqa takes seconds to import
            "import sys\nfrom pathlib import Path\nfrom pyiqa_ma_agiqa import WeightsError\n"
            "from pyiqa_ma_agiqa.weights import downloads\n"
            "from pyiqa_ma_agiqa.published import files\n"
            f"downloads.cache_folder = lambda: Path({str(tmp_path / 'pyiqa')!r})\n"
            "files.check_language_model = lambda folder: None\n"
            f"try:\n    {code}\nexcept WeightsError as error:\n    sys.exit(f'refused: {{error}}')\n"
        )
        return subprocess.run(
            [sys.executable, "-c", frame, hub_id],
            env=environ | variables,
            capture_output=True,
            text=True,
            timeout=600,
        )

    return asked


def test_comes_from_the_hub_once_and_then_from_its_cache(hub, ask, model):
    done = ask()
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert folder.name == REVISION
    assert {path.name for path in folder.iterdir()} == {path.name for path in model.iterdir()}
    asked = hub.requests.total()
    assert ask().stdout == done.stdout and ask(HF_HUB_OFFLINE="1").stdout == done.stdout
    assert hub.requests.total() == asked, "what is there is taken without asking the hub"


def test_a_dropped_connection_costs_no_file(hub, ask, model):
    hub.drops = 2
    done = ask()
    if done.returncode:  # the library may leave it to the next call
        done = ask()
    assert done.returncode == 0, done.stderr
    for path in Path(done.stdout.strip()).iterdir():
        assert path.read_bytes() == (model / path.name).read_bytes()


def test_offline_without_it_one_error_says_what_to_do(ask):
    done = ask(HF_HUB_OFFLINE="1")
    [line] = done.stderr.strip().splitlines()
    assert line.startswith(f"refused: {LANGUAGE_MODEL} (16.4 GB) is not here")
    assert "hf download" in line and "weights import" in line and "`ma_agiqa` runs" in line


def test_a_hub_out_of_reach_is_the_same_error(ask):
    done = ask(HF_ENDPOINT="http://127.0.0.1:9")
    assert done.stderr.strip().splitlines()[-1].startswith(f"refused: {LANGUAGE_MODEL} (16.4 GB)")


def test_another_id_that_is_not_there_is_named(ask):
    done = ask(hub_id="nobody/nothing", HF_HUB_OFFLINE="1")
    assert "refused: nobody/nothing: cannot be fetched" in done.stderr


def test_a_part_of_it_is_not_taken_for_the_whole(ask, model):
    folder = Path(ask().stdout.strip())
    shard = next(folder.glob("*.bin"))
    shard.resolve().unlink()
    shard.unlink()
    done = ask(HF_HUB_OFFLINE="1")
    assert done.returncode == 1 and "refused:" in done.stderr
    assert Path(ask().stdout.strip()).joinpath(shard.name).is_file(), "the missing one is fetched again"


def test_only_what_is_needed_comes_and_is_found_again(hub, ask, model, tmp_path):
    hub.repository = tmp_path / "repository"
    shutil.copytree(model, hub.repository)
    (hub.repository / "README.md").write_text("# mPLUG-Owl2")
    found = "print(files.language_model(sys.argv[1])); print(files.local_language_model())"
    done = ask(found)
    assert done.returncode == 0, done.stderr
    fetched, local = done.stdout.split()
    assert fetched == local, "files that are not needed need not be there"
    assert {path.name for path in Path(local).iterdir()} == {path.name for path in model.iterdir()}


def test_of_weights_in_two_formats_safetensors_come(hub, ask, model, tmp_path):
    hub.repository = tmp_path / "repository"
    shutil.copytree(model, hub.repository)
    (hub.repository / "model.safetensors").write_bytes(b"any content")
    folder = Path(ask().stdout.strip())
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", *files.SMALL_FILES}
    assert ask(HF_HUB_OFFLINE="1").stdout.strip() == str(folder)


def test_verify_finds_a_changed_file(ask):
    code = "folder = files.language_model(sys.argv[1]); files.verify_language_model(folder); print(folder)"
    done = ask(code)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    shard = next(folder.glob("*.bin")).resolve()
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    done = ask(code)
    assert done.returncode == 1 and f"{shard}: its SHA-256 is not" in done.stderr
    shard.unlink()  # the cure that the error names
    assert ask(code).returncode == 0


def test_a_folder_is_taken_as_it_is_and_must_be_whole(tmp_path):
    model = save_tiny_lmm(tmp_path / "model")
    assert files.language_model(str(model)) == model
    shard = next(model.glob("*.bin"))
    shard.unlink()
    with pytest.raises(WeightsError, match=rf"{shard.name} missing"):
        files.language_model(str(model))
    for path in [*model.glob("*.bin"), *model.glob("*.index.json")]:
        path.unlink()
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin\.index\.json missing"):
        files.language_model(str(model))
    with pytest.raises(WeightsError, match=r"\./nowhere: no such folder"):
        files.language_model("./nowhere")
