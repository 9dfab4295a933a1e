"""Images of AGIQA-3K as models see them that were trained without them.

Unseen: each generator by the model trained on all images of the others. Known: val and test of `official` by
the shipped model, which was trained on train.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common.features import features_of, judged, of_rows, seen
from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.compact.quality import QualityBranch
from pyiqa_ma_agiqa.experts import EXPERTS
from pyiqa_ma_agiqa.training.compact import CENTRING, drawn
from pyiqa_ma_agiqa.training.data import Ratings

KNOWN = ""
"""The fold of the shipped model, beside those that bear a generator's name."""


@dataclass
class Fold:
    """What one model says of images that it was not trained on.

    Attributes:
        fitted, asked: row numbers of the images that it was trained on and that it is asked for.
        table: a row for each that is asked for: what `judged` gives, `branch`, what the branch alone
            predicts, and `without_branch`, the score of experts that it has not joined.
    """

    fitted: np.ndarray
    asked: np.ndarray
    table: pd.DataFrame


def folds(
    model_of: Callable[[str], MAAGIQA], ratings: Ratings, known: Iterable[str], blend: float, cache: Path
) -> dict[str, Fold]:
    """A fold for each generator, and `KNOWN`.

    Args:
        model_of: the model trained without a generator; of `KNOWN` the shipped one.
        ratings: of AGIQA-3K, with the split `official`.
        known: the parts that the shipped model is asked for.
        blend: weight of the branch in these models.
        cache: what networks say is kept there.
    """
    asked = {KNOWN: [ratings.rows(part) for part in known]}
    fitted = {KNOWN: ratings.rows("train")}
    for name in np.unique(ratings.generators):
        asked[str(name)] = [np.flatnonzero(ratings.generators == name)]
        fitted[str(name)] = np.flatnonzero(ratings.generators != name)
    found = {}
    for name, groups in asked.items():
        model = model_of(name)
        predict = branch_of(model, ratings, fitted[name], blend, cache)
        tables = []
        for rows in groups:  # what is said of val and of test is kept apart
            images = seen(model, of_rows(ratings, rows), cache)
            table = judged(model, images).assign(branch=predict(images.features))
            tables.append(table.assign(without_branch=without_branch(table, model.bias.item(), blend)))
        found[name] = Fold(fitted[name], np.concatenate(groups), pd.concat(tables, ignore_index=True))
    return found


def branch_of(
    model: MAAGIQA, ratings: Ratings, fitted: np.ndarray, blend: float, cache: Path
) -> Callable[[np.ndarray], np.ndarray]:
    """What the branch of a model alone predicts, from mean features (M, 1280) to MOS (M,).

    The model holds only the weights of its head; its bias follows from how training centres it.

    Args:
        fitted: rows of the images that it was trained on.
        blend: its weight in the model; 0 where it has not joined, and then it predicts the mean MOS.
    """
    pixels = model.quality_expert.weight[0, : QualityBranch.width].detach().double().numpy()
    head = pixels / blend if blend else np.zeros_like(pixels)
    some = of_rows(ratings, drawn(ratings, fitted, CENTRING))
    bias = float((some.mos - features_of(model, some, cache) @ head).mean())
    return lambda features: features @ head + bias


def without_branch(table: pd.DataFrame, bias: float, blend: float) -> np.ndarray:
    """Scores (M,) of the experts before the branch joined them; see `training/joining.py`.

    Args:
        table: of `judged`, and `branch`.
        bias: the model's.
        blend: weight of the branch, below 1.
    """
    content, coherence, _ = (table[f"share {expert}"] for expert in EXPERTS)
    meaning = content + coherence + bias / len(EXPERTS)
    of_quality = table["score"] - meaning - blend * table["gate"] * (table["branch"] - meaning)
    return (meaning + of_quality / (1 - blend)).to_numpy()
