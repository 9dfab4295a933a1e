"""Adds the metrics, their classes, a data set and our reader to pyiqa; imports neither pyiqa nor torch.

pyiqa asks its table of metric names before any registry, and that table has no entry points.
So `_startup.py` calls `extend` when one of the modules of `EXTENSIONS` has been imported.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from contextlib import suppress
from copy import deepcopy
from types import ModuleType
from typing import Any

from .agiqa3k import register as register_dataset
from .configs import ARCHITECTURES, CONFIGS

CONFIG_MODULE = "pyiqa.default_model_configs"
REGISTRY_MODULE = "pyiqa.utils.registry"
INFERENCE_MODULE = "pyiqa.models.inference_model"
PLACED = "_pyiqa_ma_agiqa"
"""Attribute of `CONFIG_MODULE`, which outlives reloads of this module: for each of our names the
entry placed in the table, or None where pyiqa has a metric of that name itself."""


def extend(module: ModuleType) -> None:
    """Add to one of pyiqa's modules what belongs there. Safe to repeat.

    Args:
        module: one of those that `EXTENSIONS` names, after its import.
    """
    EXTENSIONS[module.__name__](module)


def extend_imported() -> None:
    """Do the same for those of the modules that this process has imported already."""
    for name in EXTENSIONS:
        if sys.modules.get(name) is not None:
            # import_module, not sys.modules: another thread may still be running the module.
            extend(importlib.import_module(name))


def _add_configs(module: ModuleType) -> None:
    table: dict[str, Any] | None = getattr(module, "DEFAULT_CONFIGS", None)
    if table is None:
        return
    placed = module.__dict__.setdefault(PLACED, {})
    for name, config in CONFIGS.items():
        if name not in table:
            table[name] = placed[name] = deepcopy(config)
        elif name not in placed:
            placed[name] = None
            warnings.warn(
                f"pyiqa has a metric {name} of its own; pyiqa-ma-agiqa leaves it as it is and is not used",
                RuntimeWarning,
                stacklevel=2,
            )


def _add_architectures(module: ModuleType) -> None:
    registry = getattr(module, "ARCH_REGISTRY", None)
    if registry is None:
        return
    placed = getattr(sys.modules.get(CONFIG_MODULE), PLACED, {})
    theirs = {CONFIGS[name]["metric_opts"]["type"] for name, entry in placed.items() if entry is None}
    for architecture, place in ARCHITECTURES.items():
        if architecture not in theirs:
            with suppress(AssertionError):  # registered before, by us or by pyiqa, which then keeps its own
                registry.register_lazy(architecture, place)


def _add_classes(module: ModuleType) -> None:
    _add_architectures(module)
    register_dataset(module)


def _guard_reader(module: ModuleType) -> None:
    model: type | None = getattr(module, "InferenceModel", None)
    if model is None:
        return
    from .inference_guard import guard  # imports torch, as pyiqa has by now

    placed = getattr(sys.modules.get(CONFIG_MODULE), PLACED, {})
    guard(model, {name for name, entry in placed.items() if entry is not None})


EXTENSIONS = {
    CONFIG_MODULE: _add_configs,
    REGISTRY_MODULE: _add_classes,
    INFERENCE_MODULE: _guard_reader,
}
