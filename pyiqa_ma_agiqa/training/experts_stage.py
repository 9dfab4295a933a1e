"""Stage 2: experts and gate, fitted in closed form on what the frozen tower says.

Each expert vector holds the expert's verdict first, then a few numbers for the gate to read.
The verdicts come from one ridge regression of MOS on all summaries, whose weights fall into
three blocks, one for each expert. The gate is a second ridge regression: of what the verdicts,
predicted out of fold, leave unexplained.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr

from ..compact.arch import MAAGIQA
from ..compact.quality import QualityBranch
from ..compact.semantic import split_summary
from ..experts import EXPERTS
from .quality_stage import QualityRegressor
from .settings import check_range

SMALLEST_COMPONENT = 1e-3
"""Components of a smaller deviation, against the largest, are not read by the gate."""


@dataclass
class ExpertsStageConfig:
    """Recipe of stage 2.

    Attributes:
        ridge: penalty of the verdicts, for standardised inputs of unit mean square in all.
        content_weight: prior variance of the semantic content weights against the others.
        gate_ridge: penalty of the gate.
        folds: parts of the train images for out-of-fold verdicts.
    """

    ridge: float = 1.0
    content_weight: float = 2.0
    gate_ridge: float = 1000.0
    folds: int = 5
    seed: int = 20

    def __post_init__(self) -> None:
        many = float("inf")
        check_range(self, ridge=(1e-9, many), content_weight=(0, many), gate_ridge=(1e-9, many))
        check_range(self, folds=(2, 16), seed=(0, 2**32 - 1))


@dataclass
class Blend:
    """Weight of the branch's own prediction, and the val figures that chose it."""

    weight: float
    table: list[dict[str, float]]


class Inputs:
    """Standardised inputs of the three experts, scaled so that they have unit mean square in all."""

    def __init__(self, train: np.ndarray, content_weight: float) -> None:
        parts = _split(train)
        self.means = [part.mean(0) for part in parts]
        total = sum(part.shape[1] for part in parts)
        weights = [content_weight, 1.0, 1.0]
        self.scales = [
            np.sqrt(weight / total) / (part.std(0) + 1e-6)
            for part, weight in zip(parts, weights, strict=True)
        ]

    def __call__(self, summaries: np.ndarray) -> list[np.ndarray]:
        parts = zip(_split(summaries), self.means, self.scales, strict=True)
        return [(part - mean) * scale for part, mean, scale in parts]


def _split(summaries: np.ndarray) -> list[np.ndarray]:
    return [part.numpy() for part in split_summary(torch.from_numpy(summaries))]


@dataclass
class Fit:
    """Verdicts, what the gate reads, and the gate, for E experts.

    Attributes:
        weights: for each expert (inputs,), its verdict.
        components: for each expert (inputs, read), its principal axes, scaled to unit deviation.
        gate: (E, E, read), what the gate of each expert adds to 1 for what it reads of each expert.
        mean_mos: mean of the train MOS.
    """

    weights: list[np.ndarray]
    components: list[np.ndarray]
    gate: np.ndarray
    mean_mos: float

    def predict(self, inputs: list[np.ndarray]) -> np.ndarray:
        """MOS (M,) from standardised inputs (M, n), one array for each expert."""
        verdicts = np.stack([part @ weight for part, weight in zip(inputs, self.weights, strict=True)], 1)
        seen = np.stack([part @ axes for part, axes in zip(inputs, self.components, strict=True)], 1)
        gate = 1 + np.einsum("eir,mir->me", self.gate, seen)
        return self.mean_mos + (gate * verdicts).sum(1)


def fit_mixture(
    plain: list[np.ndarray],
    flipped: list[np.ndarray],
    mos: np.ndarray,
    config: ExpertsStageConfig,
    read: int,
) -> Fit:
    """Fit verdicts and gate.

    Args:
        plain, flipped: standardised inputs (M, n) of the train images and of their mirror images, one
            array for each expert.
        mos: (M,).
        read: how many principal components of each expert's inputs the gate reads.
    """
    inputs = [np.concatenate(pair) for pair in zip(plain, flipped, strict=True)]
    gram = sum(part @ part.T for part in inputs).astype(np.float64)
    mean_mos = float(mos.mean())
    target = np.tile(mos - mean_mos, 2).astype(np.float64)

    def ridge(images: np.ndarray) -> list[np.ndarray]:
        """Weights for each expert from some of the images and their mirror images."""
        rows = np.concatenate([images, images + len(mos)])
        penalised = gram[np.ix_(rows, rows)] + config.ridge * np.eye(len(rows))
        dual = np.linalg.solve(penalised, target[rows]).astype(np.float32)
        return [part[rows].T @ dual for part in inputs]

    folds = np.random.default_rng(config.seed).integers(config.folds, size=len(mos))
    verdicts = np.zeros((len(mos), len(plain)))
    for fold in range(config.folds):
        held_out = folds == fold
        for expert, (part, weight) in enumerate(zip(plain, ridge(np.flatnonzero(~held_out)), strict=True)):
            verdicts[held_out, expert] = part[held_out] @ weight
    weights = ridge(np.arange(len(mos)))

    components, gate_inputs = [], []
    for part in plain:
        axes = np.linalg.eigh(part.T @ part)[1] if part.shape[1] < len(part) else _principal_axes(part)
        projected = part @ axes[:, -read:]
        deviation = projected.std(0)
        # Few images, or copies of some, have fewer components: what is left over would be noise made large.
        deviation[deviation < SMALLEST_COMPONENT * deviation.max(initial=0)] = np.inf
        components.append(axes[:, -read:] / deviation)
        gate_inputs.append(projected / deviation)
    products = (verdicts[:, :, None] * np.concatenate(gate_inputs, 1)[:, None, :]).reshape(len(mos), -1)
    left = mos - mean_mos - verdicts.sum(1)
    penalised = products.T @ products + config.gate_ridge * np.eye(products.shape[1])
    gate = np.linalg.solve(penalised, products.T @ left).reshape(len(plain), len(plain), read)
    return Fit(weights, components, gate, mean_mos)


