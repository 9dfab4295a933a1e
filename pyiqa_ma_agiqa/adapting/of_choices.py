r"""Choices between two images to a score of one's own, on the scale of the shipped one.

.. math:: P(i \text{ better than } j) = \sigma(u_i - u_j), \quad u = t s + w \cdot x,
    \quad w \sim N(0, 1 / strength)

s: the shipped score; x: what the experts read (Bradley and Terry, *Rank analysis of incomplete block
designs*, Biometrika 1952). Choices say nothing of the scale: u is stretched to the mean and spread that the
shipped score has on the images.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from .strength import STRENGTHS, Fitted, chosen, parts

FOLDS = 5
"""Parts of the images, each left out to choose the strength."""
SLOPE_VARIANCE = 100.0
"""Prior variance of t for a score of unit spread: so wide that it only keeps t finite."""


class Utility:
    """u of n images, fitted to choices between them.

    Args:
        kernel: (n, n).
        score: (n,), the shipped one; not all the same.
    """

    def __init__(self, kernel: np.ndarray, score: np.ndarray) -> None:
        values, vectors = np.linalg.eigh(kernel)
        there = values > 1e-9 * max(values[-1], 1e-12)
        values, vectors = values[there], vectors[:, there]
        self.score = (score - score.mean()) / max(score.std(), 1e-6)
        self.inputs = vectors * np.sqrt(values)
        self.to_dual = vectors / np.sqrt(values)

    def fit(self, pairs: np.ndarray, strength: float) -> np.ndarray:
        """t and the weights of `inputs`, from pairs (P, 2) of a better and a worse image."""
        inputs = self.inputs[:, :0] if np.isinf(strength) else self.inputs
        columns = np.concatenate([self.score[:, None], inputs], 1)
        penalty = np.full(columns.shape[1], strength)
        penalty[0] = 1 / SLOPE_VARIANCE
        better, worse = pairs.T

        def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
            utility = columns @ weights
            lead = utility[better] - utility[worse]
            pull = -expit(-lead)
            force = np.bincount(better, pull, len(columns)) - np.bincount(worse, pull, len(columns))
            of_prior = penalty * weights
            return np.logaddexp(0, -lead).sum() + of_prior @ weights / 2, columns.T @ force + of_prior

        start = np.zeros(columns.shape[1])
        weights = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x
        return np.pad(weights, (0, self.inputs.shape[1] + 1 - len(weights)))

    def of(self, weights: np.ndarray) -> np.ndarray:
        """u (n,)."""
        return weights[0] * self.score + self.inputs @ weights[1:]


def within(pairs: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The pairs of which both images are among these rows, by their place there."""
    place = np.full(max(rows.max(), pairs.max()) + 1, -1)
    place[rows] = np.arange(len(rows))
    return place[pairs][(place[pairs] >= 0).all(1)]


def fit_choices(kernel: np.ndarray, score: np.ndarray, pairs: np.ndarray) -> Fitted:
    """Fit to n images at the strength that leaving parts of them out speaks for.

    Args:
        kernel: (n, n).
        score: (n,), the shipped one; not all the same.
        pairs: (P, 2), a better and a worse image.
    """
    utility = Utility(kernel, score)
    held = []
    for part in parts(len(score), FOLDS):
        touched = part[pairs].any(1)
        for_each = [utility.of(utility.fit(pairs[~touched], strength)) for strength in STRENGTHS]
        held.append([np.logaddexp(0, u[pairs[touched, 1]] - u[pairs[touched, 0]]) for u in for_each])
    number = chosen(np.concatenate(held, 1).sum(1))
    weights = utility.fit(pairs, STRENGTHS[number])
    u = utility.of(weights)
    # The utility as it is, stretched and moved to the mean and spread of the score.
    stretch = score.std() / max(u.std(), 1e-12)
    slope = float(stretch * weights[0] / max(score.std(), 1e-6))
    intercept = float((1 - slope) * score.mean() - stretch * u.mean())
    return Fitted(slope, intercept, stretch * (utility.to_dual @ weights[1:]), STRENGTHS[number])
