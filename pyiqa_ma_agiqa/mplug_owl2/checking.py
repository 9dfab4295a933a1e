"""Is a folder the model that it should be? Names, shapes and values, where no SHA-256 is known."""

from __future__ import annotations

from pathlib import Path

import torch

from .config import MPlugOwl2Config
from .loading import misfits, stored_tensors
from .model import does_not_fit


def check_folder(folder: Path, config: MPlugOwl2Config) -> None:
    """Refuse a folder whose weights are not those of this architecture, or not all finite.

    Tensors are read one by one, so little memory is taken; 16 GB take a minute or more.

    Raises:
        WeightsError: a file is missing or unreadable, or lists what does not fit.
    """
    stored = stored_tensors(folder, torch.float32)
    problems = misfits(stored, config) or [
        f"{name} has values that are not finite"
        for name, tensor in stored.items()
        if not tensor[...].isfinite().all()
    ]
    if problems:
        raise does_not_fit(folder, problems)
