"""Training of the published system: vectors once from the frozen large model, then everything else.

The recipe of the paper's release: mean squared error on the raw MOS, Adam, a cosine schedule
stepped every batch, the epoch with the best val SRCC + PLCC kept.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from scipy.stats import pearsonr, spearmanr
from torch import nn
from tqdm import tqdm

from ..errors import InputError
from ..input_checks import read_tensor
from ..published.arch import PUBLISHED_ENCODER, MAAGIQAOwl2, check_semantic, semantic_vectors_of
from ..published.branch import SIDE
from ..published.checkpoint import save_checkpoint
from ..published.resize import opencv_bicubic
from .agreement import agreement
from .checkpoint import (
    MadeOf,
    digest,
    files_digest,
    read_state,
    settings_digest,
    state_digest,
    write_json,
    write_state,
    write_whole,
)
from .commit import running_commit
from .data import DataConfig, Ratings
from .device import DEVICE
from .settings import check_range

logger = logging.getLogger(__name__)

VIT = "vit_base_patch8_224"
"""timm's name of the backbone, for a start from ImageNet."""


@dataclasses.dataclass
class PublishedStartConfig:
    """What training starts from.

    Attributes:
        checkpoint: a file of the official layout; none for the authors' own.
        imagenet: start from timm's ImageNet ViT-B/8 and random weights elsewhere instead.
    """

    checkpoint: str | None = None
    imagenet: bool = False

    def __post_init__(self) -> None:
        if self.imagenet and self.checkpoint:
            raise InputError("checkpoint, imagenet: give one of them, not both")


@dataclasses.dataclass
class EncoderConfig:
    """The frozen large model; see `MAAGIQAOwl2`. The vectors are kept in ``OUT/semantic`` by default."""

    semantic_encoder: str = PUBLISHED_ENCODER
    dtype: str | None = None
    semantic_cache: str | None = None


@dataclasses.dataclass
class PublishedStageConfig:
    """The published recipe.

    Attributes:
        rate, decay: of Adam.
        period: batches in half a period of the cosine.
        augmented: probability of a rotation by a multiple of 90 degrees, and of a flip.
    """

    epochs: int = 30
    batch: int = 8
    rate: float = 1e-5
    decay: float = 1e-5
    period: int = 50
    augmented: float = 0.7
    seed: int = 20

    def __post_init__(self) -> None:
        many = float("inf")
        check_range(self, epochs=(1, many), batch=(1, many), period=(1, many), rate=(1e-12, 1))
        check_range(self, decay=(0, 1), augmented=(0, 1), seed=(0, 2**32 - 1))


@dataclasses.dataclass
class PublishedRecipe:
    """One training run of the published system, as a YAML file gives it."""

    data: DataConfig
    out: str
    start: PublishedStartConfig = dataclasses.field(default_factory=PublishedStartConfig)
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    stage: PublishedStageConfig = dataclasses.field(default_factory=PublishedStageConfig)


@dataclasses.dataclass
class Examples:
    """Images (M, 224, 224, 3) uint8, semantic vectors (M, 2, 4096), MOS (M,) and their rows by part."""

    images: np.ndarray
    vectors: torch.Tensor
    ratings: Ratings


def starting_model(start: PublishedStartConfig) -> MAAGIQAOwl2:
    """The published system, without its large model, that holds the weights to start from."""
    model = MAAGIQAOwl2(
        pretrained=not start.imagenet,
        pretrained_model_path=start.checkpoint,
        semantic_encoder=None,
    )
    if start.imagenet:
        state = timm.create_model(VIT, pretrained=True).state_dict()
        model.vit.load_state_dict({name: state[name] for name in model.vit.state_dict()})
    return model


@torch.inference_mode()
def read_examples(encode: Callable[[torch.Tensor], torch.Tensor], ratings: Ratings) -> Examples:
    """Read each image once: its semantic vectors (`semantic_vectors_of`) and its 224 x 224 pixels."""
    images, vectors = [], []
    for path in tqdm(ratings.paths, desc="semantic vectors", disable=None):
        try:
            pixels = read_tensor(path).to(DEVICE)
        except InputError as error:
            raise InputError(f"{error}; then repeat the command, which goes on where it was") from None
        vectors.append(check_semantic(encode(pixels), 1).cpu())
        small = (opencv_bicubic(pixels, (SIDE, SIDE)) * 255).round()
        images.append(small[0].permute(1, 2, 0).to(torch.uint8).cpu().numpy())
    return Examples(np.stack(images), torch.cat(vectors), ratings)


def augment(image: np.ndarray, probability: float, rng: np.random.Generator) -> np.ndarray:
    """Rotate an (H, H, 3) image by 90, 180 or 270 degrees and mirror it, each with the probability."""
    if rng.random() < probability:
        image = np.rot90(image, int(rng.integers(1, 4)))
    if rng.random() < probability:
        image = image[:, ::-1]
    return image


def _pixels(images: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).to(DEVICE).permute(0, 3, 1, 2).float() / 255


@torch.inference_mode()
def predict(model: MAAGIQAOwl2, examples: Examples, rows: np.ndarray, batch: int) -> np.ndarray:
    """Scores (len(rows),)."""
    model.eval()
    scores = [
        model(_pixels(list(examples.images[some])), semantic=examples.vectors[some])
        for some in np.split(rows, range(batch, len(rows), batch))
    ]
    return torch.cat(scores).squeeze(1).cpu().numpy()


