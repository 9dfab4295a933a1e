"""By which rule was the recipe chosen, and what do other settings make of it?

    python -m benchmarks.unseen.choices [--data FOLDER] [--runs FOLDER]

The rule. Known generators: (SRCC + PLCC) / 2 on val of `official`, fitted on train. Unseen generators:
(mean + pooled SRCC) / 2, each of the six predicted by a fit to the others. A setting is judged by the sum
of the two; less than .0005 is no difference. What the recipe has gives way to the best value where that is
better, else to the value that does without the thing where that is no worse. One setting gives way at a
time, the one that gains most first, until none does. No fit to train is ever asked for the test part.

Each setting is changed by itself; all else stays as the recipe has it, the values of the gate and what the
branch predicts, too: both are of the model trained for the fold, by `common/left_out.py`, or shipped. The
closed form is fitted again for each value, without the degraded copies. Writes choices.json beside itself.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.common.features import official, summaries_of
from benchmarks.common.folds import Fold, folds
from benchmarks.common.left_out import model_of, parser_of_runs, shipped_recipe
from benchmarks.common.lights import BY_FAMILIARITY, CLOSED, OPEN, Images, Variant, both_lights, predicted
from benchmarks.common.machine import circumstances, write_json
from benchmarks.common.metrics import own_weights_sha256
from benchmarks.unseen.unseen_tables import LEAST
from pyiqa_ma_agiqa import MAAGIQA

WITHOUT = {
    "early_weight": 0.0,
    "class_weight": 1.0,
    "generator_variance": 0.0,
    "rater_weight": 0.0,
    "gate": OPEN,
    "blend": 0.0,
}
"""The value that does without a thing."""
SETTINGS: dict[str, tuple[Any, ...]] = {
    "early_weight": (0.0, 0.1, 0.3, 1.0),
    "class_weight": (1.0, 2.0, 4.0),
    "generator_variance": (0.0, 0.003, 0.01, 0.03, 0.1),
    "rater_weight": (0.0, 0.5, 1.0),
    "ridge": (0.25, 0.5, 0.7, 1.0, 2.0),
    "gate": (CLOSED, OPEN, BY_FAMILIARITY),
    "blend": (0.0, 0.15, 0.25, 0.4),
}
"""Values of each setting."""


Value = TypeVar("Value")


def value_of(recipe: Variant, setting: str) -> Any:
    """What the recipe has."""
    return getattr(recipe if setting in ("gate", "blend") else recipe.config, setting)


def changed(recipe: Variant, setting: str, value: Any) -> Variant:
    """The recipe with one setting changed."""
    if setting in ("gate", "blend"):
        return dataclasses.replace(recipe, **{setting: value})
    return dataclasses.replace(recipe, config=dataclasses.replace(recipe.config, **{setting: value}))


def judged(images: Images, fold: dict[str, Fold], variant: Variant) -> dict[str, float]:
    """The two figures of the rule, their sum, and what they are made of."""
    found = both_lights(images.ratings, fold, lambda one: predicted(images, one, variant))
    val, unseen = found["val"], found["unseen"]
    of_known, of_unseen = (val["srcc"] + val["plcc"]) / 2, (unseen["mean_srcc"] + unseen["pooled_srcc"]) / 2
    return val | unseen | {"known": of_known, "unseen": of_unseen, "sum": of_known + of_unseen}


def winner(sums: dict[Value, float], used: Value, without: Value | None = None) -> Value:
    """The value that the rule takes.

    Args:
        sums: by value.
        used: the recipe's.
        without: the one that does without the thing.
    """
    best = max(sums, key=lambda value: sums[value])
    if sums[best] - sums[used] >= LEAST:
        return best
    return without if without in sums and sums[used] - sums[without] < LEAST else used


def measure(
    images: Images, fold: dict[str, Fold], recipe: Variant, settings: dict[str, tuple[Any, ...]]
) -> dict[str, dict[str, Any]]:
    """By setting: figures by value, what the rule takes and what the recipe has."""
    whole = judged(images, fold, recipe)
    found = {}
    for setting, values in settings.items():
        used = value_of(recipe, setting)
        rows = {
            str(value): whole if value == used else judged(images, fold, changed(recipe, setting, value))
            for value in values
        }
        sums = {value: row["sum"] for value, row in rows.items()}
        chosen = winner(sums, str(used), str(WITHOUT[setting]) if setting in WITHOUT else None)
        found[setting] = {"values": rows, "chosen": chosen, "recipe": str(used)}
        print(setting, json.dumps(sums), flush=True)
    return found


def main() -> None:
    """Command line; see the module's docstring."""
    parser = parser_of_runs(__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    ratings, recipe, model = official(options.data), shipped_recipe(), MAAGIQA()
    fold = folds(model_of(options, model), ratings, ("val",), recipe.blend, options.runs)
    images = Images(ratings, summaries_of(model, ratings, options.runs))
    found = {"settings": measure(images, fold, Variant(recipe.experts, recipe.blend), SETTINGS)}
    write_json(options.out / "choices.json", found | own_weights_sha256() | circumstances())


if __name__ == "__main__":
    main()
