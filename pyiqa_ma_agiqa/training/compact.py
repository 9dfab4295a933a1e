"""Training of ``ma_agiqa``: the quality branch, then experts and gate in closed form.

Stage 2 reads what the frozen tower says, and joins the experts with the branch at a weight chosen on the
val part. Writes ``weights.safetensors`` (for ``pretrained_model_path``) and ``metrics.json`` to the folder.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..compact.arch import MAAGIQA
from ..compact.preprocessing import branch_view, encoder_view
from ..compact.storage import save_weights
from .agreement import agreement
from .checkpoint import files_digest, write_json, write_whole
from .commit import running_commit
from .data import Images
from .experts_stage import choose_blend, fit_experts, join_branch, predict_experts
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
"""Stage 1 on one's own images, from the shipped weights."""


CALIBRATION = 64
"""How many train images, evenly spread over them, tell the sizes of the values that are rounded."""


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


def train(recipe: Recipe, test: bool = False) -> dict[str, Any]:
    """Run both stages of ma_agiqa, write weights and metrics, and return the metrics.

    Args:
        recipe: see `Recipe`.
        test: measure on the test part, too; otherwise it is not read.
    """
    began = time.time()
    out = Path(recipe.out)
    ratings = recipe.data.read(test)
    fitted, chosen = ratings.rows("train"), ratings.rows("val")
    images = Images(ratings.paths)
    torch.manual_seed(recipe.experts.seed)

    spread = fitted[np.linspace(0, len(fitted) - 1, min(CALIBRATION, len(fitted))).round().astype(int)]

    def calibration(view_of: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[torch.Tensor]:
        return (view_of(to_tensor([images[row]])) for row in spread)

    model, branch = starting_model(recipe.start, lambda: calibration(encoder_view))
    quality = QualityRegressor(branch, float(ratings.mos[fitted].mean()))
    made_of = {"images": files_digest(ratings.paths[row] for row in fitted)}
    quality = train_quality_branch(quality, images, ratings.mos, fitted, chosen, recipe.quality, out, made_of)
    model.branch = integer_branch(quality.branch, calibration(branch_view))
    centre_head(quality, branch_features(model.branch, images, fitted), ratings.mos[fitted])

    summaries = Summaries(model.encoder, out / "summaries")
    mirrored = summaries(images, fitted, mirrored=True)
    fit_experts(model, summaries(images, fitted), mirrored, ratings.mos[fitted], recipe.experts)
    measured = {}
    for part in ("val", "test") if test else ("val",):
        rows = ratings.rows(part)
        features = branch_features(model.branch, images, rows)
        measured[part] = summaries(images, rows), features, ratings.mos[rows]
    of_val, features, mos = measured["val"]
    experts, alone = predict_experts(model, of_val), predict_branch(quality, features)
    blend = choose_blend(experts, alone, mos)
    join_branch(model, quality, blend.weight)
    write_whole(out / "weights.safetensors", lambda aside: save_weights(model, aside))

    metrics: dict[str, Any] = {
        "recipe": dataclasses.asdict(recipe),
        "trained_at_commit": running_commit(),
        "blend": dataclasses.asdict(blend),
        "val_of_the_parts": {"experts": agreement(experts, mos), "branch": agreement(alone, mos)},
        "agreement": {
            part: agreement(predict_experts(model, tower, features), mos)
            for part, (tower, features, mos) in measured.items()
        },
        "seconds": round(time.time() - began),
    }
    write_json(out / "metrics.json", metrics)
    return metrics
