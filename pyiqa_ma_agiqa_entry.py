"""Entry point of the group `pyiqa.archs`, which pyiqa calls when it looks up any architecture.

It lies outside the package: importing the package adds the metric, and pyiqa looks up
architectures also where PYIQA_MA_AGIQA_DISABLE has turned that off.
"""

from contextlib import suppress


def register() -> None:
    """Make the class known by name, unless the package or pyiqa itself has done so."""
    from pyiqa.default_model_configs import DEFAULT_CONFIGS
    from pyiqa.utils.registry import ARCH_REGISTRY

    if "ma_agiqa" not in DEFAULT_CONFIGS:
        with suppress(AssertionError):
            ARCH_REGISTRY.register_lazy("MAAGIQA", "pyiqa_ma_agiqa.registered:MAAGIQA")
