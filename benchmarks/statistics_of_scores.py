"""Statistics of a score against MOS, with bootstrap intervals and within each generator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from pyiqa_ma_agiqa.agreement import agreement, fit_to_mos

INTERVAL = (0.025, 0.975)
"""Quantiles of the 95 % bootstrap interval."""


def generator(name: str) -> str:
    """Generator of an AGIQA-3K file name: what stands before the running number."""
    return name.rsplit("_", 1)[0]


def within_generator_srcc(scores: np.ndarray, mos: np.ndarray, generators: np.ndarray) -> float:
    """Mean over generators of the SRCC inside each; groups in which it is undefined are left out."""
    values = []
    for group in np.unique(generators):
        rows = generators == group
        if len(np.unique(scores[rows])) > 1 and len(np.unique(mos[rows])) > 1:
            values.append(spearmanr(scores[rows], mos[rows])[0])
    return float(np.mean(values)) if values else float("nan")


def logistic_converges(scores: np.ndarray, mos: np.ndarray) -> bool:
    """Whether the paper's logistic fits; `fit_to_mos`, and so PLCC and RMSE, else use a line."""
    line = np.polyval(np.polyfit(scores, mos, 1), scores)
    with np.errstate(all="ignore"):
        return not np.array_equal(fit_to_mos(scores, mos), line)


def figures(scores: np.ndarray, mos: np.ndarray, generators: np.ndarray) -> dict[str, float]:
    """SRCC, PLCC, KRCC, RMSE (in MOS) and the within-generator SRCC of scores (N,), higher is better."""
    with np.errstate(all="ignore"):  # the fit's exponential may overflow on its way, to 0 or 1
        overall = agreement(scores, mos)
    return overall | {"within_generator_srcc": within_generator_srcc(scores, mos, generators)}


def resamples(count: int, repeats: int, seed: int = 0) -> np.ndarray:
    """Row numbers (repeats, count) of bootstrap samples over images."""
    return np.random.default_rng(seed).integers(count, size=(repeats, count))


def report(scores: np.ndarray, mos: np.ndarray, generators: np.ndarray, repeats: int) -> dict[str, Any]:
    """Each of `figures` with its percentile bootstrap interval, and whether the logistic fitted.

    Args:
        scores: (N,) higher is better.
        mos: (N,).
        generators: (N,) strings.
        repeats: resamples of the bootstrap.
    """
    drawn = resamples(len(mos), repeats)
    samples = pd.DataFrame([figures(scores[rows], mos[rows], generators[rows]) for rows in drawn])
    intervals = samples.quantile(list(INTERVAL))
    result: dict[str, Any] = {
        name: {"value": value, "low": float(intervals[name].iloc[0]), "high": float(intervals[name].iloc[1])}
        for name, value in figures(scores, mos, generators).items()
    }
    return result | {"logistic_converged": logistic_converges(scores, mos)}


def probability_of_better_srcc(ours: np.ndarray, theirs: np.ndarray, mos: np.ndarray, repeats: int) -> float:
    """Paired bootstrap: share of resamples in which our SRCC is the higher one; a tie counts half.

    Resamples in which one of them is undefined, all scores being equal, are left out.
    """
    wins = [
        np.heaviside(spearmanr(ours[rows], mos[rows])[0] - spearmanr(theirs[rows], mos[rows])[0], 0.5)
        for rows in resamples(len(mos), repeats)
    ]
    return float(np.nanmean(wins))


def generator_mean(train_mos: np.ndarray, train_generators: np.ndarray, generators: np.ndarray) -> np.ndarray:
    """Baseline scores: the mean train MOS of each image's generator."""
    means = {group: train_mos[train_generators == group].mean() for group in np.unique(train_generators)}
    return np.array([means[group] for group in generators])
