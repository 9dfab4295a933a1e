"""Statistics of a score against MOS, with bootstrap intervals and within each generator."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import OptimizeWarning, curve_fit
from scipy.stats import kendalltau, rankdata

from pyiqa_ma_agiqa.training.agreement import logistic

INTERVAL = (0.025, 0.975)
"""Quantiles of the 95 % bootstrap interval."""
SMALLEST_GROUP = 10
"""Generators with fewer images get no statistics of their own."""


def pearson(first: np.ndarray, second: np.ndarray) -> Any:
    """Pearson's correlation along the last axis; NaN where one side is constant."""
    first = first - first.mean(-1, keepdims=True)
    second = second - second.mean(-1, keepdims=True)
    scale = np.sqrt((first**2).sum(-1) * (second**2).sum(-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (first * second).sum(-1) / scale


def srcc(scores: np.ndarray, mos: np.ndarray) -> Any:
    """Spearman's rank correlation along the last axis; NaN where one side is constant."""
    return pearson(rankdata(scores, axis=-1), rankdata(mos, axis=-1))


def logistic_parameters(
    scores: np.ndarray, mos: np.ndarray, start: np.ndarray | None = None
) -> np.ndarray | None:
    """Parameters of the paper's logistic, from its own start or another; None where no fit is found."""
    if start is None:
        start = np.array([mos.max(), mos.min(), scores.mean(), 0.5])
    if len(mos) < len(start):
        return None
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("error", OptimizeWarning)
            return curve_fit(logistic, scores, mos, p0=start, maxfev=10_000)[0]
    except (RuntimeError, OptimizeWarning):
        return None


def mapped(scores: np.ndarray, mos: np.ndarray, parameters: np.ndarray | None) -> np.ndarray:
    """Scores on the MOS scale: by the logistic, or by the least-squares line where there is none."""
    if parameters is not None:
        return logistic(scores, *parameters)
    if np.ptp(scores) == 0:
        return np.full(len(mos), mos.mean())
    return np.polyval(np.polyfit(scores, mos, 1), scores)


def within_generator_srcc(scores: np.ndarray, mos: np.ndarray, generators: np.ndarray) -> float:
    """Mean over generators of the SRCC inside each; groups in which it is undefined are left out."""
    rows = [generators == group for group in np.unique(generators)]
    values = [srcc(scores[group], mos[group]) for group in rows]
    defined = [value for value in values if np.isfinite(value)]
    return float(np.mean(defined)) if defined else float("nan")


def figures(
    scores: np.ndarray,
    mos: np.ndarray,
    generators: np.ndarray | None = None,
    parameters: np.ndarray | None = None,
    fit: bool = True,
) -> dict[str, float]:
    """SRCC, PLCC, KRCC, RMSE of scores against MOS, and the SRCC within generators.

    Args:
        scores: (N,) higher is better.
        mos: (N,). The RMSE is in its unit.
        generators: (N,) strings; without them the last figure is left out.
        parameters: where the search for the logistic starts; by default where the paper's does.
        fit: False for a straight line in place of the logistic.
    """
    scores, mos = np.asarray(scores, float), np.asarray(mos, float)
    on_mos = mapped(scores, mos, logistic_parameters(scores, mos, parameters) if fit else None)
    result = {
        "srcc": float(srcc(scores, mos)),
        "plcc": float(pearson(on_mos, mos)),
        "krcc": float(kendalltau(scores, mos)[0]),
        "rmse": float(np.sqrt(np.mean((on_mos - mos) ** 2))),
    }
    if generators is not None:
        result["within_generator_srcc"] = within_generator_srcc(scores, mos, generators)
    return result


def resamples(count: int, repeats: int, seed: int = 0) -> np.ndarray:
    """Row numbers (repeats, count) of bootstrap samples over images."""
    return np.random.default_rng(seed).integers(count, size=(repeats, count))


def report(
    scores: np.ndarray, mos: np.ndarray, generators: np.ndarray | None, repeats: int
) -> dict[str, Any]:
    """Each of `figures` with its percentile bootstrap interval, and whether the logistic fitted.

    A resample is fitted anew, from the parameters of the whole; with a line where the whole has a line.
    Resamples in which a figure is undefined do not count for it.

    Args:
        scores: (N,) higher is better.
        mos: (N,).
        generators: (N,) strings or None.
        repeats: resamples of the bootstrap.
    """
    parameters = logistic_parameters(scores, mos)
    fit = parameters is not None
    samples = pd.DataFrame(
        figures(scores[rows], mos[rows], None if generators is None else generators[rows], parameters, fit)
        for rows in resamples(len(mos), repeats)
    )
    intervals = samples.quantile(list(INTERVAL))
    result: dict[str, Any] = {
        name: {"value": value, "low": float(intervals[name].iloc[0]), "high": float(intervals[name].iloc[1])}
        for name, value in figures(scores, mos, generators, parameters, fit).items()
    }
    return result | {"images": len(mos), "logistic_converged": fit}


def report_by_generator(
    scores: np.ndarray, mos: np.ndarray, generators: np.ndarray, repeats: int
) -> dict[str, dict[str, Any]]:
    """`report` on the images of each generator that has enough of them, fitted to these alone."""
    rows = {str(group): generators == group for group in np.unique(generators)}
    return {
        group: report(scores[mask], mos[mask], None, repeats)
        for group, mask in rows.items()
        if mask.sum() >= SMALLEST_GROUP
    }


def probability_of_better_srcc(ours: np.ndarray, theirs: np.ndarray, mos: np.ndarray, repeats: int) -> float:
    """Paired bootstrap: share of resamples in which our SRCC is the higher one; a tie counts half.

    Resamples in which one of them is undefined, all scores being equal, are left out.
    """
    rows = resamples(len(mos), repeats)
    leads = srcc(ours[rows], mos[rows]) - srcc(theirs[rows], mos[rows])
    leads[np.abs(leads) < 1e-12] = 0  # equal ranks may differ in the last digit of their sums
    defined = leads[~np.isnan(leads)]
    return float(np.heaviside(defined, 0.5).mean()) if len(defined) else float("nan")


def rank_agreement(scores: pd.DataFrame) -> pd.DataFrame:
    """SRCC between every two columns."""
    columns = scores.to_numpy(float).T
    return pd.DataFrame(
        [[float(srcc(first, second)) for second in columns] for first in columns],
        scores.columns,
        scores.columns,
    )


def generator_mean(train_mos: np.ndarray, train_generators: np.ndarray, generators: np.ndarray) -> np.ndarray:
    """Baseline scores: the mean train MOS of each image's generator; the mean of all for a new one."""
    means = {group: train_mos[train_generators == group].mean() for group in np.unique(train_generators)}
    return np.array([means.get(group, train_mos.mean()) for group in generators])
