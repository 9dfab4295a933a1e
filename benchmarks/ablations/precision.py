"""What does precision cost: the shipped model with other weights and without rounding."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.common.statistics_of_scores import figures, srcc
from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.compact.arithmetic import floats
from pyiqa_ma_agiqa.compact.arithmetic.exact import SMALLEST
from pyiqa_ma_agiqa.compact.arithmetic.layers import MIDDLE, QuantisedLinear
from pyiqa_ma_agiqa.compact.preprocessing import branch_view, encoder_view
from pyiqa_ma_agiqa.training.crops import to_tensor
from pyiqa_ma_agiqa.training.data import Images, Ratings

BITS = (6, 4)

Score = Callable[[torch.Tensor], torch.Tensor]
"""Pixels (N, 3, H, W) in [0, 1] to scores (N, 1)."""


def restored(model: MAAGIQA, bits: int) -> MAAGIQA:
    """A copy in which the matrices of both networks have fewer bits, held in the integers of 8 bits."""
    other = copy.deepcopy(model)
    for layer in other.encoder.modules():
        if isinstance(layer, QuantisedLinear):
            layer.set(snapped(layer.matrix(), bits), layer.bias)
    for number, (convolution, factor) in enumerate(other.branch.in_order()):
        matrix, bias = convolution.matrix(), convolution.bias
        convolution.set(snapped(matrix, bits), bias)
        if number == 0 or factor is not None:
            # The bias takes off what the matrix makes of the level that stands for zero.
            change = (matrix - convolution.matrix()).sum((1, 2, 3)) * MIDDLE
            convolution.set(snapped(matrix, bits), bias + change)
    return other


def snapped(matrix: torch.Tensor, bits: int) -> torch.Tensor:
    """The nearest matrix of whole multiples of a step for each row, as many as the bits have."""
    step = matrix.flatten(1).abs().amax(1).clamp_min(SMALLEST) / (2 ** (bits - 1) - 1)
    step = step.view(-1, *[1] * (matrix.dim() - 1))
    return (matrix / step).round() * step


def without_rounding(model: MAAGIQA) -> Score:
    """Scores with the same weights, of which no activation is rounded."""

    def score(pixels: torch.Tensor) -> torch.Tensor:
        summary, features = model.backbone_passes(encoder_view(pixels), branch_view(pixels), floats)
        return model.judge(summary, floats.mean(features, (2, 3)), floats).score

    return score


def precision(model: MAAGIQA, ratings: Ratings, shipped: np.ndarray) -> dict[str, dict[str, float]]:
    """Figures of a model by precision of weights and activations.

    Args:
        ratings: of the M images to score.
        shipped: (M,) scores of the model as it is.
    """
    pixels = Images(ratings.paths)
    variants: dict[str, Score] = {"the same weights, activations not rounded": without_rounding(model)}
    variants |= {f"weights of {bits} bits": restored(model, bits) for bits in BITS}
    measured = {"integers: as shipped": shipped}
    with torch.inference_mode():
        for name, score in variants.items():
            scores = [score(to_tensor([pixels[row]])).item() for row in tqdm(range(len(pixels)), name)]
            measured[name] = np.array(scores)
    return compared(measured, ratings.mos, ratings.generators)


def compared(
    measured: dict[str, np.ndarray], mos: np.ndarray, generators: np.ndarray
) -> dict[str, dict[str, float]]:
    """Figures of each row of scores, and how far they lie from those of the first."""
    first = next(iter(measured.values()))
    results = {}
    for name, scores in measured.items():
        results[name] = figures(scores, mos, generators)
        if scores is not first:
            change = np.abs(scores - first)
            results[name] |= {
                "mean_change": float(change.mean()),
                "largest_change": float(change.max()),
                "rank_agreement": float(srcc(scores, first)),
            }
    return results
