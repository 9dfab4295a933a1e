"""Weights on disk: safetensors, matrices as small integers with a scale for each row.

A matrix W is stored as integers q and one float32 scale for each output row,
W = q * scale; everything else as it is. No pickle is written or read.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from ..errors import WeightsError

SCALE = ".scale"
"""Suffix of the tensor that holds the scales of a stored matrix."""
SMALLEST = 4096
"""Matrices with fewer values stay float32."""
EXACT = ("quality_expert.", "semantic_expert.", "coherence_expert.", "experts.")
"""Small tensors whose columns differ by orders of magnitude stay float32 too."""


def quantise(matrix: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric integers of the given width (at most 8) and scales (rows,), one for each row."""
    top = 2 ** (bits - 1) - 1
    rows = matrix.detach().float().flatten(1)
    scale = rows.abs().amax(1).clamp_min(1e-12) / top
    return (rows / scale[:, None]).round().to(torch.int8).reshape(matrix.shape), scale


def dequantise(integers: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return integers.float() * scale.view(-1, *[1] * (integers.dim() - 1))


def save_weights(model: nn.Module, path: Path, bits: int | None = 8) -> None:
    """Write the model's state_dict; ``bits=None`` keeps every tensor float32."""
    stored = {}
    for name, tensor in model.state_dict().items():
        if bits and tensor.dim() >= 2 and tensor.numel() >= SMALLEST and not name.startswith(EXACT):
            stored[name], stored[name + SCALE] = quantise(tensor, bits)
        else:
            stored[name] = tensor.detach().contiguous()
    temporary = path.with_name(path.name + ".part")
    save_file(stored, temporary)
    temporary.replace(path)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a file of `save_weights` as float32 tensors.

    Raises:
        WeightsError: no such file, or not a safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            state = {}
            for name in sorted(names):
                if name.endswith(SCALE) and name.removesuffix(SCALE) in names:
                    continue
                tensor = file.get_tensor(name)
                if name + SCALE in names:
                    tensor = dequantise(tensor, file.get_tensor(name + SCALE))
                state[name] = tensor
            return state
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
        elif not state[name].isfinite().all():
            problems.append(f"{name} has values that are not finite")
    if problems:
        listed = "; ".join(problems[:8]) + ("" if len(problems) <= 8 else f"; and {len(problems) - 8} more")
        raise WeightsError(f"{path}: does not fit {type(model).__name__}: {listed}")
    model.load_state_dict(state, assign=next(iter(wanted.values())).is_meta)
