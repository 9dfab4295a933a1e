"""mPLUG-Owl2 as an encoder: an image and a prompt in, one vector out.

Reference: Ye et al., *mPLUG-Owl2: Revolutionizing Multi-modal Large Language Model with Modality
Collaboration*, CVPR 2024. Written from its published layout; no code of that project is used, and
nothing of transformers is changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import MPlugOwl2Config
    from .encoder import Owl2Encoder
    from .model import MPlugOwl2Model

__all__ = ["MPlugOwl2Config", "MPlugOwl2Model", "Owl2Encoder"]

_MODULES = {"MPlugOwl2Config": ".config", "MPlugOwl2Model": ".model", "Owl2Encoder": ".encoder"}
"""transformers takes seconds to import, so it is not imported before it is needed."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
