"""Weights on disk: a model's tensors as they are, in safetensors. No pickle is written or read.

A file may also hold an adaptation: the few tensors in which a model differs from that of the package."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ..errors import WeightsError
from ..weights.manifest import entry
from ..weights.saving import save_tensors
from .shipped import NAME, shipped_weights

ADAPTATION = "ma_agiqa adaptation 1"
"""What the metadata of such a file call its format."""


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the model's tensors."""
    stored = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    temporary = path.with_name(path.name + ".part")
    save_tensors(stored, temporary)
    temporary.replace(path)


def save_adaptation(model: nn.Module, names: Iterable[str], path: Path, **facts: str) -> None:
    """Write the tensors of these names alone, for a model whose others are those of the package's weights.

    Args:
        facts: what else the file is to say of itself.
    """
    state = model.state_dict()
    stored = {name: state[name].detach().contiguous() for name in names}
    save_tensors(stored, path, facts | {"format": ADAPTATION, "adapted_from": entry(NAME)["sha256"]})


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a file of `save_weights`, or one of `save_adaptation` together with the package's weights.

    Raises:
        WeightsError: no such file, not a safetensors file, or an adaptation of other weights.
    """
    state, facts = _read(path)
    if "adapted_from" not in facts:
        return state
    if facts.get("format") != ADAPTATION:
        raise WeightsError(f"{path}: adapted by another version of pyiqa-ma-agiqa; adapt once more")
    if facts["adapted_from"] != entry(NAME)["sha256"]:
        raise WeightsError(
            f"{path}: adapted from other weights than those of this pyiqa-ma-agiqa; adapt once more, or "
            "install the version with which it was made"
        )
    return _read(shipped_weights())[0] | state


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            # Copies, since a tensor of the file itself changes when the file is written anew under it.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such weights file; give the path of a .safetensors file") from None
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path}: not a readable safetensors file ({error}); use a file that `pyiqa-ma-agiqa train` or "
            "`pyiqa-ma-agiqa adapt` wrote"
        ) from None


def load_weights(model: nn.Module, path: Path, assign: bool = False) -> None:
    """Load a file of `read_weights` into the model.

    Args:
        assign: whether the model takes the tensors over, rather than their values.

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
    model.load_state_dict(state, assign=assign)
