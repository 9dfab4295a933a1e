"""Files of the published system that cannot be used: one error, whose cure helps."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from pyiqa_ma_agiqa import WeightsError
from pyiqa_ma_agiqa.published import files
from pyiqa_ma_agiqa.weights import downloads

from ..tiny_lmm import save_tiny_lmm

HUB_ID = "MAGAer13/mplug-owl2-llama2-7b"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """pyiqa's cache folder, empty, beside a hub's that is not there, without a network."""
    folder = tmp_path / "hub" / "pyiqa"
    monkeypatch.setattr(downloads, "cache_folder", lambda: folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return folder


def test_a_damaged_file_that_was_deleted_is_looked_for_elsewhere(cache, tmp_path, monkeypatch):
    """As the error for it says: delete the file and fetch it again."""
    model = save_tiny_lmm(tmp_path / "model")
    imported = files.import_language_model(model)
    assert files.language_model(HUB_ID) == files.local_language_model() == imported
    (imported / "pytorch_model-1-of-3.bin").unlink()
    assert files.local_language_model() is None
    monkeypatch.setattr(files, "hub_snapshot", lambda *_: model)
    assert files.language_model(HUB_ID) == model


def test_a_checkpoint_in_another_format_is_not_imported(cache, tmp_path):
    """Its name would say that it is one of PyTorch's."""
    source = tmp_path / "checkpoint.safetensors"
    save_file({"a": torch.zeros(1)}, source)
    with pytest.raises(WeightsError, match=r"checkpoint\.safetensors: is a safetensors file, .*import their"):
        files.import_checkpoint(source)
    assert not files.checkpoint_path().exists()


@pytest.mark.parametrize("name", ["my models/owl2", "größe/x", "a--b/c"])
def test_what_is_neither_a_folder_nor_an_id_is_one_error(cache, name):
    with pytest.raises(WeightsError, match=f"{name}: cannot be fetched from the hub: .*check the id, or"):
        files.language_model(name)
