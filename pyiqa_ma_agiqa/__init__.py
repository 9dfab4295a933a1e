"""The no-reference metrics ``ma_agiqa`` and ``ma_agiqa_owl2`` for AI-generated images, a plugin of pyiqa.

An installed package needs no import: ``pyiqa.create_metric("ma_agiqa")`` finds it. Importing
this module does the same by hand, for instance where the start-up file is turned off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import InputError, WeightsError
from .registration._startup import install
from .registration.plugin import extend_imported
from .version import __version__

if TYPE_CHECKING:
    from .adapting.adaptation import Adaptation, adapt
    from .compact.arch import MAAGIQA
    from .explaining.explanation import Explanation, explain

__all__ = [
    "MAAGIQA",
    "Adaptation",
    "Explanation",
    "InputError",
    "WeightsError",
    "__version__",
    "adapt",
    "explain",
]

_LAZY = {
    "Adaptation": ".adapting.adaptation",
    "adapt": ".adapting.adaptation",
    "MAAGIQA": ".compact.arch",
    "Explanation": ".explaining.explanation",
    "explain": ".explaining.explanation",
}
"""Names whose modules import torch."""

install()
extend_imported()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
