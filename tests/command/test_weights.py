"""`pyiqa-ma-agiqa weights`: what it prints, refuses and copies."""

from __future__ import annotations

import pytest
import torch

from pyiqa_ma_agiqa.command import weights
from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.compact import shipped
from pyiqa_ma_agiqa.published import files
from pyiqa_ma_agiqa.published.files import CHECKPOINT, LANGUAGE_MODEL
from pyiqa_ma_agiqa.weights import downloads
from pyiqa_ma_agiqa.weights.manifest import load_manifest
from pyiqa_ma_agiqa.weights.recorded_hashes import read_record, record_of

from ..tiny_lmm import save_tiny_lmm, without_one_tensor


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """pyiqa's cache folder, empty, and a hub's cache without the large model."""
    folder = tmp_path / "pyiqa"
    monkeypatch.setattr(downloads, "cache_folder", lambda: folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return folder


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A file of a layout of two tensors."""
    layout = {"fc784_784.bias": ((784,), "float"), "gating.bias": ((3,), "float")}
    monkeypatch.setattr("pyiqa_ma_agiqa.published.checkpoint.official_layout", lambda: layout)
    path = tmp_path / "carried.pt"
    torch.save({name: torch.ones(shape) for name, (shape, _) in layout.items()}, path)
    return path


def test_list_names_every_entry_and_its_place(capsys, cache):
    assert main(["weights", "list"]) == 0
    printed = capsys.readouterr().out
    for entry in load_manifest()["files"]:
        assert entry["name"] in printed and entry["licence"] in printed
    assert printed.count("not on this machine") == 2
    assert "weights/ma_agiqa.safetensors" in printed
    assert [line.split(maxsplit=1)[1] for line in printed.splitlines() if line.startswith("  size ")] == [
        "92 MB",
        "0.66 GB",
        "16.4 GB",
    ]
    cache.mkdir()
    (cache / CHECKPOINT).write_bytes(b"put there by hand")
    assert main(["weights", "list"]) == 0
    assert capsys.readouterr().out.count("not verified yet") == 1


def test_import_copies_checks_and_records(checkpoint, cache, capsys):
    assert main(["weights", "import", str(checkpoint)]) == 0
    assert (cache / CHECKPOINT).read_bytes() == checkpoint.read_bytes()
    assert record_of(cache / CHECKPOINT).is_file()
    assert capsys.readouterr().out.strip() == str(cache / CHECKPOINT)
    assert files.official_checkpoint() == cache / CHECKPOINT


@pytest.mark.parametrize("content", [b"", b"<html>quota</html>", b"PK\x03\x04 cut"])
def test_import_refuses_what_is_not_the_file_and_keeps_what_was_there(
    checkpoint, cache, tmp_path, capsys, content
):
    main(["weights", "import", str(checkpoint)])
    bad = tmp_path / "bad.pt"
    bad.write_bytes(content)
    capsys.readouterr()
    assert main(["weights", "import", str(bad)]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: {bad}: ")
    assert (cache / CHECKPOINT).read_bytes() == checkpoint.read_bytes()
    assert not [path for path in cache.iterdir() if path.name.endswith(".imported")]


def test_import_of_a_folder_that_is_not_the_large_model(tmp_path, cache, capsys):
    assert main(["weights", "import", str(without_one_tensor(save_tiny_lmm(tmp_path / "model")))]) == 2
    assert "missing model." in capsys.readouterr().err
    assert main(["weights", "import", str(tmp_path / "nothing")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
    assert not (cache / LANGUAGE_MODEL).exists()


def test_verify_tells_good_from_damaged(checkpoint, cache, capsys):
    assert main(["weights", "verify"]) == 0
    printed = capsys.readouterr().out
    assert "ma_agiqa.safetensors: good" in printed and printed.count("not on this machine") == 2
    main(["weights", "import", str(checkpoint)])
    content = bytearray((cache / CHECKPOINT).read_bytes())
    content[len(content) // 2] ^= 1
    (cache / CHECKPOINT).write_bytes(content)
    assert main(["weights", "verify", CHECKPOINT]) == 1
    assert "its SHA-256 is not" in capsys.readouterr().out


def test_verify_of_what_should_be_here_and_is_not(tmp_path, monkeypatch, capsys):
    assert main(["weights", "verify", CHECKPOINT]) == 1
    assert capsys.readouterr().out.strip() == f"{CHECKPOINT}: not on this machine"
    for module in (weights, shipped):
        monkeypatch.setattr(module, "PACKAGE_WEIGHTS_DIR", tmp_path)
    assert main(["weights", "verify"]) == 1
    assert "reinstall" in capsys.readouterr().out


def test_fetch_checks_in_full_what_never_was(tmp_path, monkeypatch, cache, capsys):
    model = without_one_tensor(save_tiny_lmm(tmp_path / "model"))
    monkeypatch.setattr(files, "local_language_model", lambda: model)
    monkeypatch.setattr(files, "language_model", lambda source: model)
    assert main(["weights", "fetch", LANGUAGE_MODEL]) == 2
    assert "missing model." in capsys.readouterr().err
    monkeypatch.setattr(files, "check_language_model", lambda folder: None)
    assert main(["weights", "fetch", LANGUAGE_MODEL]) == 0
    hashes = read_record(cache / LANGUAGE_MODEL).hashes
    assert hashes.keys() == {path.name for path in model.iterdir()}


def test_unknown_names_are_refused(capsys):
    assert main(["weights", "verify", "nothing"]) == 2
    assert "nothing: no such weights; there are ma_agiqa.safetensors" in capsys.readouterr().err


def test_the_module_runs_from_a_wheel_beside_the_folder_of_its_name(installed):
    words = ("weights", "verify", "ma_agiqa.safetensors")
    printed = installed.run("-m", "pyiqa_ma_agiqa.command", *words).stdout
    assert printed.startswith("ma_agiqa.safetensors: good")


@pytest.mark.parametrize(
    ("size", "said"),
    [(512, "512 bytes"), (9_960, "10 kB"), (91_399_552, "91 MB"), (1_240_000_000, "1.2 GB")],
)
def test_sizes_are_for_people(size, said):
    assert weights.readable(size) == said


@pytest.mark.parametrize("command", ["fetch", "verify", "import"])
def test_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit):
        main(["weights", command, "--help"])
    assert f"example: pyiqa-ma-agiqa weights {command} " in capsys.readouterr().out


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit):
        main(["weights", "--help"])
    printed = capsys.readouterr().out
    for command in ("list", "fetch [NAME ...]", "verify [NAME ...]", "import PATH"):
        assert f"pyiqa-ma-agiqa weights {command}\n" in printed
