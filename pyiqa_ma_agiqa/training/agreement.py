"""Agreement of scores with MOS, as the paper measures it (its section 4.1)."""

from __future__ import annotations

import numpy as np
from scipy.optimize import OptimizeWarning, curve_fit
from scipy.stats import kendalltau, pearsonr, spearmanr


def logistic(scores: np.ndarray, high: float, low: float, centre: float, slope: float) -> np.ndarray:
    r"""Four-parameter logistic :math:`b_2 + (b_1 - b_2) / (1 + e^{-(x - b_3) / |b_4|})`."""
    with np.errstate(over="ignore"):  # exp may overflow where the logistic is flat
        return low + (high - low) / (1 + np.exp(-(scores - centre) / np.abs(slope)))


def fit_to_mos(scores: np.ndarray, mos: np.ndarray) -> np.ndarray:
    """Scores (N,) mapped to the MOS scale by the fitted logistic, or by a line where that does not fit.

    Fewer than five images do not determine the four parameters.
    """
    import warnings

    if len(scores) < 5:
        return np.polyval(np.polyfit(scores, mos, 1), scores)
    start = (mos.max(), mos.min(), scores.mean(), 0.5)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", OptimizeWarning)
            parameters, _ = curve_fit(logistic, scores, mos, p0=start, maxfev=10_000)
        return logistic(scores, *parameters)
    except (RuntimeError, OptimizeWarning):
        return np.polyval(np.polyfit(scores, mos, 1), scores)


def agreement(scores: np.ndarray, mos: np.ndarray) -> dict[str, float]:
    """SRCC and KRCC of raw scores (N,); PLCC and RMSE after the logistic fit."""
    fitted = fit_to_mos(np.asarray(scores, float), np.asarray(mos, float))
    return {
        "srcc": float(spearmanr(scores, mos)[0]),
        "plcc": float(pearsonr(fitted, mos)[0]),
        "krcc": float(kendalltau(scores, mos)[0]),
        "rmse": float(np.sqrt(np.mean((fitted - mos) ** 2))),
    }
