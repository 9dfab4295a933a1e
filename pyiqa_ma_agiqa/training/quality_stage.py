"""Stage 1: fine-tune the quality branch on random crops, with degraded copies ranked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from ..compact.arithmetic.exact import exact_mean
from ..compact.preprocessing import branch_size, branch_view
from ..compact.quality import QualityBranch
from .checkpoint import MadeOf, digest, state_digest
from .data import ImageSource
from .degradations import DEGRADATIONS
from .float_networks import FloatBranch
from .objective import degradation_loss, mos_loss
from .run import Run
from .settings import check_range


@dataclass
class QualityStageConfig:
    """Recipe of stage 1. Sizes in pixels, rates per step; no epochs leave the branch as it starts."""

    epochs: int = 12
    crop: int = 256
    batch: int = 16
    degraded: int = 2
    rate: float = 4e-4
    decay: float = 0.02
    average: float = 0.995
    frozen_stages: int = 1
    seed: int = 20

    def __post_init__(self) -> None:
        many = float("inf")
        check_range(self, epochs=(0, many), crop=(32, 448), batch=(2, many), degraded=(0, self.batch))
        check_range(self, rate=(1e-9, 1), decay=(0, 1), average=(0, 0.9999), frozen_stages=(0, 7))
        check_range(self, seed=(0, 2**32 - 1))


class QualityRegressor(nn.Module):
    """The quality branch with a linear MOS head on its mean features."""

    def __init__(self, branch: FloatBranch, mean_mos: float) -> None:
        super().__init__()
        self.branch = branch
        self.head = nn.Linear(QualityBranch.width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, mean_mos)
        self.dropout = nn.Dropout(0.2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) in [0, 1] to a MOS (N,)."""
        return self.head(self.dropout(self.branch(pixels).mean((2, 3)))).squeeze(1)


def random_view(image: np.ndarray, crop: int, rng: np.random.Generator) -> np.ndarray:
    """A flipped, rescaled (0.87 to 1.15, half of the time) random crop of an (H, W, 3) uint8 image."""
    side = round(crop / rng.uniform(0.87, 1.15)) if rng.random() < 0.5 else crop
    side = min(side, *image.shape[:2])
    top = rng.integers(image.shape[0] - side + 1)
    left = rng.integers(image.shape[1] - side + 1)
    view = image[top : top + side, left : left + side]
    if rng.random() < 0.5:
        view = view[:, ::-1]
    if side != crop:
        view = cv2.resize(view, (crop, crop), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(view)


def degraded_pair(view: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """A mild and a strong copy of one kind."""
    degrade = DEGRADATIONS[str(rng.choice(list(DEGRADATIONS)))]
    mild, strong = np.sort(rng.random(2))
    strong = max(strong, min(1.0, mild + 0.25))
    return [degrade(view, float(mild), rng), degrade(view, float(strong), rng)]


def to_tensor(views: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float() / 255


def at_branch_size(image: np.ndarray) -> np.ndarray:
    """An (H, W, 3) uint8 image as the branch sees it, in 8 bits."""
    if branch_size(*image.shape[:2]) == image.shape[:2]:
        return image
    view = branch_view(to_tensor([image]))[0].permute(1, 2, 0)
    return np.ascontiguousarray((view * 255).round().to(torch.uint8).numpy())


@torch.inference_mode()
def branch_features(branch: FloatBranch | QualityBranch, images: ImageSource, rows: np.ndarray) -> np.ndarray:
    """Mean features (len(rows), 1280) of whole images."""
    branch.eval()
    views = (branch_view(to_tensor([images[row]])) for row in rows)
    return torch.cat([exact_mean(branch(view), (2, 3)) for view in views]).numpy()


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
    val: np.ndarray,
    config: QualityStageConfig,
    out: Path,
    made_of: MadeOf,
) -> QualityRegressor:
    """Train in place, with a resumable checkpoint ``out/quality.pt``.

    Args:
        model: holds the weights to start from.
        images: M images (H, W, 3) uint8 RGB.
        mos: (M,) float32.
        train, val: row numbers; val is only logged.
        made_of: digest of the train images; see `Run`.

    Returns:
        The model with weights averaged over steps.
    """
    network = model.branch.network
    for stage in [network.conv_stem, network.bn1, *network.blocks[: config.frozen_stages]]:
        stage.requires_grad_(False)
    steps = len(train) // config.batch
    data = {"MOS": digest([mos[train].tobytes()]), "weights to start from": state_digest(model.branch)}
    run = Run(
        model,
        [{"params": [p for p in model.parameters() if p.requires_grad], "lr": config.rate}],
        config,
        steps,
        out / "quality.pt",
        made_of | data,
    )
    for epoch in range(run.epoch, config.epochs):
        rng = np.random.default_rng([config.seed, epoch])
        torch.manual_seed(config.seed + epoch)
        order = rng.permutation(train)
        model.train()
        for step in tqdm(range(steps), desc=f"quality {epoch + 1}/{config.epochs}", disable=None):
            rows = order[step * config.batch : (step + 1) * config.batch]
            views = [random_view(at_branch_size(images[row]), config.crop, rng) for row in rows]
            pairs = [degraded_pair(view, rng) for view in views[: config.degraded]]
            batch = views + [mild for mild, _ in pairs] + [strong for _, strong in pairs]
            predicted = model(to_tensor(batch))
            clean, mild, strong = predicted.split([len(views), len(pairs), len(pairs)])
            loss = mos_loss(clean, torch.from_numpy(mos[rows]))
            if pairs:
                loss = loss + degradation_loss(clean[: len(pairs)], mild, strong)
            run.step(loss)
        features = branch_features(run.averaged.branch, images, val)
        run.end_epoch("quality", predict_branch(run.averaged, features), mos[val])
    return run.averaged
