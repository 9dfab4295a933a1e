"""What does each part of ma_agiqa contribute, on generators that it knows and on others?

    python -m benchmarks.ablations.ablations [--data FOLDER]

The recipe fitted again without a part: known generators are read on val and, once all rows are there, on test
of `official`, fitted on train; unseen ones each by a fit to the others. What the networks say is kept in
--cache; the view of 224² needs a pass of the tower of its own, and precision three passes over test. Writes
ablations.json, gate.csv and gate.png beside itself.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ablations.gate import by_group, draw_gate, gate_and_shares
from benchmarks.ablations.precision import precision
from benchmarks.common.agiqa3k import DEFAULT_DATA
from benchmarks.common.features import DEFAULT_CACHE, Seen, official, seen
from benchmarks.common.lights import ALL, CLOSED, OPEN, Variant, both_lights, folds
from benchmarks.common.machine import circumstances, write_json
from benchmarks.common.metrics import own_weights_sha256
from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.compact.quality import QualityBranch
from pyiqa_ma_agiqa.compact.semantic import SUMMARY
from pyiqa_ma_agiqa.training.experts_stage import LATE, ExpertsStageConfig

WHOLE = "the whole recipe"
SMALL_VIEW = "the tower sees 224² instead of 320²"
BRANCH = np.arange(len(ALL)) < QualityBranch.width
CLASS_TOKENS = np.zeros(SUMMARY, bool)
CLASS_TOKENS[:, 0] = True
CLASS_TOKENS = np.concatenate([np.zeros(QualityBranch.width, bool), CLASS_TOKENS.reshape(-1)])


def variants(recipe: ExpertsStageConfig) -> dict[str, Variant]:
    """Each row's name and what is left out in it."""
    return {
        WHOLE: Variant(recipe),
        "without the semantic content expert": Variant(recipe, kept=~(LATE & CLASS_TOKENS)),
        "without the coherence expert": Variant(recipe, kept=~(LATE & ~CLASS_TOKENS)),
        "without the quality expert: gate always closed": Variant(recipe, gate=CLOSED),
        "gate always open": Variant(recipe, gate=OPEN),
        "without the random effect of the generator": Variant(replace(recipe, generator_variance=0.0)),
        "without rater weights": Variant(replace(recipe, rater_weight=0.0)),
        "all blocks alike": Variant(replace(recipe, early_weight=1.0)),
        "without the branch": Variant(replace(recipe, branch_weight=0.0)),
        "the branch alone": Variant(recipe, kept=BRANCH, gate=OPEN),
    }


def rows(images: Seen, recipe: ExpertsStageConfig, parts: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Figures of each row on what the networks say of the images; the gate is that of the whole recipe."""
    fold = folds(images, parts, recipe)
    return {name: both_lights(images, fold, variant) for name, variant in variants(recipe).items()}


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of AGIQA-3K (or $AGIQA3K)")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    model, recipe, parts = MAAGIQA(), ExpertsStageConfig(), ("val", "test")
    ratings = official(options.data)
    images = seen(model, ratings, options.cache)
    found = rows(images, recipe, parts)
    small = seen(model, ratings, options.cache, side=224)
    # With the gate that follows from these summaries.
    found[SMALL_VIEW] = both_lights(small, folds(small, parts, recipe), Variant(recipe))
    groups = gate_and_shares(model, images)
    options.out.mkdir(parents=True, exist_ok=True)
    by_group(groups).round(4).to_csv(options.out / "gate.csv", index=False)
    draw_gate(groups).savefig(options.out / "gate.png", dpi=110, metadata={"Software": None})
    result = {
        "images": {part: len(ratings.rows(part)) for part in ("train", *parts)},
        "rows": found,
        "precision": precision(model, images),
        **own_weights_sha256(),
        **circumstances(),
    }
    write_json(options.out / "ablations.json", result)
    print(json.dumps(result["rows"], indent=1))


if __name__ == "__main__":
    main()
