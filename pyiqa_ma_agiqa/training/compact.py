"""Training of ``ma_agiqa``: experts, gate and interval in closed form, on what frozen networks say.

The quality branch may be tuned first, by gradient descent; it then joins the experts at a weight chosen on
the val part. Writes ``weights.safetensors`` (for ``pretrained_model_path``) and ``metrics.json`` to the
folder.
"""

from __future__ import annotations

import dataclasses
import logging
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..compact.arch import MAAGIQA
from ..compact.preprocessing import branch_view, encoder_view
from ..compact.quality import QualityBranch
from ..compact.storage import save_weights
from .agreement import agreement
from .blending import Blend, choose_blend, gated_branch, join_branch
from .checkpoint import files_digest, write_json, write_whole
from .closed_form import Seen
from .commit import running_commit
from .data import Images, ImageSource, Ratings
from .degradations import GRADES, DegradedCopies
from .experts_stage import fit_experts, predict_experts
from .float_networks import FloatBranch, float_tower
from .quality_stage import (
    QualityRegressor,
    QualityStageConfig,
    branch_features,
    centre_head,
    predict_branch,
    to_tensor,
    train_quality_branch,
)
from .recipe import Recipe, StartConfig
from .rounding import float_branch, integer_branch, integer_tower
from .starts import branch_from_wheel, tower_from_wheel
from .summaries import Summaries

logger = logging.getLogger(__name__)

FINE_TUNING = QualityStageConfig(epochs=4)
"""Tuning of the branch on one's own images, from the shipped weights."""

CALIBRATION = 64
"""How many images, evenly spread, tell the sizes of the values that are rounded."""


def starting_model(
    start: StartConfig, views: Callable[[], Iterable[torch.Tensor]]
) -> tuple[MAAGIQA, FloatBranch]:
    """A model that holds the tower to start from, and the branch to train; experts and gate are new.

    Args:
        start: the wheels, or none for the shipped model.
        views: gives calibration images, as `encoder_view` does.
    """
    if start.tower is None or start.branch is None:
        model = MAAGIQA(pretrained=True)
        return model, float_branch(model.branch)
    model, branch = MAAGIQA(pretrained=False), FloatBranch()
    tower = float_tower()
    tower.load_state_dict(tower_from_wheel(Path(start.tower)))
    model.encoder = integer_tower(tower, views())
    network = branch.network
    network.load_state_dict(branch_from_wheel(Path(start.branch), list(network.state_dict())))
    return model, branch


def calibration_images(ratings: Ratings, images: Images) -> Callable[[], Iterator[torch.Tensor]]:
    """Pixels of images that are of the train part by every split of their table.

    So training on another split begins with the same tower.
    """
    rows = spread(np.flatnonzero(ratings.everywhere), CALIBRATION)
    return lambda: (to_tensor([images[row]]) for row in rows)


