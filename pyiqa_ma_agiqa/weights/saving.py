"""Writing of safetensors files that others may read, too."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file


def save_tensors(tensors: dict[str, torch.Tensor], path: Path, facts: dict[str, str] | None = None) -> None:
    """Write tensors under a name that is not taken, with the permissions that the umask gives.

    safetensors gives them to the file's owner alone, so that a colleague could not use the weights.

    Args:
        facts: what the file is to say of itself.
    """
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, facts)
    path.chmod(mode)
