"""How far the experts may move: the strengths there are, and which one what was held out speaks for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, float("inf"))
"""Of the ridge; the last leaves the ranking as it is."""
USUAL = 3.0
"""Where few ratings begin: good in the mean over AGIQA-3K's generators, each taken as new."""
PULL = 0.5
"""Evidence in nats that it takes to go a factor of 3 away from it; of 9, four times as much."""


@dataclass
class Fitted:
    """A score of one's own: slope * score + intercept + weights in the span of n images.

    Attributes:
        slope, intercept: of the shipped score.
        dual: (n,), weights of the kernel's rows.
        strength: of the ridge.
    """

    slope: float
    intercept: float
    dual: np.ndarray
    strength: float

    def predict(self, score: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        """One's own score (M,).

        Args:
            score: (M,), the shipped one.
            kernel: (M, n), with the images of the fit.
        """
        return self.slope * score + self.intercept + kernel @ self.dual


def chosen(against: np.ndarray) -> int:
    """The number of the strength to take: the last, unless what was held out speaks for another one.

    Args:
        against: negative log-likelihood (len(STRENGTHS),) of what was held out.
    """
    steps = np.log(np.array(STRENGTHS[:-1]) / USUAL) / np.log(3)
    best = int((against[:-1] + PULL * steps**2).argmin())
    return best if against[best] < against[-1] else len(STRENGTHS) - 1


def parts(count: int, folds: int) -> list[np.ndarray]:
    """Masks (count,) that part images evenly, in an order drawn with a fixed seed."""
    order = np.random.default_rng(20).permutation(count)
    return [order % folds == fold for fold in range(min(folds, count))]
