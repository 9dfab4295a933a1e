"""A published mPLUG-Owl2 from a folder into memory, one tensor at a time.

transformers maps whole files into memory and lets go of them when it has read the last tensor. With
16 GB of files that are converted on the way, the process then holds them twice. Here each tensor is
read when transformers asks for it, and no file but the last one stays open.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ..errors import WeightsError
from .config import MPlugOwl2Config
from .model import NEVER_READ, MPlugOwl2Model, does_not_fit

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of an unsharded file; that of a sharded one's index has `.index.json` after it."""
CURE = "fetch the model again"


class StoredTensor:
    """A tensor in a file, read by `stored[...]`, which is how transformers reads safetensors, too."""

    def __init__(
        self, path: Path, name: str, shape: tuple[int, ...], dtype: torch.dtype, opened: LastOpened
    ) -> None:
        self.path, self.name, self.shape, self.dtype, self.opened = path, name, shape, dtype, opened

    def __getitem__(self, index: Any) -> torch.Tensor:
        # A copy, without another in between: a view would keep the file mapped.
        if self.path.suffix == ".safetensors":
            with safe_open(self.path, framework="pt") as file:
                return file.get_tensor(self.name)[index].to(self.dtype, copy=True)
        return self.opened(self.path)[self.name][index].to(self.dtype, copy=True)


class LastOpened:
    """The last ``.bin`` file that was asked for: to open it takes longer than to read many a tensor."""

    def __init__(self) -> None:
        self._last: tuple[Path, dict[str, torch.Tensor]] | None = None
        self._lock = threading.Lock()  # transformers reads in several threads

    def __call__(self, path: Path) -> dict[str, torch.Tensor]:
        with self._lock:
            if self._last is None or self._last[0] != path:
                self._last = None
                self._last = path, _open_bin(path)
            return self._last[1]


def load_folder(folder: Path, dtype: torch.dtype, **options: Any) -> MPlugOwl2Model:
    """Load the model of a folder in the published layout.

    Args:
        folder: with `config.json` and the weights, ``.bin`` or safetensors, sharded or not.
        dtype: of all weights that `options` do not quantise.
        options: of transformers' `from_pretrained`, such as `device_map` and `quantization_config`.

    Raises:
        WeightsError: a file is missing or unreadable, or names or shapes do not fit.
    """
    config = read_config(folder)
    stored = stored_tensors(folder, dtype)
    problems = misfits(stored, config)
    if problems:
        raise does_not_fit(folder, problems)
    return MPlugOwl2Model.from_pretrained(None, config=config, state_dict=stored, dtype=dtype, **options)


def misfits(stored: dict[str, StoredTensor], config: MPlugOwl2Config) -> list[str]:
    """Names and shapes that are not those of the architecture."""
    with torch.device("meta"):
        wanted = {name: tuple(weight.shape) for name, weight in MPlugOwl2Model(config).state_dict().items()}
    problems = [f"missing {name}" for name in wanted if name not in stored]
    problems += [f"unexpected {name}" for name in stored if name not in wanted]
    problems += [
        f"{name} has shape {stored[name].shape}, not {shape}"
        for name, shape in wanted.items()
        if name in stored and stored[name].shape != shape
    ]
    return problems


def read_config(folder: Path) -> MPlugOwl2Config:
    """Read `config.json`.

    Raises:
        WeightsError: it is missing, unreadable or not of mPLUG-Owl2.
    """
    path = folder / CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("model_type") != MPlugOwl2Config.model_type:
            raise WeightsError(
                f"{path}: is of model_type {content.get('model_type')!r}, "
                f"not {MPlugOwl2Config.model_type!r}; {CURE}"
            )
        return MPlugOwl2Config(**content)
    except WeightsError:
        raise
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file; {CURE}") from None
    except Exception as error:  # transformers refuses values by errors of many types
        raise WeightsError(f"{path}: not a configuration of mPLUG-Owl2 ({error}); {CURE}") from None


def weights_files(folder: Path) -> list[Path]:
    """The files that hold the weights: safetensors where both kinds are there.

    Raises:
        WeightsError: there are none, or one that the index names is missing.
    """
    for name in WEIGHTS:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if not index.is_file():
            continue
        try:
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise WeightsError(f"{index}: not an index of weights ({error!r}); {CURE}") from None
        for shard in shards:
            if not (folder / shard).is_file():
                raise WeightsError(f"{folder / shard}: no such file, but {index.name} names it; {CURE}")
        return [folder / shard for shard in shards]
    raise WeightsError(f"{folder}: has neither {WEIGHTS[0]} nor {WEIGHTS[1]}, sharded or not; {CURE}")


def stored_tensors(folder: Path, dtype: torch.dtype) -> dict[str, StoredTensor]:
    """All tensors of the weights files but those that are never read, to be read as this dtype.

    Raises:
        WeightsError: a file is missing or unreadable.
    """
    stored: dict[str, StoredTensor] = {}
    opened = LastOpened()
    for path in weights_files(folder):
        try:
            shapes = _shapes(path)
        except Exception as error:  # truncated or foreign files raise errors of many types
            reason = str(error).splitlines()[0] if str(error) else repr(error)
            raise WeightsError(f"{path}: not a readable weights file ({reason}); {CURE}") from None
        stored |= {name: StoredTensor(path, name, shape, dtype, opened) for name, shape in shapes.items()}
    return {
        name: tensor
        for name, tensor in stored.items()
        if not any(re.search(pattern, name) for pattern in NEVER_READ)
    }


def fingerprint(folder: Path) -> str:
    """Hash that changes with the files: the content of small ones, size and time of the weights.

    Raises:
        WeightsError: a file is missing.
    """
    digest = hashlib.sha256()
    weights = weights_files(folder)
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.model"), *weights]):
        state = path.stat()
        content: object = (state.st_size, state.st_mtime_ns)
        if path not in weights:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.name} {content}\n".encode())
    return digest.hexdigest()


def _open_bin(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return {name: tuple(tensor.shape) for name, tensor in _open_bin(path).items()}
