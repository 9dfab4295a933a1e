"""The training objective: fit the MOS, agree with it linearly, keep its order."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def correlation_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 - PLCC of two vectors (N,)."""
    return 1 - F.cosine_similarity(prediction - prediction.mean(), target - target.mean(), dim=0)


def order_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean hinge over all pairs in the batch (N,): the gap must reach the MOS gap, at most 0.5."""
    gap = target[:, None] - target[None, :]
    got = prediction[:, None] - prediction[None, :]
    wanted = gap > 0
    return F.relu(gap.clamp(max=0.5) - got)[wanted].mean() if wanted.any() else prediction.sum() * 0


def mos_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error + 0.5 (1 - PLCC) + 0.5 order loss; prediction and target (N,) in MOS."""
    error = F.mse_loss(prediction, target)
    return error + 0.5 * correlation_loss(prediction, target) + 0.5 * order_loss(prediction, target)


def degradation_loss(clean: torch.Tensor, mild: torch.Tensor, strong: torch.Tensor) -> torch.Tensor:
    """Hinge on clean > mild > strong, each by at least 0.2 MOS; three vectors (N,)."""
    return F.relu(0.2 - (clean - mild)).mean() + F.relu(0.2 - (mild - strong)).mean()
