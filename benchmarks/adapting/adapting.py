"""What do a few ratings of a generator that the model has never seen buy?

    python -m benchmarks.adapting.adapting [--data FOLDER] [--cache FOLDER]

Each generator of AGIQA-3K is taken as new: experts, gate and interval are fitted by the recipe to the
images of the others. Then 20 to 200 of its images, drawn 20 times, count as rated, and SRCC is measured on
the rest of it: of the model as it is, of `adapt`, and of experts fitted to these ratings alone, as `train`
does it. The networks are the shipped ones, which have seen no MOS. What they say is kept in the cache folder
(0.4 GB), so that a second call goes on where the first one stopped. Writes adapting.json beside itself.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.agiqa3k import DEFAULT_DATA
from benchmarks.common.machine import circumstances, write_json
from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.adapting.fitting import of_ratings
from pyiqa_ma_agiqa.adapting.seen import Seen, seen
from pyiqa_ma_agiqa.adapting.strength import STRENGTHS
from pyiqa_ma_agiqa.adapting.validation import srcc
from pyiqa_ma_agiqa.compact.shipped import NAME
from pyiqa_ma_agiqa.training import recipe as recipes
from pyiqa_ma_agiqa.training.checkpoint import claim_folder, files_digest, write_whole
from pyiqa_ma_agiqa.training.closed_form import Rated
from pyiqa_ma_agiqa.training.compact import rated
from pyiqa_ma_agiqa.training.data import DataConfig, Images, Ratings
from pyiqa_ma_agiqa.training.experts_stage import ExpertsStageConfig, fit_experts, predict_experts
from pyiqa_ma_agiqa.training.quality_stage import branch_features
from pyiqa_ma_agiqa.training.summaries import Summaries
from pyiqa_ma_agiqa.weights.manifest import entry

COUNTS = (20, 50, 100, 200)
"""How many ratings there are of a generator."""
DRAWS = 20
RECIPE = Path(recipes.__file__).with_name("agiqa3k.yaml")


@dataclass
class Draw:
    """One draw of ratings: SRCC on the images that are not rated, of three models, and what else there is.

    Attributes:
        shipped, adapted, anew: SRCC of the model as it is, of `adapt`, of experts fitted anew.
        moved: 1 where the experts moved, 0 where only the scale did.
        held: part of the MOS not rated that the adapted interval holds.
        seconds: that `adapt` took after the networks had seen the images.
        seconds_anew: the same of the experts fitted to the ratings alone.
    """

    shipped: float
    adapted: float
    anew: float
    moved: float
    held: float
    seconds: float
    seconds_anew: float


def ratings_of(folder: Path) -> Ratings:
    """AGIQA-3K, with generators and rater deviation."""
    data = recipes.read_recipe(RECIPE).data
    columns = (data.mos_column, str(folder / "splits.csv"), data.split_column)
    of_names = (data.deviation_column, data.generator_pattern)
    return DataConfig(str(folder / "images"), str(folder / "data.csv"), *columns, *of_names).read(test=True)


def everything(model: MAAGIQA, ratings: Ratings, cache: Path) -> np.ndarray:
    """What both networks say of all images, (M, 15104), from the cache folder or computed into it.

    Raises:
        InputError: the cache folder is of other images or weights.
    """
    cache.mkdir(parents=True, exist_ok=True)
    claim_folder(cache, {"images": files_digest(ratings.paths), "weights": entry(NAME)["sha256"]})
    kept = cache / "everything.npy"
    if not kept.exists():
        images, rows = Images(ratings.paths), np.arange(len(ratings.paths))
        summaries = Summaries(model.encoder, cache / "summaries")(images, rows)
        features = branch_features(model.branch, images, rows)
        said = np.concatenate([features, summaries.reshape(len(rows), -1)], 1)
        write_whole(kept, lambda aside: np.save(aside, said))
    return np.load(kept)


def draw(
    model: MAAGIQA, said: np.ndarray, shown: Seen, mos: np.ndarray, count: int, rng: np.random.Generator
) -> Draw:
    """Take some images of one generator as rated.

    Args:
        model: with experts of the other generators; its experts are fitted anew.
        said: (M, 15104), of its images.
        shown: the same images through the eyes of the model.
        mos: (M,).
    """
    order = rng.permutation(len(mos))
    known, new = order[:count], order[count:]
    began = time.perf_counter()
    some = Seen(shown.score[known], shown.half_width[known], shown.inputs[known])
    outcome = of_ratings(some, mos[known].astype(float))
    seconds = time.perf_counter() - began
    adapted = outcome.fitted.predict(shown.score[new], shown.inputs[new] @ some.inputs.T)
    held = np.abs(adapted - mos[new]) <= outcome.widening * shown.half_width[new]

    began = time.perf_counter()
    alone = Rated(mos[known], np.full(count, ""), np.ones(count))
    fit_experts(model, said[known], alone, ExpertsStageConfig())
    anew = predict_experts(model, said[new])
    return Draw(
        srcc(shown.score[new], mos[new]),
        srcc(adapted, mos[new]),
        srcc(anew, mos[new]),
        float(outcome.fitted.strength < STRENGTHS[-1]),
        float(held.mean()),
        seconds,
        time.perf_counter() - began,
    )


def over(draws: list[Draw], of: Callable[[Draw], float]) -> dict[str, float]:
    """Mean over draws, and its standard error."""
    values = np.array([of(one) for one in draws])
    return {"mean": float(values.mean()), "error": float(values.std(ddof=1) / np.sqrt(len(values)))}


def summed_up(draws: list[Draw]) -> dict[str, dict[str, float]]:
    """Each figure, and by how much `adapt` leads."""
    figures = {name: over(draws, lambda one, name=name: getattr(one, name)) for name in vars(draws[0])}
    figures["lead_over_shipped"] = over(draws, lambda one: one.adapted - one.shipped)
    figures["lead_over_anew"] = over(draws, lambda one: one.adapted - one.anew)
    return figures


def mean_draws(by_generator: list[list[Draw]]) -> list[Draw]:
    """Draws of several generators, number by number, as their mean."""
    return [
        Draw(*(float(np.mean([vars(one)[name] for one in same])) for name in vars(same[0])))
        for same in zip(*by_generator, strict=True)
    ]


def measure(
    model: MAAGIQA, said: np.ndarray, ratings: Ratings, experts: ExpertsStageConfig, draws: int = DRAWS
) -> dict[str, Any]:
    """By generator and number of ratings: what `summed_up` says, and of the mean over generators."""
    found: dict[str, list[list[Draw]]] = {}
    before: dict[str, float] = {}
    scratch = copy.deepcopy(model)
    for name in np.unique(ratings.generators):
        own = ratings.generators == name
        others = np.flatnonzero(~own)
        fit_experts(model, said[others], rated(ratings, others, experts.rater_weight), experts)
        shown, mos = seen(model, said[own]), ratings.mos[own]
        before[str(name)] = srcc(shown.score, mos)
        found[str(name)] = [
            [draw(scratch, said[own], shown, mos, count, np.random.default_rng(n)) for n in range(draws)]
            for count in COUNTS
        ]
        print(name, [round(summed_up(some)["adapted"]["mean"], 3) for some in found[str(name)]], flush=True)
    by_count = [mean_draws([of[place] for of in found.values()]) for place in range(len(COUNTS))]
    return {
        "without_ratings": before | {"mean": float(np.mean(list(before.values())))},
        "mean": dict(zip(map(str, COUNTS), map(summed_up, by_count), strict=True)),
        "by_generator": {
            name: dict(zip(map(str, COUNTS), map(summed_up, some), strict=True))
            for name, some in found.items()
        },
    }


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of AGIQA-3K (%(default)s)")
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/adapting"), help="what the networks say (%(default)s)"
    )
    options = parser.parse_args()
    ratings, model = ratings_of(options.data), MAAGIQA()
    said = everything(model, ratings, options.cache)
    result = measure(model, said, ratings, recipes.read_recipe(RECIPE).experts)
    about = {"weights_sha256": entry(NAME)["sha256"], "draws": DRAWS, "images": len(said)}
    write_json(Path(__file__).with_suffix(".json"), circumstances() | about | result)


if __name__ == "__main__":
    main()
