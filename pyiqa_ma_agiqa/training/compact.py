"""Training of ``ma_agiqa``: the quality branch, then experts and gate in closed form.

Stage 2 reads what the frozen tower says, and joins the experts with the branch at a weight chosen on the
val part. Writes ``weights.safetensors`` (for ``pretrained_model_path``) and ``metrics.json`` to the folder.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

import torch

from ..compact.arch import MAAGIQA
from ..compact.storage import save_weights
from .agreement import agreement
from .checkpoint import files_digest, write_json, write_whole
from .commit import running_commit
from .data import Images
from .experts_stage import choose_blend, fit_experts, join_branch, predict_experts
from .quality_stage import (
    QualityRegressor,
    QualityStageConfig,
    branch_features,
    predict_branch,
    train_quality_branch,
)
from .recipe import Recipe, StartConfig
from .starts import branch_from_wheel, tower_from_wheel
from .summaries import Summaries

logger = logging.getLogger(__name__)

FINE_TUNING = QualityStageConfig(epochs=4)
"""Stage 1 on one's own images, from the shipped weights."""


def starting_model(start: StartConfig) -> MAAGIQA:
    """A model that holds the weights to start from; experts and gate are new."""
    if start.tower is None or start.branch is None:
        return MAAGIQA(pretrained=True)
    model = MAAGIQA(pretrained=False)
    model.encoder.tower.load_state_dict(tower_from_wheel(Path(start.tower)))
    network = model.branch.network
    network.load_state_dict(branch_from_wheel(Path(start.branch), list(network.state_dict())))
    return model


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
    model = starting_model(recipe.start)

    quality = QualityRegressor(model.branch, float(ratings.mos[fitted].mean()))
    made_of = {"images": files_digest(ratings.paths[row] for row in fitted)}
    quality = train_quality_branch(quality, images, ratings.mos, fitted, chosen, recipe.quality, out, made_of)

    summaries = Summaries(model.encoder, out / "summaries")
    mirrored = summaries(images, fitted, mirrored=True)
    fit_experts(model, summaries(images, fitted), mirrored, ratings.mos[fitted], recipe.experts)
    measured = {}
    for part in ("val", "test") if test else ("val",):
        rows = ratings.rows(part)
        features = branch_features(quality.branch, images, rows)
        measured[part] = summaries(images, rows), features, ratings.mos[rows]
    of_val, features, mos = measured["val"]
    experts, branch = predict_experts(model, of_val), predict_branch(quality, features)
    blend = choose_blend(experts, branch, mos)
    join_branch(model, quality, blend.weight)
    write_whole(out / "weights.safetensors", lambda aside: save_weights(model, aside, recipe.bits))

    metrics: dict[str, Any] = {
        "recipe": dataclasses.asdict(recipe),
        "trained_at_commit": running_commit(),
        "blend": dataclasses.asdict(blend),
        "val_of_the_parts": {"experts": agreement(experts, mos), "branch": agreement(branch, mos)},
        "float32": {
            part: agreement(predict_experts(model, tower, features), mos)
            for part, (tower, features, mos) in measured.items()
        },
        "seconds": round(time.time() - began),
    }
    write_json(out / "metrics.json", metrics)
    return metrics
