"""Runs `plugin.extend` as the last step of the import of a pyiqa module; `_startup.py` asks for it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from threading import get_ident
from types import ModuleType
from typing import Any

from .plugin import extend

_searching: set[tuple[int, str]] = set()


def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
    """Spec that the other finders give for the module, its loader extended."""
    search = get_ident(), name
    if search in _searching:  # another finder asks all finders, as this one does
        return None
    _searching.add(search)
    try:
        spec = _others_spec(name, path, target)
    finally:
        _searching.discard(search)
    if spec is not None and hasattr(spec.loader, "exec_module"):
        spec.loader = ExtendingLoader(spec.loader)
    return spec


def _others_spec(name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
    for finder in list(sys.meta_path):
        if hasattr(finder, "find_spec") and not hasattr(finder, "extends_pyiqa"):
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                return spec
    return None


class ExtendingLoader(Loader):
    """The loader it is given, plus our entries once the module has run.

    It takes itself out of the module first, so that nothing of it is seen afterwards.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        if name == "loader":  # not yet set, as in a copy
            raise AttributeError(name)
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        self.loader.exec_module(module)
        try:
            extend(module)
        except Exception as error:  # our fault must not be pyiqa's
            warnings.warn(f"the metric ma_agiqa is not available: {error!r}", RuntimeWarning, stacklevel=2)
