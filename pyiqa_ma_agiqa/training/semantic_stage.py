"""Stage 2: fine-tune the upper tower, the prompt queries, the experts and the gate.

The lower blocks are frozen, so their tokens are computed once (`cache_lower`) and every
epoch starts from there. The convolutional features join in stage 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from ..arch import MAAGIQA
from ..experts import Mixture
from ..preprocessing import PATCH, encoder_size, encoder_view
from ..quality import QualityBranch
from ..semantic import MIDDLE, SemanticEncoder
from .data import ImageSource
from .objective import degradation_loss, mos_loss
from .quality_stage import degraded_pair, to_tensor
from .run import Run

MOST_TOKENS = 1 + max(
    height * width // PATCH**2 for height, width in (encoder_size(100, aspect) for aspect in range(100, 1300))
)
"""Tokens of the encoder view at the least favourable aspect ratio."""


@dataclass
class SemanticStageConfig:
    """Recipe of stage 2. Rates per step; the last epoch sees every token."""

    epochs: int = 5
    kept_tokens: float = 0.5
    batch: int = 16
    degraded: int = 2
    degraded_images: int = 240
    tower_rate: float = 3e-5
    head_rate: float = 3e-4
    decay: float = 0.05
    average: float = 0.99
    seed: int = 20


class LowerCache:
    """Tokens after block 8 and patch statistics of M views, on disk.

    Views of different aspect ratios have different numbers of tokens; rows are padded to the
    longest and ``counts`` (M,) says how many tokens are real.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.tokens = np.load(folder / f"{name}_tokens.npy", mmap_mode="r")
        self.counts = np.load(folder / f"{name}_counts.npy")
        self.statistics = np.load(folder / f"{name}_statistics.npy")

    def batch(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens (len(rows), longest, 768), counts (len(rows),), statistics (len(rows), 3072)."""
        return (
            torch.from_numpy(self.tokens[rows].astype(np.float32)),
            torch.from_numpy(self.counts[rows]),
            torch.from_numpy(self.statistics[rows]),
        )


@torch.inference_mode()
def cache_lower(
    encoder: SemanticEncoder, images: ImageSource, folder: Path, name: str, flip: bool, low_precision: bool
) -> None:
    """Write the cache of all images, unless it is there whole."""
    done = folder / f"{name}_statistics.npy"
    if done.exists():
        return
    tokens = np.lib.format.open_memmap(
        folder / f"{name}_tokens.npy", "w+", np.float16, (len(images), MOST_TOKENS, encoder.width)
    )
    counts = np.zeros(len(images), np.int64)
    statistics = np.zeros((len(images), encoder.statistics), np.float32)
    for row in tqdm(range(len(images)), desc=f"cache {name}", disable=None):
        pixels = to_tensor([images[row]])
        with torch.autocast("cpu", torch.bfloat16, enabled=low_precision):
            lower, summary = encoder.lower(encoder_view(pixels.flip(3) if flip else pixels))
        counts[row] = lower.shape[1]
        tokens[row, : counts[row]] = lower[0].half().numpy()
        statistics[row] = summary[0].numpy()
    tokens.flush()
    np.save(folder / f"{name}_counts.npy", counts)
    np.save(done, statistics)


def cache_degraded(
    encoder: SemanticEncoder, images: ImageSource, rows: np.ndarray, folder: Path, seed: int
) -> None:
    """Caches ``mild`` and ``strong``: one degraded pair of each of the rows."""
    if (folder / "strong_statistics.npy").exists():
        return
    rng = np.random.default_rng([seed, 1])
    pairs = [degraded_pair(images[row], rng) for row in rows]
    for name, copies in zip(("mild", "strong"), zip(*pairs, strict=True), strict=True):
        cache_lower(encoder, copies, folder, name, flip=False, low_precision=True)


def keep_tokens(tokens: torch.Tensor, counts: torch.Tensor, share: float) -> torch.Tensor:
    """The class token and a random share of the patch tokens, equally many of each image."""
    order = torch.rand(len(tokens), tokens.shape[1] - 1)
    padding = torch.arange(1, tokens.shape[1]) >= counts[:, None]
    chosen = order.masked_fill(padding, 2).argsort(1)[:, : round(share * (counts.min().item() - 1))] + 1
    chosen = torch.cat([torch.zeros(len(tokens), 1, dtype=torch.long), chosen], 1)
    return tokens.gather(1, chosen[:, :, None].expand(-1, -1, tokens.shape[2]))


class SemanticRegressor(nn.Module):
    """The whole model but its convolutional features, from cached tokens."""

    def __init__(self, model: MAAGIQA, statistics_mean: torch.Tensor, statistics_std: torch.Tensor) -> None:
        super().__init__()
        self.model = model
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", statistics_mean)
        self.register_buffer("std", statistics_std)
        self.dropout = nn.Dropout(0.5)

    def forward(self, tokens: torch.Tensor, statistics: torch.Tensor) -> torch.Tensor:
        """Tokens after block 8 and patch statistics to a MOS (N,), the backbone in bfloat16."""
        return self.mixture(tokens, statistics, low_precision=True).score.squeeze(1)

    def mixture(self, tokens: torch.Tensor, statistics: torch.Tensor, low_precision: bool = False) -> Mixture:
        """The same with gate and shares."""
        model = self.model
        with torch.autocast("cpu", torch.bfloat16, enabled=low_precision):
            semantic, coherence = model.queries(model.encoder.upper(tokens)).float().unbind(1)
        statistics = self.dropout((statistics - self.mean) / self.std)
        no_features = statistics.new_zeros(len(statistics), QualityBranch.width)
        experts = [
            model.semantic_expert(semantic),
            model.coherence_expert(coherence),
            model.quality_expert(torch.cat([no_features, statistics], 1)),
        ]
        return model.experts(torch.stack(experts, 1))


@torch.inference_mode()
def predict(regressor: SemanticRegressor, cache: LowerCache, rows: np.ndarray) -> Mixture:
    """Scores, gates and shares of the rows, from cached tokens in float32."""
    regressor.eval()
    parts = [_mixture_of_row(regressor, cache, row) for row in rows]
    return Mixture(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _mixture_of_row(regressor: SemanticRegressor, cache: LowerCache, row: int) -> Mixture:
    tokens, counts, statistics = cache.batch(np.array([row]))
    return regressor.mixture(tokens[:, : counts[0]], statistics)


def train_semantic_experts(
    model: MAAGIQA,
    mos: np.ndarray,
    train: np.ndarray,
    val: np.ndarray,
    degraded: np.ndarray,
    config: SemanticStageConfig,
    out: Path,
) -> SemanticRegressor:
    """Train with a resumable checkpoint ``out/semantic.pt``; `out` holds the caches.

    Args:
        model: holds the tower to start from.
        mos: (M,) float32.
        train, val: row numbers.
        degraded: (K,) the rows whose degraded copies are cached.

    Returns:
        The regressor with weights averaged over steps.
    """
    torch.manual_seed(config.seed)
    views = [LowerCache(out, "plain"), LowerCache(out, "flipped")]
    mild, strong = LowerCache(out, "mild"), LowerCache(out, "strong")
    seen = torch.from_numpy(views[0].statistics[train])
    regressor = SemanticRegressor(model, seen.mean(0), seen.std(0))
    start_experts(model, float(mos[train].mean()))
    upper = [*model.encoder.tower.blocks[MIDDLE:], model.encoder.tower.norm]
    heads = [
        model.queries,
        model.semantic_expert,
        model.coherence_expert,
        model.quality_expert,
        model.experts,
    ]
    steps = len(train) // config.batch
    run = Run(
        regressor,
        [
            {"params": [p for part in upper for p in part.parameters()], "lr": config.tower_rate},
            {"params": [p for part in heads for p in part.parameters()], "lr": config.head_rate},
        ],
        config,
        steps,
        out / "semantic.pt",
    )
    for epoch in range(run.epoch, config.epochs):
        rng = np.random.default_rng([config.seed, 2, epoch])
        torch.manual_seed(config.seed + epoch)
        kept = 1.0 if epoch == config.epochs - 1 else config.kept_tokens
        order = rng.permutation(train)
        regressor.train()
        for step in tqdm(range(steps), desc=f"semantic {epoch + 1}/{config.epochs}", disable=None):
            rows = order[step * config.batch : (step + 1) * config.batch]
            view = views[rng.integers(2)]
            pairs = rng.choice(len(degraded), config.degraded, replace=False)
            parts = [
                view.batch(rows),
                views[0].batch(degraded[pairs]),
                mild.batch(pairs),
                strong.batch(pairs),
            ]
            tokens, counts, statistics = (torch.cat(values) for values in zip(*parts, strict=True))
            predicted = regressor(keep_tokens(tokens, counts, kept), statistics)
            plain, clean, weak, bad = predicted.split([len(rows), *[config.degraded] * 3])
            target = torch.from_numpy(mos[np.concatenate([rows, degraded[pairs]])])
            run.step(mos_loss(torch.cat([plain, clean]), target) + 0.5 * degradation_loss(clean, weak, bad))
        run.end_epoch("semantic", predict(run.averaged, views[0], val).score.squeeze(1).numpy(), mos[val])
    return run.averaged


def start_experts(model: MAAGIQA, mean_mos: float) -> None:
    """New experts: gates at one, quality expert and gate weights near zero."""
    nn.init.zeros_(model.quality_expert.bias)
    nn.init.normal_(model.quality_expert.weight, std=0.002)
    nn.init.normal_(model.experts.gating.weight, std=0.002)
    nn.init.ones_(model.experts.gating.bias)
    nn.init.constant_(model.experts.output.bias, mean_mos)
