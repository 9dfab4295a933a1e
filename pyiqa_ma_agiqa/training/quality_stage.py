"""Stage 1: fine-tune the late stages of the quality branch on random crops, with degraded copies ranked."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from ..compact.arithmetic import machine
from ..compact.arithmetic.exact import exact_mean
from ..compact.preprocessing import branch_view
from ..compact.quality import QualityBranch
from .checkpoint import MadeOf, digest, state_digest
from .crops import Crops, to_tensor
from .data import ImageSource
from .device import DEVICE
from .float_networks import FloatBranch
from .late_stages import late_stages
from .objective import degradation_loss, mos_loss
from .run import Run
from .settings import check_range


@dataclass
class QualityStageConfig:
    """Recipe of stage 1. Sizes in pixels, rates per step; no epochs leave the branch as it starts.

    Attributes:
        degraded: how many crops of a batch have degraded copies, in the mean.
        frozen_stages: so many of the 7 stay as they are, and the stem: they know a generator best, and
            what they make of a crop is computed once.
    """

    epochs: int = 8
    crop: int = 384
    batch: int = 32
    degraded: int = 4
    rate: float = 8e-4
    decay: float = 0.02
    average: float = 0.995
    frozen_stages: int = 4
    seed: int = 20

    def __post_init__(self) -> None:
        many = float("inf")
        check_range(self, epochs=(0, many), crop=(32, 448), batch=(2, many), degraded=(0, self.batch))
        check_range(self, rate=(1e-9, 1), decay=(0, 1), average=(0, 0.9999), frozen_stages=(0, 7))
        check_range(self, seed=(0, 2**32 - 1))


class QualityRegressor(nn.Module):
    """The quality branch behind its frozen stages, with a linear MOS head on its mean features."""

    def __init__(self, branch: FloatBranch, mean_mos: float, frozen_stages: int) -> None:
        super().__init__()
        self.branch, self.frozen_stages = branch, frozen_stages
        self.head = nn.Linear(QualityBranch.width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, mean_mos)
        self.dropout = nn.Dropout(0.2)

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """What the frozen stages make of views (N, C, h, w) to a MOS (N,)."""
        means = late_stages(self.branch.network, seen, self.frozen_stages)
        return self.head(self.dropout(means)).squeeze(1)


@torch.inference_mode()
def branch_features(branch: FloatBranch | QualityBranch, images: ImageSource, rows: np.ndarray) -> np.ndarray:
    """Mean features (len(rows), 1280) of whole images."""
    branch = copy.deepcopy(branch).eval().to(DEVICE)
    views = (branch_view(to_tensor([images[row]]).to(DEVICE)) for row in rows)
    return torch.cat([exact_mean(branch(view), (2, 3)).cpu() for view in views]).numpy()


@torch.inference_mode()
def predict_branch(regressor: QualityRegressor, features: np.ndarray) -> np.ndarray:
    """MOS (len(features),) that the branch alone predicts."""
    return regressor.head(torch.from_numpy(features)).squeeze(1).numpy()


@torch.no_grad()
def centre_head(regressor: QualityRegressor, features: np.ndarray, mos: np.ndarray) -> None:
    """Set the head's bias so that the mean prediction from features (M, 1280) is the mean MOS (M,)."""
    regressor.head.bias.add_(float((mos - predict_branch(regressor, features)).mean()))


def train_quality_branch(
    model: QualityRegressor,
    images: ImageSource,
    mos: np.ndarray,
    train: np.ndarray,
    config: QualityStageConfig,
    out: Path,
    crops_folder: Path,
    made_of: MadeOf,
) -> QualityRegressor:
    """Train in place, with a resumable checkpoint ``out/quality.pt``.

    Args:
        model: holds the weights to start from.
        images: M images (H, W, 3) uint8 RGB.
        mos: (M,) float32.
        train: row numbers.
        crops_folder: where crops are kept as the frozen stages see them; runs may share it.
        made_of: digest of the train images; see `Run`.

    Returns:
        The model with weights averaged over steps.
    """
    machine.keep_freed_memory()
    network = model.branch.network
    for stage in [network.conv_stem, network.bn1, *network.blocks[: config.frozen_stages]]:
        stage.requires_grad_(False)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            layer.requires_grad_(False)  # few weights, whose gradient takes half of the time on a CPU
    steps = len(train) // config.batch
    start = state_digest(model.branch)
    model.to(DEVICE)
    run = Run(
        model,
        [{"params": [p for p in model.parameters() if p.requires_grad], "lr": config.rate}],
        config,
        steps,
        out / "quality.pt",
        made_of | {"MOS": digest([mos[train].tobytes()]), "weights to start from": start},
    )
    if run.epoch == config.epochs:
        return run.averaged.cpu()

    @torch.inference_mode()
    def see(crops: torch.Tensor) -> torch.Tensor:
        views = crops.to(DEVICE).permute(0, 3, 1, 2).float() / 255
        # What a single crop becomes stays in a processor's caches.
        pieces = views.split(1 if DEVICE.type == "cpu" else len(views))
        return torch.cat([model.branch.first(piece, config.frozen_stages) for piece in pieces])

    crops = Crops(
        see,
        crops_folder,
        f"{start} {config.frozen_stages}",
        epochs=config.epochs,
        side=config.crop,
        one_in=config.batch // config.degraded if config.degraded else 0,
        seed=config.seed,
    )
    kept = crops.keep(images, train)
    for epoch in range(run.epoch, config.epochs):
        torch.manual_seed(config.seed + epoch)
        order = np.random.default_rng([config.seed, epoch]).permutation(train)
        model.train()
        for step in tqdm(range(steps), desc=f"quality {epoch + 1}/{config.epochs}", disable=None):
            rows = order[step * config.batch : (step + 1) * config.batch]
            batch = [crops.crop(kept[row], epoch) for row in rows]
            pairs = [crop.pair for crop in batch if crop.pair is not None]
            paired = [place for place, crop in enumerate(batch) if crop.pair is not None]
            seen = [crop.clean for crop in batch] + [pair[grade] for grade in (0, 1) for pair in pairs]
            predicted = model(torch.from_numpy(np.stack(seen)).to(DEVICE).float())
            clean, mild, strong = predicted.split([len(rows), len(paired), len(paired)])
            loss = mos_loss(clean, torch.from_numpy(mos[rows]).to(DEVICE))
            if paired:
                # Each pair counts the same, in whatever batch it is.
                loss = loss + degradation_loss(clean[paired], mild, strong) * len(paired) / config.degraded
            run.step(loss)
        run.end_epoch("quality")
    return run.averaged.cpu()