def spread(rows: np.ndarray, count: int) -> np.ndarray:
    """So many of the rows, evenly spread over them."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)]


def seen_by(
    see: Callable[[ImageSource, np.ndarray], np.ndarray],
    images: ImageSource,
    ratings: Ratings,
    recipe: Recipe,
) -> Seen:
    """What the closed form is told of the train part.

    Args:
        see: what both networks say (M, n) of images by their rows.
    """
    fitted = ratings.rows("train")
    everything = see(images, fitted)
    weight = recipe.experts.rater_weight
    variance = ratings.deviation[fitted].astype(np.float64) ** 2
    noise = np.maximum(1 - weight + weight * variance / max(variance.mean(), 1e-12), 1e-3)
    rows = spread(np.flatnonzero(ratings.everywhere), recipe.degraded)
    copies = DegradedCopies(images, rows)
    of_copies = see(copies, np.arange(len(copies))).reshape(len(rows), len(GRADES), everything.shape[1])
    place = np.searchsorted(fitted, rows)  # what is of the train part everywhere is so here
    milder = np.concatenate([everything[place][:, None], of_copies[:, :-1]], 1)
    falls = (of_copies - milder).reshape(-1, everything.shape[1])
    fallen = place.repeat(len(GRADES))
    return Seen(everything, ratings.mos[fitted], ratings.generators[fitted], noise, falls, fallen)


def train(recipe: Recipe, test: bool = False) -> dict[str, Any]:
    """Train ma_agiqa, write weights and metrics, and return the metrics.

    Args:
        recipe: see `Recipe`.
        test: measure on the test part, too; otherwise it is not read.

    Raises:
        InputError: images, table, settings or the folder are not of use; the message says which and why.
    """
    began = time.time()
    out = Path(recipe.out)
    tuned = recipe.quality.epochs > 0
    ratings = recipe.data.read(test, val=tuned)
    fitted, chosen = ratings.rows("train"), ratings.rows("val")
    images = Images(ratings.paths)
    torch.manual_seed(recipe.experts.seed)
    calibration = calibration_images(ratings, images)
    model, branch = starting_model(recipe.start, lambda: map(encoder_view, calibration()))
    logger.info("%d train and %d val images; the tower is at hand", len(fitted), len(chosen))

    quality = QualityRegressor(branch, float(ratings.mos[fitted].mean()))
    if tuned:
        made_of = {"images": files_digest(ratings.paths[row] for row in fitted)}
        quality = train_quality_branch(
            quality, images, ratings.mos, fitted, chosen, recipe.quality, out, made_of
        )
    if tuned or recipe.start.branch is not None:
        model.branch = integer_branch(quality.branch, map(branch_view, calibration()))

    summaries = Summaries(model.encoder, Path(recipe.summaries or out / "summaries"))

    def everything(source: ImageSource, rows: np.ndarray) -> np.ndarray:
        features = branch_features(model.branch, source, rows)
        return np.concatenate([features, summaries(source, rows).reshape(len(rows), -1)], 1)

    seen = seen_by(everything, images, ratings, recipe)
    logger.info("both networks have seen the train images")
    # Features that were tuned on these images say more of them than of others.
    experts = dataclasses.replace(recipe.experts, branch_weight=0.0) if tuned else recipe.experts
    calibrated = fit_experts(model, seen, experts)
    logger.info("interval: half width %.3f, growth %.2f; held %s", *calibrated.width, calibrated.coverage)
    measured = {}
    for part in ("val", "test"):
        rows = ratings.rows(part)
<<<<<<< ours
        measured[part] = everything(images, rows), ratings.mos[rows]
=======
        if len(rows):
            measured[part] = everything(rows), ratings.mos[rows]
>>>>>>> theirs
    blend = None
    if tuned:
        centre_head(quality, seen.everything[:, : QualityBranch.width], seen.mos)
        blend = _join(model, quality, *measured["val"])
    write_whole(out / "weights.safetensors", lambda aside: save_weights(model, aside))

    metrics: dict[str, Any] = {
        "recipe": dataclasses.asdict(recipe),
        "trained_at_commit": running_commit(),
        "command": shlex.join(["pyiqa-ma-agiqa", *sys.argv[1:]]),
        "blend": dataclasses.asdict(blend) if blend else None,
        "interval": {"width": calibrated.width, "coverage_in_training": calibrated.coverage},
        "agreement": {
            part: agreement(predict_experts(model, values), mos) for part, (values, mos) in measured.items()
        },
        "seconds": round(time.time() - began),
    }
    write_json(out / "metrics.json", metrics)
    for part, figures in metrics["agreement"].items():
        logger.info("%s: SRCC %.4f PLCC %.4f", part, figures["srcc"], figures["plcc"])
    return metrics


def _join(model: MAAGIQA, quality: QualityRegressor, everything: np.ndarray, mos: np.ndarray) -> Blend:
    """Let a tuned branch into the quality expert, at the weight that is best for the val part."""
    said = predict_branch(quality, everything[:, : QualityBranch.width])
    blend = choose_blend(predict_experts(model, everything), gated_branch(model, everything, said), mos)
    join_branch(model, quality, blend.weight)
    return blend
