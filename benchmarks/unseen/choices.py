"""By which rule was the recipe chosen, and what do other settings make of it?

    python -m benchmarks.unseen.choices [--data FOLDER]

The rule. Known generators: (SRCC + PLCC) / 2 on val of `official`, fitted on train. Unseen generators:
(mean + pooled SRCC) / 2, each of the six predicted by a fit to the others. A setting is judged by the sum
of the two. Of those within .002 of the best, the one that comes first in the list wins; the lists begin with
what is simpler. No fit to train is ever asked for the test part.

Each setting is changed by itself; all else stays as the recipe has it, the values of the gate too. Minutes.
Writes choices.json beside itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from benchmarks.common.agiqa3k import DEFAULT_DATA
from benchmarks.common.features import DEFAULT_CACHE, Seen, official, seen
from benchmarks.common.lights import BY_FAMILIARITY, CLOSED, OPEN, Fold, Variant, both_lights, folds
from benchmarks.common.machine import circumstances, write_json
from benchmarks.common.metrics import own_weights_sha256
from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.training.experts_stage import ExpertsStageConfig

NEAR = 0.002
"""So much below the best is as good as it."""
SETTINGS: dict[str, tuple[Any, ...]] = {
    "early_weight": (0.0, 0.1, 0.3, 1.0),
    "class_weight": (1.0, 2.0, 4.0),
    "branch_weight": (0.0, 0.05, 0.1, 0.3),
    "generator_variance": (0.0, 0.003, 0.01, 0.03, 0.1),
    "rater_weight": (0.0, 0.5, 1.0),
    "ridge": (0.5, 1.0, 2.0),
    "gate": (CLOSED, OPEN, BY_FAMILIARITY),
}
"""Values of each setting, the simplest first where one is."""


def changed(recipe: ExpertsStageConfig, setting: str, value: Any) -> Variant:
    """The recipe with one setting changed."""
    if setting == "gate":
        return Variant(recipe, gate=value)
    return Variant(dataclasses.replace(recipe, **{setting: value}))


def judged(images: Seen, fold: dict[str, Fold], variant: Variant) -> dict[str, float]:
    """The two figures of the rule, their sum, and what they are made of."""
    found = both_lights(images, fold, variant)
    val, unseen = found["val"], found["unseen"]
    of_known, of_unseen = (val["srcc"] + val["plcc"]) / 2, (unseen["mean_srcc"] + unseen["pooled_srcc"]) / 2
    return val | unseen | {"known": of_known, "unseen": of_unseen, "sum": of_known + of_unseen}


def winner(sums: dict[str, float]) -> str:
    """The first that is as good as the best."""
    best = max(sums.values())
    return next(name for name, value in sums.items() if value >= best - NEAR)


def measure(
    images: Seen, recipe: ExpertsStageConfig, settings: dict[str, tuple[Any, ...]]
) -> dict[str, dict[str, Any]]:
    """By setting: figures by value, what the rule takes and what the recipe has."""
    fold = folds(images, ("val",), recipe)
    whole = judged(images, fold, Variant(recipe))
    found = {}
    for setting, values in settings.items():
        used = BY_FAMILIARITY if setting == "gate" else getattr(recipe, setting)
        rows = {
            str(value): whole if value == used else judged(images, fold, changed(recipe, setting, value))
            for value in values
        }
        chosen = winner({value: row["sum"] for value, row in rows.items()})
        found[setting] = {"values": rows, "chosen": chosen, "recipe": str(used)}
        print(setting, json.dumps({value: row["sum"] for value, row in rows.items()}), flush=True)
    return found


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of AGIQA-3K (or $AGIQA3K)")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    images = seen(MAAGIQA(), official(options.data), options.cache)
    found = {"settings": measure(images, ExpertsStageConfig(), SETTINGS)}
    write_json(options.out / "choices.json", found | own_weights_sha256() | circumstances())


if __name__ == "__main__":
    main()
