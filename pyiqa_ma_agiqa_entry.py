"""Entry point of the group `pyiqa.archs`, which pyiqa calls when it looks up any architecture.

It lies outside the package: importing the package adds the metric, and pyiqa looks up
architectures also where PYIQA_MA_AGIQA_DISABLE has turned that off.
"""

from contextlib import suppress

PLACES = {
    "ma_agiqa": "pyiqa_ma_agiqa.compact.arch:MAAGIQA",
    "ma_agiqa_owl2": "pyiqa_ma_agiqa.published.arch:MAAGIQAOwl2",
}
"""Of each family's first metric: its class."""


def register() -> None:
    """Make the classes known by name, unless the package or pyiqa itself has done so."""
    from pyiqa.default_model_configs import DEFAULT_CONFIGS
    from pyiqa.utils.registry import ARCH_REGISTRY

    for metric, place in PLACES.items():
        if metric not in DEFAULT_CONFIGS:
            with suppress(AssertionError):
                ARCH_REGISTRY.register_lazy(place.rpartition(":")[2], place)
