"""Ridge regression of MOS in closed form, with a random effect of the generator.

.. math:: MOS = b + w \\cdot z + u_{generator} + noise, \\quad w \\sim N(0, 1), \\quad u \\sim N(0, c)

What all images of one generator have in common is left to u, which is not used to predict: so w need not
explain, and learn to recognise, which generator made an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Rated:
    """What a fit is told of M images.

    Attributes:
        mos: (M,).
        generators: (M,) text; all the same where generators are not known.
        noise: (M,) variance of each MOS in units of the mean one.
    """

    mos: np.ndarray
    generators: np.ndarray
    noise: np.ndarray

    def __len__(self) -> int:
        return len(self.mos)

    def __getitem__(self, rows: np.ndarray) -> Rated:
        return Rated(self.mos[rows], self.generators[rows], self.noise[rows])


def ridge(
    inputs: np.ndarray, rated: Rated, penalty: float, generator_variance: float
) -> tuple[np.ndarray, float]:
    """Weights w (n,) and intercept b.

    Args:
        inputs: z (M, n), scaled to a mean square of 1 in all.
        rated: M images.
        penalty: variance of the noise against that of w.
        generator_variance: c.
    """
    kernel = (inputs @ inputs.T).astype(np.float64)
    kernel += generator_variance * (rated.generators[:, None] == rated.generators[None, :])
    kernel[np.diag_indices(len(rated))] += penalty * rated.noise
    ones = np.ones(len(rated))
    of_mos, of_ones = np.linalg.solve(kernel, np.stack([rated.mos.astype(np.float64), ones], 1)).T
    intercept = of_mos.sum() / of_ones.sum()  # of generalised least squares
    dual = of_mos - intercept * of_ones
    return inputs.T @ dual.astype(np.float32), float(intercept)


def principal_axes(inputs: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The axes of the largest sums of squares.

    Args:
        inputs: z (M, n).
        count: how many; where there are fewer, the rest are zero.

    Returns:
        Axes (count, n) of unit length and sums of squares (count,), largest first.
    """
    kernel = (inputs @ inputs.T).astype(np.float64)
    values, vectors = np.linalg.eigh(kernel)
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    there = values > 1e-6 * max(values[0], 1e-12)
    values, vectors = values[there], vectors[:, there]
    axes = np.zeros((count, inputs.shape[1]), np.float32)
    squares = np.zeros(count)
    axes[: len(values)] = (inputs.T @ (vectors / np.sqrt(values)).astype(np.float32)).T
    squares[: len(values)] = values
    return axes, squares
