"""The metrics of this package, written as in `pyiqa.default_model_configs`."""

from typing import Any

ARCHITECTURES = {
    "MAAGIQA": "pyiqa_ma_agiqa.compact.arch:MAAGIQA",
    "MAAGIQAOwl2": "pyiqa_ma_agiqa.published.arch:MAAGIQAOwl2",
}
"""The classes by their names in pyiqa's architecture registry, and where they are: the compact family, the
published system. Each is imported when it is asked for, without the other."""


def _config(architecture: str, **options: Any) -> dict[str, Any]:
    return {
        "metric_opts": {"type": architecture, "pretrained": True, **options},
        "metric_mode": "NR",
        "score_range": "~0, ~5",
        "lower_better": False,
    }


CONFIGS: dict[str, dict[str, Any]] = {
    "ma_agiqa": _config("MAAGIQA"),
    "ma_agiqa_owl2": _config("MAAGIQAOwl2"),
    "ma_agiqa_owl2_8bit": _config("MAAGIQAOwl2", dtype="8bit"),
    "ma_agiqa_owl2_4bit": _config("MAAGIQAOwl2", dtype="4bit"),
}
