"""How much an image is like the training images, and what follows: the gate and the interval."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import nn

from .arithmetic import integers
from .arithmetic.exact import doubled
from .arithmetic.layers import QuantisedLinear

AXES = 64
"""Principal axes of the training images that are kept."""
QUANTILES = 101
CLOSES = 95
"""The quality expert is half closed at this percentile of known images."""
SLOPE = 0.5
"""How fast it closes, in interquartile ranges of known images."""


class Familiarity(nn.Module):
    r"""Posterior variance of a Bayesian linear regression, as a share of the prior's.

    .. math:: u = 1 - \frac{1}{|z|^2} \sum_j \frac{s_j}{s_j + \lambda} (a_j \cdot z)^2

    z: the tower's summary, standardised; :math:`a_j`: the principal axes of the training
    images, with :math:`s_j` the sum of their squares along it. An image whose z lies along these axes has a
    small u; one that differs from the training images in other ways has one near 1 (Rasmussen and
    Williams, *Gaussian Processes for Machine Learning*, 2006, section 2.1).

    `known` (101,) are percentiles of u of known images that the fit had not seen.

    Args:
        inputs: length of z.
    """

    centre: torch.Tensor
    scale: torch.Tensor
    kept: torch.Tensor
    known: torch.Tensor
    width: torch.Tensor

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.axes = QuantisedLinear(inputs, AXES)
        self.register_buffer("centre", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.register_buffer("kept", torch.full((AXES,), 0.5))
        self.register_buffer("known", torch.linspace(0, 1, QUANTILES))
        self.register_buffer("width", torch.tensor([0.5, 0.0]))

    def forward(self, values: torch.Tensor, steps: ModuleType = integers) -> torch.Tensor:
        """Summaries (N, inputs) to u (N, 1), 0 to 1."""
        standardised = (values - self.centre) * self.scale
        along = steps.project(self.axes, standardised)
        explained = steps.total(along.square() * self.kept, 1)
        whole = steps.total(standardised.square(), 1).clamp_min(1e-12)
        return (1 - explained / whole).unsqueeze(1)

    def likeness(self, strangeness: torch.Tensor) -> torch.Tensor:
        """The share of known images that are stranger than u (N, 1): 0 to 1, the familiarity."""
        known, u = doubled(self.known), doubled(strangeness)
        place = torch.searchsorted(known, u.detach()).clamp(1, QUANTILES - 1)
        low, high = known[place - 1], known[place]
        part = ((u - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
        return 1 - (place - 1 + part) / (QUANTILES - 1)

    def gate(self, strangeness: torch.Tensor) -> torch.Tensor:
        """The gate (N, 1) of the quality expert: near 1 for known images, near 0 for strange ones."""
        closes = doubled(self.known[CLOSES])
        return torch.sigmoid((closes - doubled(strangeness)) / (SLOPE * self._range()))

    def half_width(self, strangeness: torch.Tensor) -> torch.Tensor:
        """Half of the 90 % prediction interval (N, 1), in MOS."""
        base, growth = doubled(self.width)
        away = (doubled(strangeness) - doubled(self.known[(QUANTILES - 1) // 2])) / self._range()
        return base * torch.exp(growth * away)

    def _range(self) -> torch.Tensor:
        return doubled(self.known[75] - self.known[25]).clamp_min(1e-6)
