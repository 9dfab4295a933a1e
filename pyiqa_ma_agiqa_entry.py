"""Entry point of the group `pyiqa.archs`, which pyiqa calls when it looks up any architecture.

It lies outside the package: importing the package adds the metric, and pyiqa looks up
architectures also where PYIQA_MA_AGIQA_DISABLE has turned that off.
"""

from contextlib import suppress


def register() -> None:
    """Make the classes known by name, unless the package or pyiqa itself has done so."""
    from pyiqa.default_model_configs import DEFAULT_CONFIGS
    from pyiqa.utils.registry import ARCH_REGISTRY

    for metric, architecture in (("ma_agiqa", "MAAGIQA"), ("ma_agiqa_owl2", "MAAGIQAOwl2")):
        if metric not in DEFAULT_CONFIGS:
            with suppress(AssertionError):
                ARCH_REGISTRY.register_lazy(
                    architecture, f"pyiqa_ma_agiqa.registration.registered:{architecture}"
                )
