"""Train ``ma_agiqa`` or ``ma_agiqa_owl2``, or fine-tune them on your own images.

    pyiqa-ma-agiqa train --config recipe.yaml [--out FOLDER] [--test]
    pyiqa-ma-agiqa train --images FOLDER --table ratings.csv --out FOLDER [--metric NAME] [--test]

The first follows a recipe: `training/agiqa3k.yaml` rebuilds the shipped weights of ma_agiqa,
`training/agiqa3k_owl2.yaml` is the published recipe of ma_agiqa_owl2. The second starts from the
metric's own weights. Stages of ma_agiqa: the quality branch; then the experts and the gate in
closed form on what the frozen tower says, joined with the branch at a weight chosen on the val
part. Stages of ma_agiqa_owl2: the semantic vectors, once, from the frozen large model; then all
the rest by gradient descent. Writes ``weights.safetensors`` (for ``pretrained_model_path``) and
``metrics.json`` to the folder.

An interrupted run goes on where it was when called again; with other images, ratings, settings or
start weights a folder is refused. The test part is read only with ``--test``; given to a finished
run, that measures and trains nothing anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import torch

from .agreement import agreement
from .arch import MAAGIQA
from .errors import InputError
from .storage import save_weights
from .training.checkpoint import files_digest, write_json, write_whole
from .training.commit import running_commit
from .training.data import DataConfig, Images
from .training.experts_stage import choose_blend, fit_experts, join_branch, predict_experts
from .training.published import PublishedRecipe, train_published
from .training.quality_stage import (
    QualityRegressor,
    QualityStageConfig,
    branch_features,
    predict_branch,
    train_quality_branch,
)
from .training.recipe import RECIPES, Recipe, StartConfig, read_recipe
from .training.starts import branch_from_wheel, tower_from_wheel
from .training.summaries import Summaries

logger = logging.getLogger(__name__)

FINE_TUNING = QualityStageConfig(epochs=4)
"""Stage 1 on one's own images, from the shipped weights."""


def starting_model(start: StartConfig) -> MAAGIQA:
    """A model that holds the weights to start from; experts and gate are new."""
    if start.tower is None or start.branch is None:
        return MAAGIQA(pretrained=True)
    model = MAAGIQA(pretrained=False)
    model.encoder.tower.load_state_dict(tower_from_wheel(Path(start.tower)))
    network = model.branch.network
    network.load_state_dict(branch_from_wheel(Path(start.branch), list(network.state_dict())))
    return model


def train(recipe: Recipe, test: bool = False) -> dict[str, Any]:
    """Run both stages of ma_agiqa, write weights and metrics, and return the metrics.

    Args:
        recipe: see `Recipe`.
        test: measure on the test part, too; otherwise it is not read.
    """
    began = time.time()
    out = Path(recipe.out)
    ratings = recipe.data.read(test)
    fitted, chosen = ratings.rows("train"), ratings.rows("val")
    images = Images(ratings.paths)
    torch.manual_seed(recipe.experts.seed)
    model = starting_model(recipe.start)

    quality = QualityRegressor(model.branch, float(ratings.mos[fitted].mean()))
    made_of = {"images": files_digest(ratings.paths[row] for row in fitted)}
    quality = train_quality_branch(quality, images, ratings.mos, fitted, chosen, recipe.quality, out, made_of)

    summaries = Summaries(model.encoder, out / "summaries")
    mirrored = summaries(images, fitted, mirrored=True)
    fit_experts(model, summaries(images, fitted), mirrored, ratings.mos[fitted], recipe.experts)
    measured = {}
    for part in ("val", "test") if test else ("val",):
        rows = ratings.rows(part)
        features = branch_features(quality.branch, images, rows)
        measured[part] = summaries(images, rows), features, ratings.mos[rows]
    of_val, features, mos = measured["val"]
    experts, branch = predict_experts(model, of_val), predict_branch(quality, features)
    blend = choose_blend(experts, branch, mos)
    join_branch(model, quality, blend.weight)
    write_whole(out / "weights.safetensors", lambda aside: save_weights(model, aside, recipe.bits))

    metrics: dict[str, Any] = {
        "recipe": dataclasses.asdict(recipe),
        "trained_at_commit": running_commit(),
        "blend": dataclasses.asdict(blend),
        "val_of_the_parts": {"experts": agreement(experts, mos), "branch": agreement(branch, mos)},
        "float32": {
            part: agreement(predict_experts(model, tower, features), mos)
            for part, (tower, features, mos) in measured.items()
        },
        "seconds": round(time.time() - began),
    }
    write_json(out / "metrics.json", metrics)
    return metrics


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module's docstring.

    Raises:
        PluginError: not done; the message says why.
    """
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
    parser.add_argument("--test", action="store_true", help="compute and print figures of the test part, too")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    recipe = _recipe(options)
    try:
        Path(recipe.out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {recipe.out}: cannot be made ({error.strerror}); check the path") from None
    try:
        if isinstance(recipe, PublishedRecipe):
            metrics = train_published(recipe, options.test)
        else:
            metrics = train(recipe, options.test)
    except KeyboardInterrupt:
        print(f"interrupted; the same command goes on with what is in {recipe.out}", file=sys.stderr)
        raise
    print(json.dumps(metrics["float32"], indent=1))


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
    return Recipe(data, options.out, quality=FINE_TUNING)


if __name__ == "__main__":
    from .command.main import main as command

    sys.exit(command(["train", *sys.argv[1:]]))
