"""The metrics of this package, written as in `pyiqa.default_model_configs`."""

from typing import Any

ARCHITECTURE = "MAAGIQA"
"""Name of the class in pyiqa's architecture registry."""

CONFIGS: dict[str, dict[str, Any]] = {
    "ma_agiqa": {
        "metric_opts": {"type": ARCHITECTURE, "pretrained": True},
        "metric_mode": "NR",
        "score_range": "~0, ~5",
        "lower_better": False,
    },
}
