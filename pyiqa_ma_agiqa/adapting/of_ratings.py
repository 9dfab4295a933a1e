r"""Ratings to a score of one's own, in closed form.

.. math:: y = a s + b + w \cdot x + noise, \quad w \sim N(0, 1 / strength)

s: the shipped score; x: what the experts read. a and b, which take the scale over, have no prior, so that
with a strong ridge an affine function of the shipped score is left. Leaving one image out has a closed form,
too (Dubrule, *Cross validation of kriging in a unique neighborhood*, Mathematical Geology 1983).
"""

from __future__ import annotations

import numpy as np

from .strength import STRENGTHS, Fitted, chosen


def affine(score: np.ndarray, ratings: np.ndarray) -> Fitted:
    """The shipped score (n,) taken to the scale of the ratings (n,), with no change of the experts."""
    centred = score - score.mean()
    slope = centred @ (ratings - ratings.mean()) / max(centred @ centred, 1e-12)
    return Fitted(float(slope), float(ratings.mean() - slope * score.mean()), np.zeros(len(score)), np.inf)


def fit_ratings(kernel: np.ndarray, score: np.ndarray, ratings: np.ndarray) -> Fitted:
    """Fit to n images at the strength that leaving each out in turn speaks for.

    Args:
        kernel: (n, n).
        score: (n,), the shipped one; not all the same.
        ratings: (n,); not all the same.
    """
    values, vectors = np.linalg.eigh(kernel)
    values = np.maximum(values, 0)
    middle, spread = score.mean(), max(score.std(), 1e-6)
    line = np.stack([(score - middle) / spread, np.ones(len(score))], 1)
    # The scale of the ratings must not matter to the last digits.
    centre, unit = ratings.mean(), max(ratings.std(), 1e-300)
    along_y, along_line = vectors.T @ ((ratings - centre) / unit), vectors.T @ line
    found, losses = [], []
    for strength in STRENGTHS:
        # Multiplied by the strength, so that the strongest ridge has weights of 1.
        weights = np.ones(len(values)) if np.isinf(strength) else strength / (values + strength)
        inverse = np.linalg.inv(along_line.T @ (weights[:, None] * along_line))
        coefficients = inverse @ (along_line.T @ (weights * along_y))
        residual = vectors @ (weights * (along_y - along_line @ coefficients))
        of_line = vectors @ (weights[:, None] * along_line)
        own = vectors**2 @ weights - np.einsum("ij,jk,ik->i", of_line, inverse, of_line)
        losses.append((residual / np.maximum(own, 1e-9)) ** 2)
        found.append((coefficients, residual / strength))
    number = chosen(len(score) / 2 * np.log(np.maximum(np.mean(losses, 1), 1e-12)))
    (slope, intercept), dual = found[number]
    slope, dual = unit * slope / spread, unit * dual
    return Fitted(float(slope), float(centre + unit * intercept - slope * middle), dual, STRENGTHS[number])