class PublishedRun:
    """Model, optimiser, schedule and the best epoch so far, with a resumable checkpoint.

    Args:
        model: holds the weights to start from.
        config: see `PublishedStageConfig`.
        out: folder of the checkpoint and the weights.
        made_of: digests of the data; the checkpoint is bound to them, to the start and the settings.

    Raises:
        InputError: the checkpoint is damaged or of another run.
    """

    def __init__(self, model: MAAGIQAOwl2, config: PublishedStageConfig, out: Path, made_of: MadeOf) -> None:
        self.model, self.config = model, config
        self.optimizer = torch.optim.Adam(model.parameters(), lr=config.rate, weight_decay=config.decay)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, config.period)
        self.checkpoint = out / "training.pt"
        self.weights = out / "weights.safetensors"
        self.made_of = made_of | {
            "weights to start from": state_digest(model),
            "settings": settings_digest(dataclasses.asdict(config)),
        }
        state = read_state(self.checkpoint, self._parts(), self.made_of)
        self.history: list[dict[str, float]] = state.get("history", [])

    def _parts(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule}

    def epoch(self, examples: Examples, rows: np.ndarray) -> float:
        """Train on the rows once; mean loss."""
        number = len(self.history)
        rng = np.random.default_rng([self.config.seed, number])
        torch.manual_seed(self.config.seed + number)
        order = rng.permutation(rows)
        self.model.train()
        losses = []
        batches = np.split(order, range(self.config.batch, len(order), self.config.batch))
        for some in tqdm(batches, desc=f"epoch {number + 1}/{self.config.epochs}", disable=None):
            images = [augment(examples.images[row], self.config.augmented, rng) for row in some]
            score = self.model(_pixels(images), semantic=examples.vectors[some]).squeeze(1)
            loss = nn.functional.mse_loss(score, torch.from_numpy(examples.ratings.mos[some]).to(DEVICE))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            losses.append(loss.item())
        return float(np.mean(losses))

    def end_epoch(self, loss: float, predicted: np.ndarray, mos: np.ndarray) -> None:
        """Keep the weights if val SRCC + PLCC is the best so far; then write the checkpoint.

        Raises:
            InputError: the training diverged, or a file cannot be written.
        """
        if not np.isfinite(loss) or not np.isfinite(predicted).all():
            raise InputError("stage: its loss is no longer finite; give a lower rate")
        # Of constant predictions both are undefined.
        srcc, plcc = (float(np.nan_to_num(r(predicted, mos)[0])) for r in (spearmanr, pearsonr))
        best = max((row["srcc"] + row["plcc"] for row in self.history), default=-np.inf)
        if srcc + plcc > best or not self.weights.exists():
            write_whole(self.weights, lambda aside: save_checkpoint(self.model, aside))
        self.history.append({"loss": loss, "srcc": srcc, "plcc": plcc})
        logger.info("epoch %d: loss %.4f, val SRCC %.4f PLCC %.4f", len(self.history), loss, srcc, plcc)
        write_state(self.checkpoint, self._parts(), self.made_of, history=self.history)


def train_published(recipe: PublishedRecipe, test: bool = False) -> dict[str, Any]:
    """Extract the vectors, train, write weights of the official layout and metrics; return the metrics.

    Interrupted in either step, a second call goes on: vectors are read from the cache, training
    continues after the last whole epoch.

    Args:
        recipe: see `PublishedRecipe`.
        test: measure on the test part, too; otherwise it is not read.
    """
    began = time.time()
    out = Path(recipe.out)
    ratings = recipe.data.read(test)
    torch.manual_seed(recipe.stage.seed)
    model = starting_model(recipe.start).to(DEVICE)
    frozen = recipe.encoder
    encode = semantic_vectors_of(
        frozen.semantic_encoder, frozen.dtype, frozen.semantic_cache or out / "semantic"
    )
    examples = read_examples(encode, ratings)
    fitted, chosen = ratings.rows("train"), ratings.rows("val")
    seen = np.concatenate([fitted, chosen])
    made_of = {
        "images": files_digest(ratings.paths[row] for row in seen),
        "MOS": digest([ratings.mos[fitted].tobytes(), ratings.mos[chosen].tobytes()]),
        "semantic encoder": settings_digest([frozen.semantic_encoder, frozen.dtype]),
    }
    run = PublishedRun(model, recipe.stage, out, made_of)
    while len(run.history) < recipe.stage.epochs:
        loss = run.epoch(examples, fitted)
        run.end_epoch(loss, predict(model, examples, chosen, recipe.stage.batch), ratings.mos[chosen])

    model.load_weights(run.weights)
    metrics: dict[str, Any] = {
        "recipe": dataclasses.asdict(recipe),
        "trained_at_commit": running_commit(),
        "epochs": run.history,
        "agreement": {},
        "seconds": round(time.time() - began),
    }
    for part in ("val", "test") if test else ("val",):
        rows = ratings.rows(part)
        predicted = predict(model, examples, rows, recipe.stage.batch)
        metrics["agreement"][part] = agreement(predicted, ratings.mos[rows])
    write_json(out / "metrics.json", metrics)
    return metrics
