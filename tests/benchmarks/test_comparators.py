"""pyiqa's metrics with random weights that come from files, as those of a download do."""

from __future__ import annotations

import inspect
import socket
from pathlib import Path
from types import SimpleNamespace

import pyiqa
import pytest
import timm
import torch
from pyiqa.archs import clip_model
from pyiqa.default_model_configs import DEFAULT_CONFIGS
from pyiqa.utils.registry import ARCH_REGISTRY
from safetensors.torch import load_file
from torchvision import models

from benchmarks.speed import comparators, random_files


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refused(*_, **__):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


def test_a_metric_reads_the_file_that_its_first_call_wrote(tmp_path):
    written = comparators.create_random("cnniqa", "cpu", tmp_path)
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    state = torch.load(file)["params"]
    assert file.stat().st_size > 4 * sum(value.numel() for value in state.values())
    state["conv1.bias"] = torch.full_like(state["conv1.bias"], 123.0)
    torch.save({"params": state}, file)
    read = comparators.create_random("cnniqa", "cpu", tmp_path)
    assert (read.net.conv1.bias == 123).all() and not (written.net.conv1.bias == 123).any()
    assert torch.equal(read.net.conv1.weight, written.net.conv1.weight)
    assert torch.isfinite(read(torch.rand(1, 3, 64, 64))).all()


def test_libraries_read_what_was_written_for_them(tmp_path):
    """timm's files, torchvision's and CLIP's, the last with its check of the SHA-256."""
    tiny = {"embed_dim": 8, "vision_layers": (1, 1, 1, 1), "vision_width": 16, "vision_patch_size": None}
    tiny |= {"transformer_width": 64, "transformer_heads": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(random_files.CLIPS, "RN50", tiny)
        for _ in range(2):
            with random_files.random_files(tmp_path):
                backbone = timm.create_model("resnet10t", pretrained=True, features_only=True)
                squeeze = models.squeezenet1_1(weights="IMAGENET1K_V1")
                clip = clip_model.load("RN50", "cpu")
    files = {path.suffix: path for path in tmp_path.rglob("*") if path.is_file()}
    assert set(files) == {".safetensors", ".pth", ".pt", ".sha256"}
    kept = torch.load(files[".pth"])
    assert torch.equal(kept["features.0.weight"], squeeze.state_dict()["features.0.weight"])
    archive = torch.jit.load(files[".pt"]).state_dict()
    assert archive["visual.conv1.weight"].dtype == torch.float16
    assert torch.equal(archive["visual.conv1.weight"].float(), clip.visual.conv1.weight)
    stem = next(value for key, value in backbone.state_dict().items() if key.endswith("0.weight"))
    assert torch.equal(stem, load_file(files[".safetensors"])["conv1.0.weight"])


def test_arniqa_reads_its_encoder_and_its_scripted_regressor(tmp_path):
    metric = comparators.create_random("arniqa", "cpu", tmp_path)
    encoder = torch.load(next(tmp_path.rglob("ARNIQA.pth")))
    regressor = torch.jit.load(next(tmp_path.rglob("regressor_koniq10k.pth")))
    assert torch.equal(metric.net.encoder[0].weight, encoder["model.0.weight"])
    assert torch.equal(metric.net.regressor.weight, regressor.weight)
    assert metric(torch.rand(1, 3, 64, 64)).isfinite().all()


def test_what_no_file_is_known_for_is_an_error_and_all_is_as_before(tmp_path):
    before = torch.hub.get_dir(), timm.create_model, torch.hub.download_url_to_file
    with pytest.raises(OSError, match=r"no random weights are known for .*brisque"):
        comparators.create_random("brisque", "cpu", tmp_path)
    with random_files.random_files(tmp_path), pytest.raises(OSError, match="CLIP RN101: not among RN50"):
        clip_model.load("RN101", "cpu")
    assert (torch.hub.get_dir(), timm.create_model, torch.hub.download_url_to_file) == before


def test_a_file_is_whole_when_it_is_there(tmp_path):
    def stops(content, path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        random_files._write(tmp_path / "file", dict, stops)
    assert not (tmp_path / "file").exists()
    random_files._write(tmp_path / "file", lambda: {"a": 1})
    assert torch.load(tmp_path / "file") == {"a": 1}


def test_peers_are_learned_metrics_of_pyiqa_each_of_its_own_architecture():
    known = pyiqa.list_models(metric_mode="NR")
    assert set(comparators.PEERS) <= set(known) and "ma_agiqa" not in comparators.PEERS
    assert len(set(comparators.PEERS)) == len(comparators.PEERS)


@pytest.mark.parametrize(("name", "crops"), [("maniqa", 20), ("hyperiqa", 25), ("cnniqa", 1)])
def test_crops_are_told(name, crops):
    """Under the names that pyiqa's architectures take them by, with their defaults."""
    comparators.import_architecture(name)
    kind = ARCH_REGISTRY.get(DEFAULT_CONFIGS[name]["metric_opts"]["type"])
    defaults = {key: value.default for key, value in inspect.signature(kind).parameters.items()}
    kept = {key: value for key, value in defaults.items() if key in comparators.CROPS}
    assert comparators.crops_of(SimpleNamespace(net=SimpleNamespace(**kept))) == crops
