"""Weights that were trained by one may be read by all."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors import safe_open

from pyiqa_ma_agiqa.weights.saving import save_tensors


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_a_file_has_the_permissions_that_the_umask_gives(tmp_path, umask, mode):
    path = tmp_path / "weights.safetensors"
    before = os.umask(umask)
    try:
        save_tensors({"bias": torch.arange(3)}, path, {"format": "pt"})
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == mode
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"} and file.get_tensor("bias").tolist() == [0, 1, 2]
