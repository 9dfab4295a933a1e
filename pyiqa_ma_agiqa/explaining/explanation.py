"""What a score is made of, for one image, as plain data."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
import torch

from ..compact.reference_scores import differences, has_reference, percentile, reference_scores
from ..errors import InputError
from ..experts import EXPERTS
from ..input_checks import check_tensor, read_tensor
from ..registration.configs import CONFIGS


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """The parts of one score.

    The shares are exact: they sum to the score, and the quality map has the share of quality as its
    mean, both but for float32 rounding. A share says what an expert added to this score, not what a
    person would say is wrong with the image. As every share carries a part of the mean score, it is the
    difference from a typical share that tells one image from another.

    The reference is the predictions of ma_agiqa with the shipped weights for the official test part of
    AGIQA-3K; for another metric or other weights there is none.

    Attributes:
        metric: name of the metric.
        score: on the MOS scale of AGIQA-3K, about 0 to 5, higher is better.
        percentile: percentage, 0 to 100, of the reference predictions that lie below the score; None
            without reference.
        typical: the mean of the reference predictions; None without reference.
        shares: of semantic content, coherence and quality, in units of the score; may be negative.
        differences: of each share from its mean in the reference predictions; ``typical`` and the three
            differences sum to the score. None without reference.
        gate: the weight that each of the three got in the mixture. In ma_agiqa 1 for semantic content and
            coherence, and for quality 0 to 1, the less the stranger the image.
        interval: low and high end of the 90 % prediction interval for the mean opinion of people, on the
            scale of the score; None for another metric than ma_agiqa.
        familiarity: the share, 0 to 1, of known images (held-out ones, of the kind that ma_agiqa was
            trained on) that are stranger than this one; None for another metric.
        quality_map: (h, w), float32, the share of quality by patch, in units of the score, from the top
            left of the image; may be negative. (28, 28) for the published system.
        image: (H, W, 3), uint8, RGB, the image as it was scored.
    """

    metric: str
    score: float
    percentile: float | None
    typical: float | None
    shares: dict[str, float]
    differences: dict[str, float] | None
    gate: dict[str, float]
    interval: tuple[float, float] | None
    familiarity: float | None
    quality_map: np.ndarray = dataclasses.field(repr=False)
    image: np.ndarray = dataclasses.field(repr=False)

    @property
    def difference_map(self) -> np.ndarray | None:
        """(h, w), float32, the quality map less the typical share of quality; its mean is the difference
        of quality. None without reference."""
        if self.differences is None:
            return None
        return self.quality_map - np.float32(self.shares["quality"] - self.differences["quality"])


def explain(img: Any, metric: str | torch.nn.Module = "ma_agiqa") -> Explanation:
    """Score one image and say what the score is made of.

    Args:
        img: path, content of an image file (bytes), Pillow image, or tensor (1, 3, H, W) or (1, 1, H, W)
            in [0, 1].
        metric: a metric of this package, from `pyiqa.create_metric`, or the name of one. By name it is
            created at the first call, on the GPU where there is one, and kept for the next ones.

    Returns:
        The parts; the score is that of ``metric(img)``.

    Raises:
        InputError: what the metric would refuse, more than one image, a metric without experts or made as
            a loss, or one that gives no finite score.
        WeightsError: weights missing, out of reach or damaged.

    Reference: Wang et al., *Large Multi-modality Model Assisted AI-Generated Image Quality
    Assessment*, ACM MM 2024, section 3.3, for the mixture of experts that is taken apart here.
    """
    name = metric if isinstance(metric, str) else getattr(metric, "metric_name", type(metric).__name__)
    if name not in CONFIGS:
        raise InputError(f"{name} has no experts to tell of; give one of {', '.join(CONFIGS)}")
    if getattr(metric, "as_loss", False):
        raise InputError(f"{name} was made as a loss, which gives one number; give one without as_loss")
    pixels = check_tensor(read_tensor(img))
    if len(pixels) != 1:
        raise InputError(
            f"tensor of shape {tuple(pixels.shape)} has {len(pixels)} images; give one at a time"
        )
    scorer = _created(metric) if isinstance(metric, str) else metric
    parts = scorer(pixels, return_parts=True)
    parts = {part: value[0].detach().cpu() for part, value in parts.items()}
    score = parts["score"].item()
    if not math.isfinite(score):
        raise InputError(f"the score is {score}; check the weights of {name}")
    shares = dict(zip(EXPERTS, parts["shares"].tolist(), strict=True))
    referred = has_reference(scorer)
    return Explanation(
        metric=name,
        score=score,
        percentile=percentile(score) if referred else None,
        typical=reference_scores().typical if referred else None,
        shares=shares,
        differences=differences(shares) if referred else None,
        gate=dict(zip(EXPERTS, parts["gate"].tolist(), strict=True)),
        interval=tuple(parts["interval"].tolist()) if "interval" in parts else None,
        familiarity=parts["familiarity"].item() if "familiarity" in parts else None,
        quality_map=parts["quality_map"].numpy(),
        image=(pixels[0].detach().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy(),
    )


@functools.lru_cache(maxsize=1)
def _created(name: str) -> torch.nn.Module:
    import pyiqa  # takes seconds, and the caller may have made a metric already

    return pyiqa.create_metric(name)
