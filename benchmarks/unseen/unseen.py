"""How well does ma_agiqa do on generators that it has never seen?

    python -m benchmarks.unseen.unseen [--data FOLDER] [--runs FOLDER] [--test]

Each of the six generators of AGIQA-3K is predicted by the model that the whole recipe makes of the images of
the five others; `common/left_out.py` trains the six, hours where they are not there. Beside it the same
figures for known generators: the shipped model on val of `official` and, with --test, on test. Minutes; what
the networks say is kept in --runs. Writes unseen.json beside itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from benchmarks.common.features import official, summaries_of
from benchmarks.common.folds import KNOWN, Fold, folds
from benchmarks.common.left_out import model_of, parser_of_runs, shipped_recipe
from benchmarks.common.lights import Images, of_unseen
from benchmarks.common.machine import circumstances, write_json
from benchmarks.common.metrics import own_weights_sha256
from benchmarks.common.statistics_of_scores import pearson, srcc
from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.training.experts_stage import ExpertsStageConfig, conformal, of_known_images

BESIDE = ("without_branch", "branch")
"""Scores beside the model's own, of which there is the agreement alone."""


def constant_width(images: Images, fitted: np.ndarray, config: ExpertsStageConfig) -> float:
    """Half the width, in MOS, of an interval that is the same for all and holds 90 % of known images.

    Args:
        fitted: row numbers; each image is predicted by the closed form fitted to other folds, without
            degraded copies.
    """
    seen = images.told(fitted, config.rater_weight)
    found, known = of_known_images(seen, config)
    return conformal(np.abs(found.scores(known) - seen.mos))


def rated(images: Images, fold: Fold, config: ExpertsStageConfig) -> pd.DataFrame:
    """The table of a fold with `mos`, `generator`, `part` and `constant`, the width of `constant_width`."""
    ratings = images.ratings
    return fold.table.assign(
        mos=ratings.mos[fold.asked].astype(float),
        generator=ratings.generators[fold.asked],
        part=ratings.part[fold.asked],
        constant=constant_width(images, fold.fitted, config),
    )


def figures(table: pd.DataFrame) -> dict[str, float]:
    """Agreement, also of the scores `BESIDE`, bias, interval, familiarity and gate of images."""
    score, mos = table["score"].to_numpy(), table["mos"].to_numpy()
    held, familiar = (table["low"] <= mos) & (mos <= table["high"]), table["familiarity"] >= 0.5
    return {
        "images": len(table),
        "srcc": float(srcc(score, mos)),
        "plcc": float(pearson(score, mos)),
        **{f"srcc_{name}": float(srcc(table[name].to_numpy(), mos)) for name in BESIDE},
        "bias": float((score - mos).mean()),
        "coverage": float(held.mean()),
        "coverage_of_familiar": float(held[familiar].mean()),
        "half_width": float((table["high"] - table["low"]).mean() / 2),
        "coverage_of_constant": float((np.abs(score - mos) <= table["constant"]).mean()),
        "constant_half_width": float(table["constant"].mean()),
        "familiarity": float(table["familiarity"].mean()),
        "gate": float(table["gate"].mean()),
    }


def told_apart(known: np.ndarray, others: np.ndarray) -> float:
    """Probability that a known image is the more familiar of the two (AUC); a tie counts half."""
    ranks = rankdata(np.concatenate([known, others]))[: len(known)]
    return float((ranks.sum() - len(known) * (len(known) + 1) / 2) / (len(known) * len(others)))


def measure(images: Images, fold: dict[str, Fold], config: ExpertsStageConfig) -> dict[str, Any]:
    """Figures by generator left out, over all of them, and of known generators."""
    tables = {name: rated(images, one, config) for name, one in fold.items()}
    known = dict(list(tables.pop(KNOWN).groupby("part", sort=False)))
    every = pd.concat(tables.values())
    by_generator = {name: figures(table) for name, table in tables.items()}
    mos, generators = every["mos"].to_numpy(), every["generator"].to_numpy(str)
    together = of_unseen(mos, generators, every["score"].to_numpy())
    for beside in BESIDE:
        found = of_unseen(mos, generators, every[beside].to_numpy())
        together |= {f"{name}_{beside}": value for name, value in found.items()}
    for name in ("coverage", "half_width", "coverage_of_constant"):
        together[f"mean_{name}"] = float(np.mean([found[name] for found in by_generator.values()]))
    familiar = known["val"]["familiarity"].to_numpy()
    return {
        "by_generator": by_generator,
        "all": together,
        "known": {part: figures(table) for part, table in known.items()},
        "auc_of_familiarity": {"all": told_apart(familiar, every["familiarity"].to_numpy())}
        | {name: told_apart(familiar, table["familiarity"].to_numpy()) for name, table in tables.items()},
    }


def main() -> None:
    """Command line; see the module's docstring."""
    parser = parser_of_runs(__doc__)
    parser.add_argument("--test", action="store_true", help="read the official test part, too")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    ratings, recipe, model = official(options.data), shipped_recipe(), MAAGIQA()
    parts = ("val", "test") if options.test else ("val",)
    fold = folds(model_of(options, model), ratings, parts, recipe.blend, options.runs)
    images = Images(ratings, summaries_of(model, ratings, options.runs))
    result = measure(images, fold, recipe.experts)
    write_json(options.out / "unseen.json", result | own_weights_sha256() | circumstances())
    print(json.dumps(result["all"], indent=1))


if __name__ == "__main__":
    main()
