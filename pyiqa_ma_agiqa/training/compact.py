"""Training of ``ma_agiqa``: a quality branch by gradient descent, then all else in closed form.

Experts, gate and interval are fitted to what the frozen tower says; the branch then joins the quality
expert. Writes ``weights.safetensors`` (for ``pretrained_model_path``) and ``metrics.json`` to the folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
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
from ..compact.semantic import SUMMARY
from ..compact.storage import save_weights
from ..errors import InputError
from .agreement import agreement
from .checkpoint import files_digest, write_json, write_whole
from .closed_form import Seen
from .commit import running_commit
from .crops import to_tensor
from .data import Images, ImageSource, Ratings
from .degradations import GRADES, DegradedCopies
from .experts_stage import fit_experts, predict_experts, rating_noise
from .float_networks import FloatBranch, float_tower
from .joining import join_branch
from .quality_stage import (
    QualityRegressor,
    QualityStageConfig,
    branch_features,
    centre_head,
    train_quality_branch,
)
from .recipe import Recipe, StartConfig
from .rounding import float_branch, integer_branch, integer_tower
from .starts import branch_from_wheel, tower_from_wheel
from .summaries import Summaries

logger = logging.getLogger(__name__)

FINE_TUNING = QualityStageConfig(epochs=4, crop=256, batch=16, degraded=2, rate=4e-4)
"""Tuning of the branch on one's own images, from the shipped weights."""

CALIBRATION = 64
"""How many images tell the sizes of the values that are rounded."""
SPREADS = (0.25, 2.5)
"""Standard deviations of MOS that the settings are good for; that of AGIQA-3K's is about 1."""
CENTRING = 256
"""How many train images tell the mean of what the branch predicts."""


def starting_model(
    start: StartConfig, views: Callable[[], Iterable[torch.Tensor]]
) -> tuple[MAAGIQA, FloatBranch]:
    """A model that holds the tower, and the branch to train; experts and gate are to be fitted.

    Args:
        start: the wheels; what is not given is that of the shipped model.
        views: gives calibration images, as `encoder_view` does.
    """
    model, branch = MAAGIQA(pretrained=start.tower is None), FloatBranch()
    if start.tower is not None:
        tower = float_tower()
        tower.load_state_dict(tower_from_wheel(Path(start.tower)))
        model.encoder = integer_tower(tower, views())
    if start.branch is None:
        return model, float_branch(model.branch)
    network = branch.network
    network.load_state_dict(branch_from_wheel(Path(start.branch), list(network.state_dict())))
    return model, branch


def drawn(ratings: Ratings, rows: np.ndarray, count: int) -> np.ndarray:
    """So many of the rows, in ascending order, drawn by the names of their images.

    Without some of the rows it is nearly the same images, so that runs can share what is said of them.
    """
    by_name = sorted(rows, key=lambda row: hashlib.sha256(ratings.paths[row].name.encode()).digest())
    return np.sort(np.array(by_name[:count], int))


def calibration_images(ratings: Ratings, images: Images) -> Callable[[], Iterator[torch.Tensor]]:
    """Pixels of images that are of the train part by every split of their table.

    So training on another split begins with the same tower.
    """
    rows = drawn(ratings, np.flatnonzero(ratings.everywhere), CALIBRATION)
    return lambda: (to_tensor([images[row]]) for row in rows)


def seen_by(
    summarise: Callable[[ImageSource, np.ndarray], np.ndarray],
    images: ImageSource,
    ratings: Ratings,
    recipe: Recipe,
) -> Seen:
    """What the closed form is told of the train part.

    Args:
        summarise: what the tower says (M, n) of images by their rows.
    """
    fitted = ratings.rows("train")
    summaries = summarise(images, fitted)
    noise = rating_noise(ratings.deviation[fitted], recipe.experts.rater_weight)
    rows = drawn(ratings, np.flatnonzero(ratings.everywhere), recipe.degraded)
    copies = DegradedCopies(images, rows)
    of_copies = summarise(copies, np.arange(len(copies))).reshape(len(rows), len(GRADES), summaries.shape[1])
    place = np.searchsorted(fitted, rows)  # what is of the train part everywhere is so here
    milder = np.concatenate([summaries[place][:, None], of_copies[:, :-1]], 1)
    falls = (of_copies - milder).reshape(-1, summaries.shape[1])
    fallen = place.repeat(len(GRADES))
    return Seen(summaries, ratings.mos[fitted], ratings.generators[fitted], noise, falls, fallen)


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
    ratings = recipe.data.read(test, val=False)
    fitted = ratings.rows("train")
    spread = float(ratings.mos[fitted].std())
    if not SPREADS[0] <= spread <= SPREADS[1]:
        raise InputError(
            f"{recipe.data.table}: the MOS of the train part have a standard deviation of {spread:.3g}, and "
            "the settings are for about 1, as on a scale of 0 to 5; rescale them, or take "
            "`pyiqa-ma-agiqa adapt`, for any scale"
        )
    images = Images(ratings.paths)
    torch.manual_seed(recipe.experts.seed)
    calibration = calibration_images(ratings, images)
    model, branch = starting_model(recipe.start, lambda: map(encoder_view, calibration()))
    logger.info("%d train images; the networks to start from are at hand", len(fitted))

    shared = Path(recipe.summaries or out / "summaries")
    quality = QualityRegressor(branch, float(ratings.mos[fitted].mean()), recipe.quality.frozen_stages)
    if recipe.quality.epochs:
        made_of = {"images": files_digest(ratings.paths[row] for row in fitted)}
        quality = train_quality_branch(
            quality, images, ratings.mos, fitted, recipe.quality, out, shared / "crops", made_of
        )
    if recipe.quality.epochs or recipe.start.branch is not None:
        model.branch = integer_branch(quality.branch, map(branch_view, calibration()))

    summaries = Summaries(model.encoder, shared)

    def summarise(source: ImageSource, rows: np.ndarray) -> np.ndarray:
        return summaries(source, rows).reshape(len(rows), math.prod(SUMMARY))

    seen = seen_by(summarise, images, ratings, recipe)
    logger.info("the tower has seen the train images")
    calibrated = fit_experts(model, seen, recipe.experts)
    logger.info("interval: half width %.3f, growth %.2f; held %s", *calibrated.width, calibrated.coverage)
    if recipe.quality.epochs:
        some = drawn(ratings, fitted, CENTRING)
        centre_head(quality, branch_features(model.branch, images, some), ratings.mos[some])
        join_branch(model, quality, recipe.blend)
    write_whole(out / "weights.safetensors", lambda aside: save_weights(model, aside))

    reached = {}
    for part in ("val", "test"):
        rows = ratings.rows(part)
        if len(rows):
            features = branch_features(model.branch, images, rows)
            predicted = predict_experts(model, features, summarise(images, rows))
            reached[part] = agreement(predicted, ratings.mos[rows])
    metrics: dict[str, Any] = {
        "recipe": dataclasses.asdict(recipe),
        "trained_at_commit": running_commit(),
        "command": shlex.join(["pyiqa-ma-agiqa", *sys.argv[1:]]),
        "interval": {"width": calibrated.width, "coverage_in_training": calibrated.coverage},
        "agreement": reached,
        "seconds": round(time.time() - began),
    }
    write_json(out / "metrics.json", metrics)
    for part, figures in metrics["agreement"].items():
        logger.info("%s: SRCC %.4f PLCC %.4f", part, figures["srcc"], figures["plcc"])
    return metrics
