"""Experts, gate and interval, fitted in closed form to what the frozen tower says.

Two ridge regressions of MOS: *alone* reads the late blocks only and gives the experts on meaning their
verdicts; *together* reads all blocks, and what it says more than the first is the verdict of the quality
expert. So with the gate open the score is the second one, and with the gate closed the first. The quality
branch joins the quality expert afterwards; see `joining.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit

from ..compact.arch import MAAGIQA
from ..compact.familiarity import AXES, CLOSES, QUANTILES, SLOPE
from ..compact.quality import QualityBranch
from ..compact.semantic import CLASS_TOKENS, EARLY_AND_MIDDLE, SUMMARY, late_parts
from .closed_form import Penalties, Seen, principal_axes, ridge
from .settings import check_range

COVERAGE = 0.9
"""Part of the MOS that the intervals are to hold."""
GROWTHS = np.arange(0, 1.55, 0.05)
"""How fast the interval may grow with strangeness."""
LEAST_OF_A_GENERATOR = 30
"""Generators of fewer images are not left out to see what becomes of strangers."""


@dataclass
class ExpertsStageConfig:
    """Recipe of the experts.

    Attributes:
        ridge: variance of the noise, against that of all weights together.
        early_weight: prior variance of a weight of an early or middle block, against a late one's.
        class_weight: that of the class tokens, against the patch statistics'.
        generator_variance: c of `closed_form`; 0 for none.
        rater_weight: 0: all MOS count the same; 1: by the variance among raters.
        fall: by how much each step of degradation is expected to lower the score, in MOS.
        fall_noise: variance of that, against that of all weights together.
        folds: parts of the train images, each predicted by the others.
    """

    ridge: float = 0.7
    early_weight: float = 0.3
    class_weight: float = 2.0
    generator_variance: float = 0.0
    rater_weight: float = 0.5
    fall: float = 0.25
    fall_noise: float = 1.0
    folds: int = 16
    seed: int = 20

    def __post_init__(self) -> None:
        many = float("inf")
        check_range(self, ridge=(1e-9, many), early_weight=(0, many), class_weight=(1e-9, many))
        check_range(self, generator_variance=(0, many), rater_weight=(0, 1))
        check_range(self, fall=(0, many), fall_noise=(1e-9, many))
        check_range(self, folds=(2, 16), seed=(0, 2**32 - 1))


def rating_noise(deviation: np.ndarray, rater_weight: float) -> np.ndarray:
    """Variance (M,) of the noise of each MOS, against that of all, from the raters' deviations (M,)."""
    variance = deviation.astype(np.float64) ** 2
    return np.maximum(1 - rater_weight + rater_weight * variance / max(variance.mean(), 1e-12), 1e-3)


def prior(config: ExpertsStageConfig) -> np.ndarray:
    """Prior variance (18432,) of each weight on the summary; they sum up to 1."""
    variance = np.ones(SUMMARY)
    variance[:EARLY_AND_MIDDLE] *= config.early_weight
    variance[:, :CLASS_TOKENS] *= config.class_weight
    return variance.reshape(-1) / variance.sum()


