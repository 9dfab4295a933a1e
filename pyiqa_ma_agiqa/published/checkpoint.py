"""The published checkpoint: a plain state_dict, as PyTorch pickle or safetensors.

Pickles are read by PyTorch's restricted unpickler alone, which builds tensors and runs no code
of the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ..errors import WeightsError
from ..weights.saving import save_tensors
from .windows import relative_position_index, shifted_window_mask

LAYOUT = Path(__file__).with_name("layout.json")
SAFETENSORS = ".safetensors"
UNUSED = (
    *("fc39_784.", "encoder_layer.", "fc_output.", "fc4096_784_a.", "fc4096_784_b.", "quality."),
    *("fc784x3_1.", "fc4096_1024_a.", "fc4096_1024_b."),
    *("swintransformer1.downsample.", "swintransformer2.downsample."),
    *("vit.blocks.10.", "vit.blocks.11.", "vit.norm.", "vit.head."),
)
"""Beginnings of the names in the published file that no forward pass reads."""
COMPUTED = {".relative_position_index": relative_position_index, ".attn_mask": shifted_window_mask}
"""Ends of the names of constant tensors, and what they must be."""
LISTED = 8
"""Problems that an error spells out; the rest it counts."""

Layout = dict[str, tuple[tuple[int, ...], str]]
Read = Callable[[], Any]


@cache
def official_layout() -> Layout:
    """Shape and kind ("float" or "int64") of every tensor of the published file, unused ones included."""
    kinds = json.loads(LAYOUT.read_text(encoding="utf-8"))
    return {name: (tuple(shape), kind) for kind, shapes in kinds.items() for name, shape in shapes.items()}


@cache
def used_layout() -> Layout:
    """`official_layout` without the tensors that are never read."""
    return {name: entry for name, entry in official_layout().items() if not name.startswith(UNUSED)}


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Read and check the tensors that the model needs.

    Args:
        path: a state_dict in the published layout; tensors known as unused may be absent.

    Returns:
        Name to tensor, floating point as float32, in memory of their own.

    Raises:
        WeightsError: unreadable file, or names, shapes, types or values that do not fit.
    """
    state = {}
    with _opened(path) as entries:
        problems = _misnamed(entries, used_layout(), allowed=UNUSED)
        for name, read in entries.items():
            if name in used_layout():
                tensor, problem = _checked(name, read())
                if problem:
                    problems.append(problem)
                elif not problems:
                    kind = torch.float32 if tensor.is_floating_point() else tensor.dtype
                    state[name] = tensor.detach().to(kind, copy=True, memory_format=torch.contiguous_format)
    _refuse(path, problems)
    return state


def check_official_file(path: Path) -> None:
    """Check that a file is the published one in all but its values: for a download without a known hash.

    Every name, those of unused tensors included, every shape and kind must be as published, and every
    value finite. Tensors are looked at one by one, so little memory is taken.

    Raises:
        WeightsError: unreadable file, or anything that does not fit.
    """
    with _opened(path) as entries:
        problems = _misnamed(entries, official_layout())
        for name, read in entries.items():
            if name in official_layout():
                _, problem = _checked(name, read())
                problems += [problem] if problem else []
    _refuse(path, problems)


def load_checkpoint(model: nn.Module, path: Path) -> None:
    """Load a checkpoint into a `MAAGIQAOwl2`; a model on the meta device takes the tensors over.

    Raises:
        WeightsError: as `read_checkpoint`.
    """
    state = read_checkpoint(path)
    on_meta = any(parameter.is_meta for parameter in model.parameters())
    # Not strict: the names are checked, and a semantic encoder beside them has weights of its own.
    model.load_state_dict(state, strict=False, assign=on_meta)


def save_checkpoint(model: nn.Module, path: Path) -> None:
    """Write the model in the published layout, without the tensors that are never read.

    Safetensors where the suffix is ``.safetensors``, else a PyTorch file. The file appears whole or
    not at all.
    """
    state = model.state_dict()
    stored = {name: state[name].detach().cpu().contiguous() for name in used_layout()}
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        if path.suffix == SAFETENSORS:
            save_tensors(stored, temporary)
        else:
            torch.save(stored, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _opened(path: Path) -> Iterator[dict[str, Read]]:
    """What a file holds: names, and functions that read the values."""
    try:
        if path.is_dir():
            raise WeightsError(f"{path}: is a folder; give the path of the checkpoint file in it")
        path.open("rb").close()
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such weights file; give the path of a checkpoint") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if path.suffix == SAFETENSORS:
        try:
            file = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise _unreadable(path, error) from None
        with file:
            names = file.keys()
            yield {name: partial(file.get_tensor, name) for name in names}
    else:
        yield {name: partial(_itself, value) for name, value in _unpickle(path).items()}


def _itself(value: Any) -> Any:
    return value


def _unpickle(path: Path) -> Mapping[str, Any]:
    """Content of a PyTorch file, mapped from the disk where its format allows it."""
    try:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # files from before PyTorch 1.6 cannot be mapped
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler fails with errors of many types
        raise _unreadable(path, error) from None
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{path}: holds a {type(content).__name__}, not a state_dict; give the plain state_dict"
        )
    return content


def _unreadable(path: Path, error: Exception) -> WeightsError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return WeightsError(
        f"{path}: not a readable checkpoint ({reason}); it is damaged, cut off or no weights file at all "
        "(a web page, say), so fetch it again"
    )


def _misnamed(names: Mapping[str, Any], layout: Layout, allowed: tuple[str, ...] = ()) -> list[str]:
    extra = [name for name in names if name not in layout and not str(name).startswith(allowed)]
    missing = [name for name in layout if name not in names]
    return [f"unexpected {name}" for name in extra] + [f"missing {name}" for name in missing]


def _checked(name: str, value: Any) -> tuple[torch.Tensor, str | None]:
    """The value, and what is wrong with it."""
    shape, kind = official_layout()[name]
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        return value, f"{name} is not a dense tensor"
    if value.shape != shape:
        return value, f"{name} has shape {tuple(value.shape)}, not {shape}"
    if not (value.is_floating_point() if kind == "float" else value.dtype == torch.int64):
        return value, f"{name} is {value.dtype}, not {kind}"
    if not value.isfinite().all():
        return value, f"{name} has values that are not finite"
    for ending, compute in COMPUTED.items():
        if not name.endswith(ending):
            continue
        with torch.device(value.device):
            wanted = compute()
        if not torch.equal(value.to(wanted.dtype), wanted):
            return value, f"{name} is not that of windows of 4 x 4 on 28 x 28 patches"
    return value, None


def _refuse(path: Path, problems: list[str]) -> None:
    if problems:
        rest = len(problems) - LISTED
        listed = "; ".join(problems[:LISTED]) + (f"; and {rest} more" if rest > 0 else "")
        raise WeightsError(f"{path}: not of the published layout: {listed}")
