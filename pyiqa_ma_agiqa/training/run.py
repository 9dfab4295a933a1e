"""What both trained stages share: optimiser, schedule, weight average, checkpoint, val figures."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

logger = logging.getLogger(__name__)
Model = TypeVar("Model", bound=nn.Module)


class StageConfig(Protocol):
    """Settings that both stages have."""

    epochs: int
    decay: float
    average: float


class Run(Generic[Model]):
    """AdamW under a one-cycle schedule, with an exponential average of the weights.

    A checkpoint is written after each epoch and read again at the start, so an interrupted
    run goes on with the epoch after the last whole one.
    """

    def __init__(
        self, model: Model, groups: list[dict[str, Any]], config: StageConfig, steps: int, checkpoint: Path
    ) -> None:
        self.model = model
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.decay)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            [group["lr"] for group in groups],
            total_steps=steps * config.epochs,
            pct_start=0.1,
        )
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.average))
        self.checkpoint = checkpoint
        self.epoch = 0
        self.losses: list[float] = []
        self.began = time.time()
        if checkpoint.exists():
            state = torch.load(checkpoint, weights_only=True)
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
            self.epoch = state["epoch"]

    @property
    def averaged(self) -> Model:
        """The model with averaged weights."""
        return self.average.module  # type: ignore[return-value]

    def _parts(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "average": self.average,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
        }

    def step(self, loss: torch.Tensor) -> None:
        """One step of the optimiser, the schedule and the average."""
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], 5.0)
        self.optimizer.step()
        self.schedule.step()
        self.average.update_parameters(self.model)
        self.losses.append(loss.item())

    def end_epoch(self, stage: str, predicted: np.ndarray, mos: np.ndarray) -> None:
        """Log the val figures of the averaged model and write the checkpoint."""
        self.epoch += 1
        logger.info(
            "%s epoch %d: loss %.4f, val SRCC %.4f PLCC %.4f, %.0f s",
            stage,
            self.epoch,
            np.mean(self.losses),
            spearmanr(predicted, mos)[0],
            pearsonr(predicted, mos)[0],
            time.time() - self.began,
        )
        self.losses, self.began = [], time.time()
        temporary = self.checkpoint.with_suffix(".tmp")
        torch.save(
            {name: part.state_dict() for name, part in self._parts().items()} | {"epoch": self.epoch},
            temporary,
        )
        temporary.replace(self.checkpoint)
