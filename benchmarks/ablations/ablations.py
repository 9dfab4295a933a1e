"""What does each part of ma_agiqa contribute, on generators that it knows and on others?

    python -m benchmarks.ablations.ablations [--data FOLDER] [--runs FOLDER] [--small-view]

The recipe fitted again without a part: known generators are read on val and, once all rows are there, on
test of `official`, fitted on train; unseen ones each by a fit to the others. Gate and branch are of the
trained models: the shipped one and those of `common/left_out.py`, which trains what is not there. What the
networks say is kept in --runs. Precision takes three passes over test; --small-view, a row for a view of
224², a pass of the tower over all images and new gates. Writes ablations.json, gate.csv and gate.png beside
itself.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ablations.gate import by_group, draw_gate, gate_and_shares
from benchmarks.ablations.precision import precision
from benchmarks.common.features import of_rows, official, summaries_of
from benchmarks.common.folds import KNOWN, Fold, folds
from benchmarks.common.left_out import model_of, parser_of_runs, shipped_recipe
from benchmarks.common.lights import CLOSED, OPEN, Images, Variant, both_lights, gates, predicted
from benchmarks.common.machine import circumstances, write_json
from benchmarks.common.metrics import own_weights_sha256
from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.compact import semantic
from pyiqa_ma_agiqa.compact.preprocessing import ENCODER_SIDE
from pyiqa_ma_agiqa.training.experts_stage import LATE

PARTS = ("val", "test")
WHOLE = "the whole recipe"
WITHOUT_COPIES = "without degraded copies in the closed form (so are all rows below)"
SMALL_VIEW = f"the tower sees 224² instead of {ENCODER_SIDE}²"
CLASS_TOKENS = np.zeros(semantic.SUMMARY, bool)
CLASS_TOKENS[:, : semantic.CLASS_TOKENS] = True
CLASS_TOKENS = CLASS_TOKENS.reshape(-1)


def variants(recipe: Variant) -> dict[str, Variant]:
    """Each row's name and what is left out in it."""
    experts = recipe.config
    return {
        WITHOUT_COPIES: recipe,
        "without the semantic content expert": replace(recipe, kept=~(LATE & CLASS_TOKENS)),
        "without the coherence expert": replace(recipe, kept=~(LATE & ~CLASS_TOKENS)),
        "without the quality expert: gate always closed": replace(recipe, gate=CLOSED),
        "gate always open": replace(recipe, gate=OPEN),
        "without rater weights": replace(recipe, config=replace(experts, rater_weight=0.0)),
        "all blocks alike": replace(recipe, config=replace(experts, early_weight=1.0)),
        "without the branch": replace(recipe, blend=0.0),
        "the branch alone": replace(recipe, blend=1.0, gate=OPEN),
    }


def rows(images: Images, fold: dict[str, Fold], recipe: Variant) -> dict[str, dict[str, Any]]:
    """Figures of each row; the first is that of the trained models themselves."""
    ratings = images.ratings
    found = {WHOLE: both_lights(ratings, fold, lambda one: one.table["score"].to_numpy())}
    for name, variant in variants(recipe).items():
        found[name] = both_lights(ratings, fold, lambda one, variant=variant: predicted(images, one, variant))
        print(name, json.dumps(found[name]), flush=True)
    return found


def other_view(images: Images, fold: dict[str, Fold], recipe: Variant) -> dict[str, Any]:
    """Figures of the recipe on what the tower says of other views, with the gate that follows from it."""
    with_gate = {
        name: replace(one, table=one.table.assign(gate=gates(images, one, recipe.config)))
        for name, one in fold.items()
    }
    return both_lights(images.ratings, with_gate, lambda one: predicted(images, one, recipe))


def main() -> None:
    """Command line; see the module's docstring."""
    parser = parser_of_runs(__doc__)
    parser.add_argument("--small-view", action="store_true", help="with a row for a view of 224²")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    model, ratings, training = MAAGIQA(), official(options.data), shipped_recipe()
    recipe = Variant(training.experts, training.blend)
    fold = folds(model_of(options, model), ratings, PARTS, recipe.blend, options.runs)
    found = rows(Images(ratings, summaries_of(model, ratings, options.runs)), fold, recipe)
    if options.small_view:
        small = Images(ratings, summaries_of(model, ratings, options.runs, side=224))
        found[SMALL_VIEW] = other_view(small, fold, recipe)
    groups = gate_and_shares(ratings, fold[KNOWN])
    options.out.mkdir(parents=True, exist_ok=True)
    by_group(groups).round(4).to_csv(options.out / "gate.csv", index=False)
    draw_gate(groups).savefig(options.out / "gate.png", dpi=110, metadata={"Software": None})
    shipped = groups["score"].to_numpy()
    result = {
        "images": {part: len(ratings.rows(part)) for part in ("train", *PARTS)},
        "rows": found,
        "precision": precision(model, of_rows(ratings, ratings.rows("test")), shipped),
        **own_weights_sha256(),
        **circumstances(),
    }
    write_json(options.out / "ablations.json", result)
    print(json.dumps(result["rows"], indent=1))


if __name__ == "__main__":
    main()
