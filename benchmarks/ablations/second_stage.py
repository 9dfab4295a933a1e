"""The recipe's second stage, run again with some of its experts, without its gate or with more views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.training.experts_stage import ExpertsStageConfig, Fit, Inputs, choose_blend, fit_mixture

ALL = (0, 1, 2)
"""All experts, in the order of `EXPERTS`."""
SEMANTIC, COHERENCE, QUALITY = ALL
READ = MAAGIQA.width - 1
"""How many numbers the gate reads of each expert."""


class Row(NamedTuple):
    """Scores (M,) of all images by one variant, and the weight of the branch where it has one."""

    scores: np.ndarray
    blend: float | None = None


class Stage:
    """The recipe's second stage, experts and gate, on summaries of M images.

    Args:
        plain: (M, 6, 3, 768) summaries of the images.
        flipped: the same of the mirror images of the train part.
        branch: (M,) MOS that the quality branch alone predicts.
        mos: (M,).
        fitted, chosen: row numbers of train and val.
    """

    def __init__(
        self,
        plain: np.ndarray,
        flipped: np.ndarray,
        branch: np.ndarray,
        mos: np.ndarray,
        fitted: np.ndarray,
        chosen: np.ndarray,
    ) -> None:
        self.config = ExpertsStageConfig()
        self.make = Inputs(plain[fitted], self.config.content_weight)
        self.plain, self.flipped = self.make(plain), self.make(flipped)
        self.branch, self.mos, self.fitted, self.chosen = branch, mos, fitted, chosen

    def fit(self, experts: Sequence[int] = ALL, mirror: bool = True) -> Fit:
        """Verdicts and gate of some of the experts."""
        plain = [self.plain[expert][self.fitted] for expert in experts]
        flipped = [self.flipped[expert] for expert in experts] if mirror else plain
        return fit_mixture(plain, flipped, self.mos[self.fitted], self.config, READ)

    def predict(self, fit: Fit, experts: Sequence[int] = ALL) -> np.ndarray:
        """MOS (M,) before the branch joins."""
        return fit.predict([self.plain[expert] for expert in experts])

    def join(
        self, fit: Fit, experts: Sequence[int] = ALL, views: list[list[np.ndarray]] | None = None
    ) -> Row:
        """With the branch let into the quality expert, at the weight that val chooses, as in the recipe.

        Args:
            fit: of the experts that are named.
            experts: without the one of quality, the branch is added ungated.
            views: standardised inputs of all experts for each view to average; by default the image alone.
        """
        inputs = [[view[expert] for expert in experts] for view in views or [self.plain]]
        alone = np.mean([fit.predict(view) for view in inputs], 0)
        chosen = self.chosen
        weight = choose_blend(alone[chosen], self.branch[chosen], self.mos[chosen]).weight
        if QUALITY in experts:
            gate = np.mean([gates(fit, view) for view in inputs], 0)[:, list(experts).index(QUALITY)]
        else:
            gate = np.ones(len(alone))
        of_branch = weight * gate * (self.branch - fit.mean_mos)
        return Row(fit.mean_mos + (1 - weight) * (alone - fit.mean_mos) + of_branch, weight)


def gates(fit: Fit, inputs: list[np.ndarray]) -> np.ndarray:
    """What each expert's verdict is multiplied by, (M, E)."""
    seen = np.stack([part @ axes for part, axes in zip(inputs, fit.components, strict=True)], 1)
    return 1 + np.einsum("eir,mir->me", fit.gate, seen)


def without_gate(fit: Fit) -> Fit:
    """The same verdicts, added up as they are."""
    return Fit(fit.weights, fit.components, np.zeros_like(fit.gate), fit.mean_mos)
