"""How well does ma_agiqa do on generators that it has never seen?

    python -m benchmarks.unseen.unseen [--data FOLDER] [--test]

Each of the six generators of AGIQA-3K is predicted by experts, gate and interval fitted to all images of
the five others. The networks stay those of the package: they were made without any MOS. Beside it the same
figures for known generators: fitted on train of `official`, read on val and, with --test, on test. Minutes;
what the networks say is kept in --cache. Writes unseen.json beside itself.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from benchmarks.common.agiqa3k import DEFAULT_DATA
from benchmarks.common.features import DEFAULT_CACHE, Seen, judged, official, seen
from benchmarks.common.lights import known_folds, of_unseen
from benchmarks.common.machine import circumstances, write_json
from benchmarks.common.metrics import own_weights_sha256
from benchmarks.common.statistics_of_scores import pearson, srcc
from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.training.experts_stage import COVERAGE, ExpertsStageConfig, fit, fit_experts, held_out


def predicted(
    model: MAAGIQA, images: Seen, fitted: np.ndarray, asked: np.ndarray, config: ExpertsStageConfig
) -> pd.DataFrame:
    """What the whole recipe, fitted to some images, says of others.

    Args:
        model: holds the networks; its experts are replaced.
        fitted, asked: row numbers.

    Returns:
        A row for each that is asked for: what `judged` gives, `mos`, and `constant`, half the width of an
        interval that is the same for all.
    """
    inputs, rated = images.everything[fitted], images.rated(fitted, config.rater_weight)
    fit_experts(model, inputs, rated, config)
    known = model.familiarity.known.double().numpy()
    of_known = held_out(inputs, rated, known_folds(rated, config), lambda x, some: fit(x, some, config))
    off = np.abs(of_known.scores(known) - rated.mos)
    level = min(1.0, np.ceil((len(off) + 1) * COVERAGE) / len(off))
    constant = float(np.quantile(off, level, method="higher"))
    table = judged(model, images.everything[asked])
    return table.assign(mos=images.mos[asked].astype(float), constant=constant)


def figures(table: pd.DataFrame) -> dict[str, float]:
    """Agreement, bias, interval, familiarity and gate of images."""
    score, mos = table["score"].to_numpy(), table["mos"].to_numpy()
    return {
        "images": len(table),
        "srcc": float(srcc(score, mos)),
        "plcc": float(pearson(score, mos)),
        "bias": float((score - mos).mean()),
        "coverage": float(((table["low"] <= mos) & (mos <= table["high"])).mean()),
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


def measure(model: MAAGIQA, images: Seen, config: ExpertsStageConfig, test: bool) -> dict[str, Any]:
    """Figures by generator left out, over all of them, and of known generators."""
    parts = ("val", "test") if test else ("val",)
    asked = np.flatnonzero(np.isin(images.ratings.part, parts))
    of_known = predicted(model, images, images.ratings.rows("train"), asked, config)
    known = {part: of_known[images.ratings.part[asked] == part] for part in parts}
    left_out = {}
    for name in np.unique(images.generators):
        own = images.generators == name
        left_out[str(name)] = predicted(model, images, np.flatnonzero(~own), np.flatnonzero(own), config)
        print(name, json.dumps(figures(left_out[str(name)])), flush=True)
    every = pd.concat(left_out, names=["generator"]).reset_index("generator")
    by_generator = {name: figures(table) for name, table in left_out.items()}
    familiar = known["val"]["familiarity"].to_numpy()
    return {
        "by_generator": by_generator,
        "all": of_unseen(every["mos"].to_numpy(), every["generator"].to_numpy(), every["score"].to_numpy())
        | {
            f"mean_{name}": float(np.mean([found[name] for found in by_generator.values()]))
            for name in ("coverage", "half_width", "coverage_of_constant")
        },
        "known": {part: figures(table) for part, table in known.items()},
        "auc_of_familiarity": {"all": told_apart(familiar, every["familiarity"].to_numpy())}
        | {name: told_apart(familiar, table["familiarity"].to_numpy()) for name, table in left_out.items()},
    }


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of AGIQA-3K (or $AGIQA3K)")
    parser.add_argument("--test", action="store_true", help="read the official test part, too")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    model = MAAGIQA()
    images = seen(model, official(options.data), options.cache)
    result = measure(model, images, ExpertsStageConfig(), options.test)
    write_json(options.out / "unseen.json", result | own_weights_sha256() | circumstances())
    print(json.dumps(result["all"], indent=1))


if __name__ == "__main__":
    main()
