"""What do a few ratings of a generator that the model has never seen buy?

    python -m benchmarks.adapting.adapting [--data FOLDER] [--runs FOLDER]

Each generator of AGIQA-3K is taken as new by the model that the whole recipe makes of the images of the
others; `common/left_out.py` trains these, hours where they are not there. Then 20 to 200 of its images, drawn
20 times, count as rated, and SRCC is measured on the rest of it: of the model as it is, of `adapt`, and of
experts fitted to these ratings alone by the closed form that `train` has. What the networks say is kept in
the folder of the runs. Writes adapting.json beside itself.
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

from benchmarks.common import features, left_out
from benchmarks.common.agiqa3k import DEFAULT_DATA
from benchmarks.common.machine import circumstances, write_json
from benchmarks.common.metrics import own_weights_sha256
from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.adapting.fitting import of_ratings
from pyiqa_ma_agiqa.adapting.seen import Seen, seen
from pyiqa_ma_agiqa.adapting.strength import STRENGTHS
from pyiqa_ma_agiqa.adapting.validation import srcc
from pyiqa_ma_agiqa.training import closed_form
from pyiqa_ma_agiqa.training.data import Ratings
from pyiqa_ma_agiqa.training.experts_stage import ExpertsStageConfig, fit_experts, predict_experts

COUNTS = (20, 50, 100, 200)
"""How many ratings there are of a generator."""
DRAWS = 20


@dataclass
class Draw:
    """One draw of ratings: SRCC on the images that are not rated, of three models, and what else there is.

    Attributes:
        shipped, adapted, anew: SRCC of the model as it is, of `adapt`, of experts fitted anew.
        moved: 1 where the experts moved, 0 where only the scale did.
        held: part of the MOS not rated that the adapted interval holds.
        seconds: that `adapt` took after the networks had seen the images.
    """

    shipped: float
    adapted: float
    anew: float
    moved: float
    held: float
    seconds: float


def fit_alone(model: MAAGIQA, summaries: np.ndarray, mos: np.ndarray) -> None:
    """Fit the experts of a model anew, to some ratings and nothing else.

    Args:
        summaries: (M, 18432).
        mos: (M,).
    """
    count = len(mos)
    no_falls = np.empty((0, summaries.shape[1]), np.float32), np.empty(0, int)
    told = closed_form.Seen(summaries, mos, np.full(count, ""), np.ones(count), *no_falls)
    fit_experts(model, told, ExpertsStageConfig())


def draw(scratch: MAAGIQA, images: features.Seen, shown: Seen, count: int, rng: np.random.Generator) -> Draw:
    """Take some images of one generator as rated.

    Args:
        scratch: a model whose experts are fitted anew.
        images: of the generator.
        shown: the same images through the eyes of the model that has not seen it.
    """
    mos = images.mos
    order = rng.permutation(len(mos))
    known, new = order[:count], order[count:]
    began = time.perf_counter()
    some = Seen(shown.score[known], shown.half_width[known], shown.inputs[known])
    outcome = of_ratings(some, mos[known].astype(float))
    seconds = time.perf_counter() - began
    adapted = outcome.fitted.predict(shown.score[new], shown.inputs[new] @ some.inputs.T)
    held = np.abs(adapted - mos[new]) <= outcome.widening * shown.half_width[new]

    fit_alone(scratch, images.summaries[known], mos[known])
    anew = predict_experts(scratch, images.features[new], images.summaries[new])
    return Draw(
        srcc(shown.score[new], mos[new]),
        srcc(adapted, mos[new]),
        srcc(anew, mos[new]),
        float(outcome.fitted.strength < STRENGTHS[-1]),
        float(held.mean()),
        seconds,
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


def measure(ratings: Ratings, data: Path, runs: Path, draws: int = DRAWS) -> dict[str, Any]:
    """By generator and number of ratings: what `summed_up` says, and of the mean over generators.

    Args:
        ratings: of all generators.
        data: folder of their images.
        runs: folder of the models that were trained without a generator.
        draws: of the ratings, for each number of them.
    """
    found: dict[str, list[list[Draw]]] = {}
    before: dict[str, float] = {}
    for name in map(str, np.unique(ratings.generators)):
        model = left_out.model_without(name, data, runs)
        own = features.of_rows(ratings, np.flatnonzero(ratings.generators == name))
        images = features.seen(model, own, runs)
        shown, scratch = seen(model, images.features, images.summaries), copy.deepcopy(model)
        before[name] = srcc(shown.score, images.mos)
        found[name] = [
            [draw(scratch, images, shown, count, np.random.default_rng(n)) for n in range(draws)]
            for count in COUNTS
        ]
        print(name, [round(summed_up(some)["adapted"]["mean"], 3) for some in found[name]], flush=True)
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
        "--runs", type=Path, default=left_out.DEFAULT_RUNS, help="folder of the runs (%(default)s)"
    )
    options = parser.parse_args()
    ratings = features.official(options.data)
    result = measure(ratings, options.data, options.runs)
    about = {"draws": DRAWS, "images": len(ratings.mos)} | own_weights_sha256()
    write_json(Path(__file__).with_suffix(".json"), circumstances() | about | result)


if __name__ == "__main__":
    main()
