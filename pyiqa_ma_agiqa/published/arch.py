"""MA-AGIQA as published: the metric ``ma_agiqa_owl2``."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..experts import EXPERTS, Mixture, gated_mixture
from ..input_checks import check_tensor
from ..own_network import OwnReading
from .branch import PATCHES, QualityBranch
from .checkpoint import load_checkpoint
from .files import language_model, official_checkpoint
from .semantic_cache import SemanticCache
from .windows import GRID

logger = logging.getLogger("pyiqa")

PUBLISHED_ENCODER = "MAGAer13/mplug-owl2-llama2-7b"
"""Hub id of the large model whose vectors the published experts read."""
SEMANTIC_WIDTH = 4096
"""Length of a semantic vector of mPLUG-Owl2-7B."""
PROMPTS = 2
CHUNK = 8
"""Images that pass the quality branch at once; bounds the memory of large batches."""
DROPOUT = 0.1


def semantic_expert() -> nn.Sequential:
    """Semantic vectors (N, 4096) to expert vectors (N, 784)."""
    return nn.Sequential(nn.Linear(SEMANTIC_WIDTH, PATCHES), nn.ReLU(), nn.Dropout(DROPOUT))


class MAAGIQAOwl2(OwnReading, QualityBranch):
    r"""No-reference quality of AI-generated images, on the MOS scale of AGIQA-3K (about 0 to 5).

    The published system: its quality branch, its experts and its gate, with the parameter names of
    the published checkpoint. Semantic vectors come from mPLUG-Owl2-7B, or from the caller. Weights
    are fetched where they are not at hand: 0.7 GB for the checkpoint, 16 GB for mPLUG-Owl2-7B.

    .. math:: s = W (g_1 e_{sem} + g_2 e_{coh} + g_3 e_q) + b

    - :math:`e_{sem}` and :math:`e_{coh}`: ReLU(Linear) of the vectors of the prompts on semantic
      content (``fc4096_784_a2``) and on coherence (``fc4096_784_b2``).
    - :math:`e_q`: Linear of the quality of each of the 784 patches; see `QualityBranch`.
    - :math:`g`: linear gate over all three; see `gated_mixture`.

    Args:
        pretrained: load the authors' checkpoint; ``False`` for random weights and, unless another one
            is named, no semantic encoder.
        pretrained_model_path: a checkpoint of the published layout, loaded instead.
        semantic_encoder: hub id or folder of the mPLUG-Owl2 model that makes the semantic vectors,
            read when the first image needs it; ``None``: the caller gives them with each batch.
        dtype: precision of mPLUG-Owl2: ``"fp32"``, ``"bf16"``, ``"fp16"``, ``"8bit"`` or ``"4bit"``; by
            default fp16 on a GPU and bf16 on the CPU. All the rest is float32.
        semantic_cache: folder in which semantic vectors are kept; see `SemanticCache`.

    Raises:
        WeightsError: weights missing, out of reach, damaged or not of the published layout.
        InputError: an unknown dtype, or a cache folder that cannot be made.

    Reference: Wang et al., *Large Multi-modality Model Assisted AI-Generated Image Quality
    Assessment*, ACM MM 2024, sections 3.2 and 3.3.
    """

    def __init__(
        self,
        pretrained: bool = True,
        pretrained_model_path: str | os.PathLike | None = None,
        semantic_encoder: str | os.PathLike | None = PUBLISHED_ENCODER,
        dtype: str | None = None,
        semantic_cache: str | os.PathLike | None = None,
    ) -> None:
        path = Path(pretrained_model_path) if pretrained_model_path else None
        if path is None and pretrained:
            path = official_checkpoint()
        if path is None and semantic_encoder == PUBLISHED_ENCODER:
            semantic_encoder = None
        # On the meta device no time goes into random weights that the file replaces.
        with torch.device("meta" if path else "cpu"):
            super().__init__()
            self.fc4096_784_a2 = semantic_expert()
            self.fc4096_784_b2 = semantic_expert()
            self.fc784_784 = nn.Linear(PATCHES, PATCHES)
            self.gating = nn.Linear(len(EXPERTS) * PATCHES, len(EXPERTS))
            self.output_fc = nn.Linear(PATCHES, 1)
        self.check_input_range = True
        if path:
            load_checkpoint(self, path)
        self.to(memory_format=torch.channels_last)
        self.eval()
        self.semantic_encoder = (
            semantic_vectors_of(semantic_encoder, dtype, semantic_cache) if semantic_encoder else None
        )
        logger.info(
            "ma_agiqa_owl2: the published system, weights %s, semantic encoder %s%s; the compact family is "
            "another metric (ma_agiqa)",
            path or "random",
            semantic_encoder or "none (the caller gives the vectors)",
            f" in {dtype}" if dtype else "",
        )

    def load_weights(self, path: str | os.PathLike) -> None:
        """Load a checkpoint of the published layout.

        Raises:
            WeightsError: unreadable file, or names, shapes, types or values that do not fit.
        """
        load_checkpoint(self, Path(path))

    def prepare(self) -> None:
        """Read the large model now, for the device of the other weights, not when the first image comes.

        Does nothing without one, or with a semantic cache, which may have all that is asked.

        Raises:
            WeightsError: a file of it is missing, unreadable or does not fit.
        """
        prepare = getattr(self.semantic_encoder, "prepare", None)
        if prepare:
            prepare(self.output_fc.weight.device)

    def forward(
        self, x: torch.Tensor, semantic: torch.Tensor | None = None, return_parts: bool = False
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """Score a batch.

        Args:
            x: (N, 3, H, W) RGB or (N, 1, H, W) grey, in [0, 1], both sides at least 16; rounded to
                8 bits and resized to 224 x 224, as the published system does.
            semantic: (N, 2, 4096), the vectors of semantic content and of coherence, in this order.
            return_parts: return what the score is made of, too.

        Returns:
            Score (N, 1); with ``return_parts`` a dict of ``score`` (N, 1), ``gate`` (N, 3),
            ``shares`` (N, 3), which sum to the score, in the order semantic content, coherence,
            quality, and ``quality_map`` (N, 28, 28), whose mean is the share of quality.

        Raises:
            InputError: wrong shape, type or range, an empty batch, values that are not finite, or
                no semantic vectors.
        """
        pixels = check_tensor(x, check_range=self.check_input_range)
        # pyiqa's call of a network lets convolutions on a GPU cut what they read to 11 bits (TF32).
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            vectors = self._semantic_vectors(pixels, semantic)
            pairs = zip(pixels.split(CHUNK), vectors.split(CHUNK), strict=True)
            chunks = [self._score(*pair) for pair in pairs]
        parts = {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}
        return parts if return_parts else parts["score"]

    def mix(self, semantic: torch.Tensor, patch_quality: torch.Tensor) -> Mixture:
        """Experts and gate on semantic vectors (N, 2, 4096) and the quality of patches (N, 784)."""
        vectors = [
            self.fc4096_784_a2(semantic[:, 0]),
            self.fc4096_784_b2(semantic[:, 1]),
            self.fc784_784(patch_quality),
        ]
        return gated_mixture(torch.stack(vectors, dim=1), self.gating, self.output_fc)

    def _semantic_vectors(self, pixels: torch.Tensor, semantic: Any) -> torch.Tensor:
        if semantic is None:
            if self.semantic_encoder is None:
                raise InputError(
                    "ma_agiqa_owl2 without a semantic encoder needs the semantic vectors: give "
                    f"semantic=..., a tensor (N, {PROMPTS}, {SEMANTIC_WIDTH}), or create the metric with "
                    "semantic_encoder=..., a folder or hub id"
                )
            semantic = self.semantic_encoder(pixels)
        return check_semantic(semantic, len(pixels)).to(pixels.device)

    def _score(self, pixels: torch.Tensor, semantic: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.patch_features(pixels)
        # Half precision is for the backbone; what follows is small and adds up to the score.
        with torch.autocast(pixels.device.type, enabled=False):
            quality = self.patch_quality(features.float())
            score, gate, shares = self.mix(semantic, quality)
            return {
                "score": score,
                "gate": gate,
                "shares": shares,
                "quality_map": self._quality_map(quality, gate[:, 2:], shares[:, 2:]),
            }

    def _quality_map(self, quality: torch.Tensor, gate: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """The share of quality by patch: exact, since all that follows the patches' quality is linear."""
        local = PATCHES * quality * (self.output_fc.weight[0] @ self.fc784_784.weight)
        return (share + gate * (local - local.mean(1, keepdim=True))).unflatten(1, (GRID, GRID))


