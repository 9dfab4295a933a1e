"""Ridge regression of MOS in closed form, with a random effect of the generator where one is asked for.

.. math:: MOS = b + w \\cdot z + u_{generator} + noise, \\quad w \\sim N(0, 1), \\quad u \\sim N(0, c)

What all images of one generator have in common is left to u, which is not used to predict: so w need not
explain, and learn to recognise, which generator made an image. With c = 0 there is no u. Copies that were
made worse on purpose are observations, too: of a fall of w . z.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh


@dataclass
class Seen:
    """M rated images as the tower sees them, and copies of some that are worse.

    Attributes:
        summaries: (M, n) what the tower says.
        mos: (M,).
        generators: (M,) text; all the same where generators are not known.
        noise: (M,) variance of each MOS in units of the mean one.
        falls: (R, n) what the tower says of a copy less what they say of a milder one.
        fallen: (R,) row of the image that each is a copy of.
    """

    summaries: np.ndarray
    mos: np.ndarray
    generators: np.ndarray
    noise: np.ndarray
    falls: np.ndarray
    fallen: np.ndarray

    def __len__(self) -> int:
        return len(self.mos)

    def only(self, kept: np.ndarray) -> Seen:
        """The images where ``kept`` (M,) is true, with their copies."""
        copies = kept[self.fallen]
        place = np.cumsum(kept) - 1
        return Seen(
            self.summaries[kept],
            self.mos[kept],
            self.generators[kept],
            self.noise[kept],
            self.falls[copies],
            place[self.fallen[copies]],
        )


@dataclass
class Penalties:
    """What the closed form weighs.

    Attributes:
        noise: variance of the noise of a MOS, against that of w.
        generator: c.
        fall: by how much a copy is expected to be worse, in MOS.
        fall_noise: variance of that, against that of w.
    """

    noise: float
    generator: float
    fall: float
    fall_noise: float


def ridge(
    inputs: np.ndarray, falls: np.ndarray, seen: Seen, penalties: Penalties
) -> tuple[np.ndarray, float]:
    """Weights w (n,) and intercept b.

    Args:
        inputs: z (M, n), scaled to a mean square of 1 in all.
        falls: (R, n), differences of z, of which w is expected to make -fall.
        seen: MOS, generators and noise of the M images.
        penalties: see there.
    """
    rows = np.concatenate([inputs, falls])
    dual, intercept = duals((rows @ rows.T).astype(np.float64), seen, penalties)
    return rows.T @ dual.astype(np.float32), intercept


def duals(kernel: np.ndarray, seen: Seen, penalties: Penalties) -> tuple[np.ndarray, float]:
    """The weights w as a sum of rows: factors (M + R,) of images and copies, and intercept b.

    Args:
        kernel: (M + R, M + R) float64, products of the rows z of M images and R falls; it is written over.
        seen: MOS, generators and noise of the M images.
        penalties: see there.
    """
    count = len(seen)
    falls = len(kernel) - count
    kernel[:count, :count] += penalties.generator * (seen.generators[:, None] == seen.generators[None, :])
    noise = np.concatenate([penalties.noise * seen.noise, np.full(falls, penalties.fall_noise)])
    kernel[np.diag_indices(len(kernel))] += noise
    target = np.concatenate([seen.mos.astype(np.float64), np.full(falls, -penalties.fall)])
    constant = np.concatenate([np.ones(count), np.zeros(falls)])
    of_target, of_constant = np.linalg.solve(kernel, np.stack([target, constant], 1)).T
    intercept = (constant @ of_target) / (constant @ of_constant)  # of generalised least squares
    return of_target - intercept * of_constant, float(intercept)


def principal_axes(inputs: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The axes of the largest sums of squares.

    Args:
        inputs: z (M, n).
        count: how many; where there are fewer, the rest are zero.

    Returns:
        Axes (count, n) of unit length and sums of squares (count,), largest first.
    """
    kernel = (inputs @ inputs.T).astype(np.float64)
    first = max(0, len(kernel) - count)
    values, vectors = eigh(kernel, subset_by_index=(first, len(kernel) - 1))
    values, vectors = values[::-1], vectors[:, ::-1]
    there = values > 1e-6 * max(values[0], 1e-12)
    values, vectors = values[there], vectors[:, there]
    axes = np.zeros((count, inputs.shape[1]), np.float32)
    squares = np.zeros(count)
    axes[: len(values)] = (inputs.T @ (vectors / np.sqrt(values)).astype(np.float32)).T
    squares[: len(values)] = values
    return axes, squares
