"""MA-AGIQA with a compact semantic encoder: the metric ``ma_agiqa``."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
from torch import nn

from ..experts import mixture
from ..input_checks import check_tensor
from ..own_network import OwnReading
from ..uncompiled import uncompiled
from .arithmetic import floats, integers
from .arithmetic.layers import QuantisedConvolution, QuantisedLinear
from .familiarity import Familiarity
from .preprocessing import branch_view, encoder_view
from .quality import QualityBranch
from .semantic import COHERENCE, CONTENT, SUMMARY, SemanticEncoder, late_summary
from .shipped import shipped_weights
from .storage import load_weights

logger = logging.getLogger("pyiqa")

CHUNK = 16
"""Images that pass the backbones at once; bounds the memory of large batches."""
CHUNK_ON_CPU = 4
"""More do not fit the processor's caches."""
EVERYTHING = QualityBranch.width + math.prod(SUMMARY)
"""How many numbers both networks say of an image."""


class Judgement(NamedTuple):
    """What the experts make of images.

    Attributes:
        score: (N, 1), in MOS.
        gate: (N, 3).
        shares: (N, 3), which sum to the score.
        familiarity: (N, 1), 0 to 1.
        interval: (N, 2), low and high end of the 90 % prediction interval, in MOS.
    """

    score: torch.Tensor
    gate: torch.Tensor
    shares: torch.Tensor
    familiarity: torch.Tensor
    interval: torch.Tensor


