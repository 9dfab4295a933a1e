"""How far the experts may move: the strengths there are, and which one what was held out speaks for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, float("inf"))
"""Of the ridge; the last leaves the ranking as it is."""
DOUBT = 1.0
"""How many standard errors a gain must have for the experts to move at all."""


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


def chosen(losses: np.ndarray) -> int:
    """The number of the strength to take.

    Args:
        losses: (len(STRENGTHS), N) of what was held out.
    """
    best = int(losses.mean(1).argmin())
    gain = losses[-1] - losses[best]
    proven = gain.mean() > DOUBT * gain.std(ddof=1) / np.sqrt(len(gain))
    return best if proven else len(STRENGTHS) - 1


def parts(count: int, folds: int) -> list[np.ndarray]:
    """Masks (count,) that part images evenly, in an order drawn with a fixed seed."""
    order = np.random.default_rng(20).permutation(count)
    return [order % folds == fold for fold in range(min(folds, count))]
