"""Start-up file of the processes of the tests: torchvision does without PyTorch's compiler until it needs it.

To import the compiler takes a good part of the seconds that pyiqa takes, and torchvision does so to ask it
one question when an operation of its own is run, which none of the tests does.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

COMPILER = "torch._dynamo"
ASKING, ASKED = "torchvision.ops.roi_align", f"{COMPILER}.utils"


def _later(name: str) -> object:
    return lambda *arguments: getattr(import_module(ASKED), name)(*arguments)


class Finder:
    """Finds one module, and gives it a stand-in for the compiler."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != ASKING or COMPILER in sys.modules:
            return None
        spec = PathFinder.find_spec(name, path)
        stand_in = ModuleType(ASKED)
        stand_in.__getattr__ = _later
        by_itself = spec.loader.exec_module

        def run(module: ModuleType) -> None:
            sys.modules |= {COMPILER: ModuleType(COMPILER), ASKED: stand_in}
            try:
                by_itself(module)
            finally:
                del sys.modules[COMPILER], sys.modules[ASKED]

        spec.loader.exec_module = run
        return spec


sys.meta_path.insert(0, Finder)