def standardisation(summaries: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre and scale (n,) of the inputs z = (x - centre) * scale, whose weights all have one prior.

    Args:
        summaries: x (M, n).
        variance: prior variance (n,) of each weight.
    """
    return summaries.mean(0), (np.sqrt(variance) / (summaries.std(0) + 1e-6)).astype(np.float32)


def penalties(config: ExpertsStageConfig) -> Penalties:
    """What of the recipe the closed form weighs."""
    return Penalties(config.ridge, config.generator_variance, config.fall, config.fall_noise)


LATE = (np.arange(SUMMARY[0]) >= EARLY_AND_MIDDLE).repeat(math.prod(SUMMARY[1:]))
"""(18432,) where a summary is of late blocks."""


@dataclass
class Fit:
    """Weights on standardised inputs z = (x - centre) * scale, (18432,) each.

    Attributes:
        alone, together: weights of the two regressions, with their intercepts.
        axes: (64, 18432), and the part of the prior's variance along each that is known, (64,).
    """

    centre: np.ndarray
    scale: np.ndarray
    alone: np.ndarray
    together: np.ndarray
    intercepts: tuple[float, float]
    axes: np.ndarray
    kept: np.ndarray

    def predict(self, summaries: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """MOS (M,) of both regressions, and strangeness (M,), of (M, 18432)."""
        inputs = (summaries - self.centre) * self.scale
        explained = ((inputs @ self.axes.T).astype(np.float64) ** 2) @ self.kept
        whole = np.maximum((inputs.astype(np.float64) ** 2).sum(1), 1e-12)
        alone, together = (
            inputs @ weights + intercept
            for weights, intercept in zip((self.alone, self.together), self.intercepts, strict=True)
        )
        return alone, together, 1 - explained / whole


def fit(seen: Seen, config: ExpertsStageConfig) -> Fit:
    """Fit both regressions."""
    variance = prior(config)
    centre, scale = standardisation(seen.summaries, variance)
    inputs, falls = (seen.summaries - centre) * scale, seen.falls * scale
    together, intercept = ridge(inputs, falls, seen, penalties(config))
    axes, squares = principal_axes(inputs, AXES)
    # The late blocks alone have the whole of the prior's variance.
    share = np.float32(np.sqrt(variance[LATE].sum()))
    late, of_late = ridge(inputs[:, LATE] / share, falls[:, LATE] / share, seen, penalties(config))
    alone = np.zeros_like(together)
    alone[LATE] = late / share
    kept = squares / (squares + config.ridge)
    return Fit(centre, scale, alone, together, (of_late, intercept), axes, kept)


@dataclass
class HeldOut:
    """What is predicted of images by fits that have not seen them: (M,) each."""

    alone: np.ndarray
    together: np.ndarray
    strangeness: np.ndarray

    def scores(self, known: np.ndarray) -> np.ndarray:
        """MOS (M,) behind the gate that percentiles `known` (101,) give."""
        return self.alone + gate_of(self.strangeness, known) * (self.together - self.alone)

    def away(self, known: np.ndarray) -> np.ndarray:
        """Strangeness in interquartile ranges from the median of known images."""
        return (self.strangeness - known[50]) / _spread(known)


def gate_of(strangeness: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Gate (M,) of images so strange, where known images have the percentiles `known` (101,)."""
    return expit((known[CLOSES] - strangeness) / (SLOPE * _spread(known)))


def _spread(known: np.ndarray) -> float:
    return max(known[75] - known[25], 1e-6)


def held_out(seen: Seen, parts: Iterable[np.ndarray], config: ExpertsStageConfig) -> HeldOut:
    """Each part (M,) of the images, by a fit to the others; NaN for images in no part."""
    found = np.full((3, len(seen)), np.nan)
    for part in parts:
        found[:, part] = fit(seen.only(~part), config).predict(seen.summaries[part])
    return HeldOut(*found)


def of_known_images(seen: Seen, config: ExpertsStageConfig) -> tuple[HeldOut, np.ndarray]:
    """Each image by a fit to the other folds, and percentiles (101,) of their strangeness."""
    found = held_out(seen, _folds(len(seen), config), config)
    return found, np.percentile(found.strangeness, np.linspace(0, 100, QUANTILES))


def _folds(count: int, config: ExpertsStageConfig) -> Iterator[np.ndarray]:
    of_row = np.random.default_rng(config.seed).integers(config.folds, size=count)
    return (of_row == fold for fold in np.unique(of_row))


@dataclass
class Calibration:
    """What the gate and the interval need to know of images that a fit has not seen.

    Attributes:
        known: (101,) percentiles of their strangeness.
        width: half of the interval at the median strangeness in MOS, and how fast it grows.
        coverage: part of the MOS that it holds, of known images, and by generator left out.
    """

    known: np.ndarray
    width: tuple[float, float]
    coverage: dict[str, float]


def calibrate(seen: Seen, config: ExpertsStageConfig) -> Calibration:
    """Percentiles and interval from train images alone.

    Split conformal prediction (Lei et al., *Distribution-free predictive inference for regression*, JASA
    2018) on known images; the growth is the smallest with which generators left out are covered, too.
    """
    of_known, known = of_known_images(seen, config)
    off, away = np.abs(of_known.scores(known) - seen.mos), of_known.away(known)

    names, counts = np.unique(seen.generators, return_counts=True)
    large = [str(name) for name, count in zip(names, counts, strict=True) if count >= LEAST_OF_A_GENERATOR]
    if len(large) < 2:
        base = narrowest(off, away, 0.0)
        return Calibration(known, (base, 0.0), {"known images": float((off <= base).mean())})
    strangers = held_out(seen, (seen.generators == name for name in large), config)
    off_strangers, away_strangers = np.abs(strangers.scores(known) - seen.mos), strangers.away(known)
    for growth in GROWTHS:
        base = narrowest(off, away, growth)
        held = off_strangers <= base * np.exp(growth * away_strangers)
        by_generator = {name: float(held[seen.generators == name].mean()) for name in large}
        if np.mean(list(by_generator.values())) >= COVERAGE:
            break
    kept = float((off <= base * np.exp(growth * away)).mean())
    return Calibration(known, (base, float(growth)), {"known images": kept} | by_generator)


def conformal(off: np.ndarray) -> float:
    """The error that 90 % of new images stay below, from those (N,) of images that a fit had not seen."""
    rank = min(1.0, np.ceil((len(off) + 1) * COVERAGE) / len(off))
    return float(np.quantile(off, rank, method="higher"))


def narrowest(off: np.ndarray, away: np.ndarray, growth: float) -> float:
    """The width at the median strangeness that holds the familiar half of images, and the other half, too.

    Held as one, familiar images would pay for it that the interval grows: it would be too wide for the other
    half and too narrow for them. Reference: Vovk, *Conditional validity of inductive conformal predictors*,
    ACML 2012 (the condition is the half that an image is in).

    Args:
        off: errors (N,) of images that a fit had not seen.
        away: their strangeness, as `HeldOut.away` has it.
        growth: of the width.
    """
    at_median = off / np.exp(growth * away)
    halves = (at_median[half] for half in (away <= 0, away > 0) if half.any())
    return max(conformal(half) for half in halves)


@torch.no_grad()
def write(model: MAAGIQA, fit: Fit, calibration: Calibration) -> None:
    """Write a fit into the model."""
    alone, more = fit.alone * fit.scale, (fit.together - fit.alone) * fit.scale
    content, coherence = late_parts(alone.reshape(SUMMARY))
    content_centre, coherence_centre = late_parts(fit.centre.reshape(SUMMARY))
    pixels = np.zeros(QualityBranch.width, np.float32)
    for expert, weights, middle in (
        (model.semantic_expert, content, content_centre),
        (model.coherence_expert, coherence, coherence_centre),
        (model.quality_expert, np.concatenate([pixels, more]), np.concatenate([pixels, fit.centre])),
    ):
        expert.weight.copy_(torch.from_numpy(weights.reshape(1, -1)))
        expert.bias.fill_(-float(weights.reshape(-1).astype(np.float64) @ middle.reshape(-1)))
    model.quality_expert.bias.add_(fit.intercepts[1] - fit.intercepts[0])
    model.bias.fill_(fit.intercepts[0])
    familiarity = model.familiarity
    familiarity.centre.copy_(torch.from_numpy(fit.centre))
    familiarity.scale.copy_(torch.from_numpy(fit.scale))
    familiarity.axes.set(torch.from_numpy(fit.axes), torch.zeros(AXES))
    familiarity.kept.copy_(torch.from_numpy(fit.kept))
    familiarity.known.copy_(torch.from_numpy(calibration.known))
    familiarity.width.copy_(torch.tensor(calibration.width))


def fit_experts(model: MAAGIQA, seen: Seen, config: ExpertsStageConfig) -> Calibration:
    """Fit experts, gate and interval to the train images and write them into the model.

    Args:
        seen: summaries are (M, 18432).
    """
    calibration = calibrate(seen, config)
    write(model, fit(seen, config), calibration)
    return calibration


@torch.inference_mode()
def predict_experts(model: MAAGIQA, features: np.ndarray, summaries: np.ndarray) -> np.ndarray:
    """MOS (M,) that the model makes of mean branch features (M, 1280) and summaries (M, 18432)."""
    judged = model.judge(torch.from_numpy(summaries.reshape(-1, *SUMMARY)), torch.from_numpy(features))
    return judged.score.squeeze(1).numpy()
