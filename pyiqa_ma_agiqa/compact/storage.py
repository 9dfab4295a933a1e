"""Weights on disk: a model's tensors as they are, in safetensors. No pickle is written or read."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from ..errors import WeightsError


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the model's tensors."""
    stored = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    temporary = path.with_name(path.name + ".part")
    save_file(stored, temporary)
    temporary.replace(path)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a file of `save_weights`.

    Raises:
        WeightsError: no such file, or not a safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            # Copies, since a tensor of the file itself changes when the file is written anew under it.
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such weights file; give the path of a .safetensors file") from None
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path}: not a readable safetensors file ({error}); use a file that `pyiqa-ma-agiqa train` wrote"
        ) from None


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a file of `save_weights` into the model; a model on the meta device takes the tensors over.

    Raises:
        WeightsError: unreadable file, or names, shapes or values that do not fit the model.
    """
    state = read_weights(path)
    wanted = model.state_dict()
    problems = [f"missing {name}" for name in wanted if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in wanted]
    for name in wanted.keys() & state.keys():
        if state[name].shape != wanted[name].shape:
            problems.append(f"{name} has shape {tuple(state[name].shape)}, not {tuple(wanted[name].shape)}")
        elif state[name].dtype != wanted[name].dtype:
            problems.append(f"{name} is {state[name].dtype}, not {wanted[name].dtype}")
        elif state[name].is_floating_point() and not state[name].isfinite().all():
            problems.append(f"{name} has values that are not finite")
    if problems:
        listed = "; ".join(problems[:8]) + ("" if len(problems) <= 8 else f"; and {len(problems) - 8} more")
        raise WeightsError(f"{path}: does not fit {type(model).__name__}: {listed}")
    model.load_state_dict(state, assign=next(iter(wanted.values())).is_meta)