def fit_experts(
    model: MAAGIQA, plain: np.ndarray, flipped: np.ndarray, mos: np.ndarray, config: ExpertsStageConfig
) -> None:
    """Fit experts and gate and write them into the model.

    Args:
        plain, flipped: (M, 6, 3, 768) summaries of the train images and of their mirror images.
        mos: (M,).
    """
    inputs = Inputs(plain, config.content_weight)
    _write(model, inputs, fit_mixture(inputs(plain), inputs(flipped), mos, config, model.width - 1))


def _principal_axes(part: np.ndarray) -> np.ndarray:
    """Axes of the largest variance, last, from the Gram matrix."""
    values, vectors = np.linalg.eigh((part @ part.T).astype(np.float64))
    return part.T @ (vectors / np.sqrt(np.maximum(values, 1e-9)))


@torch.no_grad()
def _write(model: MAAGIQA, inputs: Inputs, fit: Fit) -> None:
    layers = [model.semantic_expert, model.coherence_expert, model.quality_expert]
    for layer, mean, scale, weight, axes in zip(
        layers, inputs.means, inputs.scales, fit.weights, fit.components, strict=True
    ):
        matrix = np.concatenate([weight[:, None], axes], 1).T * scale
        layer.weight.zero_()
        layer.weight[:, -matrix.shape[1] :] = torch.from_numpy(matrix).float()
        layer.bias.copy_(torch.from_numpy(-(matrix @ mean)))
    gating = model.experts.gating
    gating.bias.fill_(1)
    gating.weight.zero_()
    gate = torch.from_numpy(fit.gate).float()
    gating.weight.view(len(EXPERTS), len(EXPERTS), model.width)[:, :, 1:] = gate
    model.experts.output.weight.zero_()
    model.experts.output.weight[0, 0] = 1
    model.experts.output.bias.fill_(fit.mean_mos)


@torch.inference_mode()
def predict_experts(model: MAAGIQA, summaries: np.ndarray, features: np.ndarray | None = None) -> np.ndarray:
    """MOS (M,) from cached summaries and mean branch features (M, 1280); none before the branch joins."""
    if features is None:
        features = np.zeros((len(summaries), QualityBranch.width), np.float32)
    return model.mix(torch.from_numpy(summaries), torch.from_numpy(features)).score.squeeze(1).numpy()


def choose_blend(experts: np.ndarray, branch: np.ndarray, mos: np.ndarray) -> Blend:
    """The weight, in steps of 0.05, with the best SRCC + PLCC of val predictions (M,)."""
    table = []
    for weight in np.arange(0, 0.95, 0.05).round(2):
        blended = (1 - weight) * experts + weight * branch
        srcc, plcc = spearmanr(blended, mos)[0], pearsonr(blended, mos)[0]
        table.append({"weight": float(weight), "srcc": float(srcc), "plcc": float(plcc)})
    best = max(table, key=lambda row: row["srcc"] + row["plcc"])
    return Blend(best["weight"], table)


@torch.no_grad()
def join_branch(model: MAAGIQA, branch: QualityRegressor, weight: float) -> None:
    """Let the branch into the quality expert's verdict.

    Afterwards the score is b + (1 - weight) sum_i g_i v_i + weight g_q (q - b): v_i the verdicts
    before, q the branch's own prediction. The gate reads what it read before. The model's own branch, in
    integers, is to be set by the caller.
    """
    mean_mos = model.experts.output.bias.item()
    for layer in (model.semantic_expert, model.coherence_expert, model.quality_expert):
        layer.weight[0] *= 1 - weight
        layer.bias[0] *= 1 - weight
    model.quality_expert.weight[0, : QualityBranch.width] = weight * branch.head.weight[0]
    model.quality_expert.bias[0] += weight * (branch.head.bias[0] - mean_mos)
