"""Is a folder the model that it should be? Names, shapes and values, where no SHA-256 is known."""

from __future__ import annotations

from pathlib import Path

import torch

from .config import MPlugOwl2Config
from .loading import stored_tensors
from .model import MPlugOwl2Model, does_not_fit


def check_folder(folder: Path, config: MPlugOwl2Config) -> None:
    """Refuse a folder whose weights are not those of this architecture, or not all finite.

    Tensors are read one by one, so little memory is taken; 16 GB take a minute or more.

    Raises:
        WeightsError: a file is missing or unreadable, or lists what does not fit.
    """
    stored = stored_tensors(folder, torch.float32)
    with torch.device("meta"):
        wanted = {name: tuple(value.shape) for name, value in MPlugOwl2Model(config).state_dict().items()}
    problems = [f"missing {name}" for name in wanted if name not in stored]
    problems += [f"unexpected {name}" for name in stored if name not in wanted]
    for name in wanted.keys() & stored.keys():
        if stored[name].shape != wanted[name]:
            problems.append(f"{name} has shape {stored[name].shape}, not {wanted[name]}")
        elif not stored[name][...].isfinite().all():
            problems.append(f"{name} has values that are not finite")
    if problems:
        raise does_not_fit(folder, problems)
