"""``pyiqa-ma-agiqa train``: train, or fine-tune on your own images."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from ..training.published import PublishedRecipe
    from ..training.recipe import Recipe

DESCRIPTION = """\
Train ma_agiqa or ma_agiqa_owl2, or fine-tune them on your own images.

    pyiqa-ma-agiqa train --config recipe.yaml [--split COLUMN] [--out FOLDER] [--test]
    pyiqa-ma-agiqa train --images FOLDER --table ratings.csv --out FOLDER [--metric NAME] [--test]

The first follows a recipe: training/agiqa3k.yaml of the package rebuilds the shipped weights of ma_agiqa,
training/agiqa3k_owl2.yaml is the published recipe of ma_agiqa_owl2. The second starts from the metric's
own weights. Of ma_agiqa, the quality branch is tuned where the recipe has epochs for it, as it has on your
own images; then experts, gate and interval are fitted in closed form on what the networks say. Of
ma_agiqa_owl2, the frozen large model makes the semantic vectors, once; then all the rest is trained by
gradient descent. Writes weights.safetensors (for pretrained_model_path), metrics.json and log.txt to the
folder.

An interrupted run goes on where it was when called again; with other images, ratings, start weights or
settings of the branch a folder is refused. The test part is read only with --test; given to a finished run,
that measures and trains nothing anew."""
METRICS = ("ma_agiqa", "ma_agiqa_owl2")


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of argparse."""
    parser = commands.add_parser(
        "train",
        help="train or fine-tune the metric",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, help="YAML recipe")
    parser.add_argument("--images", help="folder of images (instead of the recipe's)")
    parser.add_argument(
        "--table", help="CSV with columns name, mos and optionally split (instead of the recipe's)"
    )
    parser.add_argument("--split", metavar="COLUMN", help="column of the split (instead of the recipe's)")
    parser.add_argument(
        "--metric", choices=METRICS, default="ma_agiqa", help="which one to fine-tune, without --config"
    )
    parser.add_argument("--out", help="folder for checkpoints, weights and metrics (instead of the recipe's)")
    parser.add_argument("--test", action="store_true", help="compute and print figures of the test part, too")


def run(options: argparse.Namespace) -> int:
    """Train; returns the exit status.

    Raises:
        PluginError: not done; the message says why.
    """
    from ..training.compact import train
    from ..training.published import PublishedRecipe, train_published

    recipe = _recipe(options)
    try:
        Path(recipe.out).mkdir(parents=True, exist_ok=True)
        log = logging.FileHandler(Path(recipe.out, "log.txt"), encoding="utf-8")
    except OSError as error:
        why = f"cannot be written ({error.strerror}); check the path"
        raise InputError(f"--out {recipe.out}: {why}") from None
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", handlers=[logging.StreamHandler(), log]
    )
    try:
        if isinstance(recipe, PublishedRecipe):
            metrics = train_published(recipe, options.test)
        else:
            metrics = train(recipe, options.test)
    except KeyboardInterrupt:
        print(f"interrupted; the same command goes on with what is in {recipe.out}", file=sys.stderr)
        raise
    print(json.dumps(metrics["agreement"], indent=1))
    return 0


def _recipe(options: argparse.Namespace) -> Recipe | PublishedRecipe:
    from ..training.compact import FINE_TUNING
    from ..training.data import DataConfig
    from ..training.published import PublishedRecipe
    from ..training.recipe import Recipe, read_recipe

    given = {name: getattr(options, name) for name in ("images", "table") if getattr(options, name)}
    if options.split:
        given["split_column"] = options.split
    if options.config:
        recipe = read_recipe(options.config)
        recipe.data = dataclasses.replace(recipe.data, **given)
        recipe.out = options.out or recipe.out
        return recipe
    if not (options.images and options.table and options.out):
        raise InputError("give --config, or --images, --table and --out")
    data = DataConfig(**given)
    if options.metric == "ma_agiqa_owl2":
        return PublishedRecipe(data, options.out)
    return Recipe(data, options.out, quality=FINE_TUNING)