def semantic_vectors_of(
    source: str | os.PathLike, dtype: str | None, cache: str | os.PathLike | None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """What makes semantic vectors (N, 2, width) of images (N, 3, H, W) in [0, 1]; see `MAAGIQAOwl2`."""
    # transformers takes a second to import, and not everyone needs it.
    from ..mplug_owl2.encoder import Owl2Encoder

    encoder = Owl2Encoder(language_model(os.fspath(source)), dtype)
    return encoder if cache is None else SemanticCache(cache, encoder)


def check_semantic(semantic: Any, count: int) -> torch.Tensor:
    """Check the semantic vectors of so many images.

    Returns:
        The same vectors, (count, 2, 4096), as float32.

    Raises:
        InputError: not such a tensor, or values that are not finite.
    """
    wanted = (count, PROMPTS, SEMANTIC_WIDTH)
    cure = f"give {wanted}: for each image the vectors of semantic content and of coherence"
    if not isinstance(semantic, torch.Tensor):
        raise InputError(f"semantic is a {type(semantic).__name__}, not a tensor; {cure}")
    if tuple(semantic.shape) != wanted:
        raise InputError(f"semantic has shape {tuple(semantic.shape)}, not {wanted}; {cure}")
    if not semantic.is_floating_point() or semantic.layout != torch.strided:
        raise InputError(f"semantic is {semantic.dtype}, not dense floating point; {cure}")
    semantic = semantic.float()
    if not semantic.isfinite().all():
        raise InputError("semantic has values that are NaN or infinite; extract these vectors again")
    return semantic
