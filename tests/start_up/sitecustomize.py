"""Start-up file of the processes of the tests: torchvision and timm do without PyTorch's compiler.

To import the compiler takes a good part of the seconds that pyiqa and timm take. torchvision does so to ask
it one question when an operation of its own is run, which none of the tests does, and timm to have it leave
functions alone. Both can wait until it is there.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"
FRONT = "torch.compiler"
ASKING, ASKED = "torchvision.ops.roi_align", f"{COMPILER}.utils"


def _front(module: ModuleType, by_itself: Callable[[ModuleType], None]) -> None:
    by_itself(module)
    disable = module.disable

    def later(fn: Callable[..., Any] | None = None, *given: Any, **named: Any) -> Callable[..., Any]:
        if COMPILER in sys.modules or fn is None:
            return disable(fn, *given, **named)

        @functools.wraps(fn)
        def left_alone(*args: Any, **kwargs: Any) -> Any:
            call = disable(fn, *given, **named) if COMPILER in sys.modules else fn
            return call(*args, **kwargs)

        return left_alone

    module.disable = later


def _asking(module: ModuleType, by_itself: Callable[[ModuleType], None]) -> None:
    stand_in = ModuleType(ASKED)
    stand_in.__getattr__ = lambda name: lambda *arguments: getattr(import_module(ASKED), name)(*arguments)
    sys.modules |= {COMPILER: ModuleType(COMPILER), ASKED: stand_in}
    try:
        by_itself(module)
    finally:
        del sys.modules[COMPILER], sys.modules[ASKED]


RUN = {FRONT: _front, ASKING: _asking}


class Finder:
    """Finds both modules, and has them do without the compiler."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name not in RUN or COMPILER in sys.modules:
            return None
        spec = PathFinder.find_spec(name, path)
        by_itself = spec.loader.exec_module
        spec.loader.exec_module = lambda module: RUN[name](module, by_itself)
        return spec


sys.meta_path.insert(0, Finder)