class MAAGIQA(OwnReading, nn.Module):
    r"""No-reference quality of AI-generated images, on the MOS scale of AGIQA-3K (about 0 to 5).

    The design of MA-AGIQA with a compact semantic encoder: the CLIP ViT-B/16 image tower stands in
    the place of mPLUG-Owl2-7B with its two text prompts, and EfficientNet-Lite0 in the place of
    the ViT-B/8 + Swin quality branch, both in integers of 8 bits. Trained by this project on
    AGIQA-3K. It is **not** the published system and not its weights.

    .. math:: s = v_{sem} + v_{coh} + g v_q + b

    - :math:`v_{sem}`, semantic content: linear in the class tokens of the tower's late blocks.
    - :math:`v_{coh}`, coherence: linear in the statistics of the late blocks' patch tokens. Both are fitted
      without the others, so that they stand by themselves on images of any generator.
    - :math:`v_q`, quality: what early blocks and pixels add; linear in everything that both networks say.
      They recognise generators, too, so
    - :math:`g`, the gate, closes this expert on images unlike the training images; see `Familiarity`.

    Args:
        pretrained: load the weights that the package carries; ``False`` for random weights.
        pretrained_model_path: a file that `pyiqa-ma-agiqa train` or `adapt` wrote, loaded instead.

    Raises:
        WeightsError: weights missing, damaged or not of this architecture.

    Reference: Wang et al., *Large Multi-modality Model Assisted AI-Generated Image Quality
    Assessment*, ACM MM 2024, sections 3.2 and 3.3.
    """

    def __init__(
        self, pretrained: bool = True, pretrained_model_path: str | os.PathLike | None = None
    ) -> None:
        super().__init__()
        self.check_input_range = True
        self.has_shipped_weights = pretrained and not pretrained_model_path
        path = (
            Path(pretrained_model_path)
            if pretrained_model_path
            else shipped_weights()
            if pretrained
            else None
        )
        with torch.device("cpu"):
            self.encoder = SemanticEncoder()
            self.branch = QualityBranch()
            self.semantic_expert = nn.Linear(CONTENT, 1)
            self.coherence_expert = nn.Linear(COHERENCE, 1)
            self.quality_expert = nn.Linear(EVERYTHING, 1)
            self.bias = nn.Parameter(torch.zeros(1))
            self.familiarity = Familiarity(math.prod(SUMMARY))
            if not path:
                self._draw()
        if path:
            load_weights(self, path, assign=True)
        self.eval()
        logger.info(
            "ma_agiqa: semantic encoder CLIP ViT-B/16 (compact), weights %s; the published system, with "
            "mPLUG-Owl2-7B, is another metric (ma_agiqa_owl2)",
            path or "random",
        )

    def _draw(self) -> None:
        for module in self.modules():
            if isinstance(module, QuantisedLinear | QuantisedConvolution):
                module.draw()

    def load_weights(self, path: str | os.PathLike) -> None:
        """Load a weights file that `pyiqa-ma-agiqa train` or `adapt` wrote.

        Raises:
            WeightsError: no such file, not safetensors, not of this architecture, or adapted from other
                weights.
        """
        load_weights(self, Path(path))
        self.has_shipped_weights = False

    def forward(self, x: torch.Tensor, return_parts: bool = False) -> torch.Tensor | dict[str, torch.Tensor]:
        """Score a batch.

        The score of an image is the same to the last bit alone, in any batch and with any number of
        threads. Where a gradient is asked for, it is that of the same networks without rounding.

        Args:
            x: (N, 3, H, W) RGB or (N, 1, H, W) grey, in [0, 1], both sides at least 16.
            return_parts: return what the score is made of, too.

        Returns:
            Score (N, 1); with ``return_parts`` a dict of ``score`` (N, 1), ``gate`` (N, 3),
            ``shares`` (N, 3), which sum to the score, in the order semantic content, coherence,
            quality, ``familiarity`` (N, 1), ``interval`` (N, 2) and ``quality_map`` (N, h, w), the share
            of quality by patch of the branch, whose mean is that share.

        Raises:
            InputError: wrong shape, type or range, an empty batch, or values that are not finite.
        """
        pixels = check_tensor(x, check_range=self.check_input_range)
        size = min(CHUNK, CHUNK_ON_CPU) if pixels.device.type == "cpu" else CHUNK
        chunks = [
            self.parts_of_views(encoder_view(chunk), branch_view(chunk), return_parts)
            for chunk in pixels.split(size)
        ]
        parts = {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}
        return parts if return_parts else parts["score"]

    @uncompiled  # fused steps would round otherwise
    def parts_of_views(
        self, encoder: torch.Tensor, branch: torch.Tensor, quality_map: bool = True
    ) -> dict[str, torch.Tensor]:
        """What `forward` returns with ``return_parts``, from both views of the images.

        Args:
            encoder: (N, 3, 16a, 16b) of `encoder_view`.
            branch: (N, 3, h, w) of `branch_view`.
            quality_map: whether it is wanted, too; all else costs nothing beside the score.
        """
        # Half precision would change the integers, and is not faster.
        with torch.autocast(encoder.device.type, enabled=False):
            with torch.no_grad():
                parts = self._parts_of_views(encoder, branch, quality_map, integers)
            if not (torch.is_grad_enabled() and (encoder.requires_grad or branch.requires_grad)):
                return parts
            smooth = self._parts_of_views(encoder, branch, quality_map, floats)
            return {name: parts[name] + (smooth[name] - smooth[name].detach()) for name in parts}

    def _parts_of_views(
        self, encoder: torch.Tensor, branch: torch.Tensor, quality_map: bool, steps: ModuleType
    ) -> dict[str, torch.Tensor]:
        summary, features = self.backbone_passes(encoder, branch, steps)
        judgement = self.judge(summary, steps.mean(features, (2, 3)), steps)
        if not quality_map:
            return judgement._asdict()
        shown = self._quality_map(features, judgement.gate[:, 2], judgement.shares[:, 2], steps)
        return judgement._asdict() | {"quality_map": shown}

    def backbone_passes(
        self, encoder: torch.Tensor, branch: torch.Tensor, steps: ModuleType = integers
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The forward passes of both backbones and nothing else.

        Returns:
            Summary (N, 6, 4, 768) and features (N, 1280, h, w).
        """
        return self.encoder(encoder, steps), self.branch(branch, steps)

    def judge(self, summary: torch.Tensor, features: torch.Tensor, steps: ModuleType = integers) -> Judgement:
        """Experts and gate on the tower's summary (N, 6, 4, 768) and mean branch features (N, 1280)."""
        everything = torch.cat([features, summary.flatten(1)], dim=1)
        experts = (self.semantic_expert, self.coherence_expert, self.quality_expert)
        read = (*late_summary(summary), everything)
        verdicts = [
            steps.dense(values, expert.weight, expert.bias)
            for expert, values in zip(experts, read, strict=True)
        ]
        strangeness = self.familiarity(summary.flatten(1), steps)
        quality = self.familiarity.gate(strangeness)
        always = torch.ones_like(quality)
        score, gate, shares = mixture(
            torch.cat(verdicts, 1), torch.cat([always, always, quality], 1), self.bias
        )
        half = self.familiarity.half_width(strangeness)
        interval = torch.cat([score - half, score + half], 1)
        parts = score, gate, shares, self.familiarity.likeness(strangeness), interval
        return Judgement(*(part.float() for part in parts))

    def _quality_map(
        self, features: torch.Tensor, gate: torch.Tensor, share: torch.Tensor, steps: ModuleType
    ) -> torch.Tensor:
        """The share of quality by patch: exact, since everything after the features is linear in them.

        What the expert reads of the tower is spread evenly over the patches.
        """
        verdict = self.quality_expert.weight[:, : QualityBranch.width]
        local = steps.dense(features.permute(0, 2, 3, 1), verdict).squeeze(3)
        centred = (local - steps.mean(local, (1, 2))[:, None, None]).float()
        return share[:, None, None] + gate[:, None, None] * centred
