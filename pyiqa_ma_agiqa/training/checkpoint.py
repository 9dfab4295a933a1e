"""Files of a run that appear whole or not at all, and checkpoints that know what they were made of."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ..errors import InputError

MadeOf = dict[str, str]
"""What the content of a file depends on, by the name that a person knows it by."""


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file aside and put it in its place when it is on the disk.

    Args:
        path: of the file.
        write: writes it under the path it is given.

    Raises:
        InputError: the disk is full or the folder cannot be written; the earlier file is left as it was.
    """
    aside = path.with_name(f"{path.stem}.part{path.suffix}")  # some formats go by the suffix
    try:
        write(aside)
        with open(aside, "rb+") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:  # PyTorch says RuntimeError of a full disk
        with suppress(OSError):
            for left in path.parent.glob(aside.name + "*"):
                left.unlink()
        raise unwritable(path, error) from None


def unwritable(path: Path, error: Exception) -> InputError:
    """What to say of a file of a run that cannot be written."""
    return InputError(
        f"{path}: cannot be written ({_first_line(error)}); make room or check the folder's permissions, "
        "then repeat the command, which goes on where it was"
    )


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file as `write_whole` does."""
    write_whole(path, lambda aside: aside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8"))


def write_state(path: Path, parts: Mapping[str, Any], made_of: MadeOf, **rest: Any) -> None:
    """Write the states of parts, and what else there is, as a checkpoint."""
    state = {name: part.state_dict() for name, part in parts.items()}
    write_whole(path, lambda aside: torch.save(state | rest | {"made_of": made_of}, aside))


def read_state(path: Path, parts: Mapping[str, Any], made_of: MadeOf) -> dict[str, Any]:
    """Load the parts from a checkpoint and return what else it holds; nothing where there is none.

    Raises:
        InputError: it is damaged, or was made of something else.
    """
    if not path.exists():
        return {}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        before = state.pop("made_of")
    except Exception as error:  # of many types
        raise _damaged(path, error) from None
    refuse_other(path, before, made_of)
    try:
        for name, part in parts.items():
            part.load_state_dict(state.pop(name))
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise _damaged(path, error) from None
    return state


def refuse_other(path: Path, before: MadeOf, now: MadeOf) -> None:
    """Refuse a file that was made of something else.

    Raises:
        InputError: names what differs.
    """
    differing = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if differing:
        raise InputError(
            f"{path}: of a run with other {', other '.join(differing)}; repeat the command that began it "
            "to go on, give another folder, or delete the file to begin again"
        )


def digest(contents: Iterable[bytes]) -> str:
    """SHA-256 of several contents, which says how they are divided."""
    whole = hashlib.sha256()
    for content in contents:
        whole.update(hashlib.sha256(content).digest())
    return whole.hexdigest()


def files_digest(paths: Iterable[Path]) -> str:
    """SHA-256 of the contents of files, in their order.

    Raises:
        InputError: one cannot be read.
    """
    try:
        return digest(path.read_bytes() for path in paths)
    except OSError as error:
        raise InputError(
            f"{error.filename}: cannot be read ({error.strerror}); put it back and repeat the command"
        ) from None


def state_digest(model: torch.nn.Module) -> str:
    """SHA-256 of a model's tensors with their names."""
    state = model.state_dict()
    tensors = (state[name].detach().cpu().contiguous() for name in sorted(state))
    values = (tensor.reshape(-1).view(torch.uint8).numpy().tobytes() for tensor in tensors)
    return digest([*map(str.encode, sorted(state)), *(hashlib.sha256(value).digest() for value in values)])


def settings_digest(settings: Any) -> str:
    """SHA-256 of settings that JSON can hold."""
    return digest([json.dumps(settings, sort_keys=True).encode()])


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path}: damaged, or written by another version ({_first_line(error)}); delete it to begin again"
    )


def _first_line(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0][:200]
