"""What both trained stages share: optimiser, schedule, weight average, checkpoint, val figures."""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..errors import InputError
from .checkpoint import MadeOf, read_state, settings_digest, write_state

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
    run goes on with the epoch after the last whole one. It is bound to the settings and to what
    ``made_of`` adds.

    Args:
        model: holds the weights to start from; is trained in place.
        groups: parameters with the highest rate, ``lr``, of each group.
        config: a dataclass.
        steps: in an epoch.
        checkpoint: path of the checkpoint.
        made_of: digests of the data and of the weights to start from.

    Raises:
        InputError: no step fits into an epoch, or the checkpoint is damaged or of another run.
    """

    def __init__(
        self,
        model: Model,
        groups: list[dict[str, Any]],
        config: StageConfig,
        steps: int,
        checkpoint: Path,
        made_of: MadeOf,
    ) -> None:
        if steps < 1:
            raise InputError("batch: larger than the train part; make it smaller")
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
        settings = dataclasses.asdict(config)  # type: ignore[call-overload]
        self.made_of = made_of | {"settings": settings_digest(settings)}
        self.epoch = read_state(checkpoint, self._parts(), self.made_of).get("epoch", 0)

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

    def end_epoch(self, stage: str) -> None:
        """Log the loss and write the checkpoint.

        Raises:
            InputError: the training diverged, or the checkpoint cannot be written.
        """
        finite = all(tensor.isfinite().all() for tensor in self.averaged.state_dict().values())
        if not (finite and np.isfinite(self.losses).all()):
            raise InputError(f"{stage}: its loss is no longer finite; give a lower rate")
        self.epoch += 1
        seconds = time.time() - self.began
        logger.info("%s epoch %d: loss %.4f, %.0f s", stage, self.epoch, np.mean(self.losses), seconds)
        self.losses, self.began = [], time.time()
        write_state(self.checkpoint, self._parts(), self.made_of, epoch=self.epoch)
