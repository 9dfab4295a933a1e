"""AGIQA-3K and what the shipped networks say of it, kept in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from benchmarks.ablations.second_stage import QUALITY, Row, Stage
from benchmarks.ablations.tower_ablations import cached
from benchmarks.common.agiqa3k import generator
from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.compact.preprocessing import encoder_view
from pyiqa_ma_agiqa.compact.quality import QualityBranch
from pyiqa_ma_agiqa.compact.semantic import DEPTHS, WIDTH
from pyiqa_ma_agiqa.compact.shipped import NAME
from pyiqa_ma_agiqa.experts import Mixture
from pyiqa_ma_agiqa.training.checkpoint import claim_folder, digest, files_digest
from pyiqa_ma_agiqa.training.data import Images, read_ratings
from pyiqa_ma_agiqa.training.experts_stage import ExpertsStageConfig, Inputs
from pyiqa_ma_agiqa.training.quality_stage import branch_features, to_tensor
from pyiqa_ma_agiqa.training.summaries import Summaries
from pyiqa_ma_agiqa.weights.manifest import entry

CROP = 7 / 8
"""Side of the central crop that is the third view, as a part of the image's."""


class Data:
    """AGIQA-3K and what the shipped networks say of it, read from the cache folder or computed into it.

    Raises:
        InputError: the cache folder is of other images, ratings or weights.
    """

    def __init__(self, folder: Path, cache: Path) -> None:
        cache.mkdir(parents=True, exist_ok=True)
        ratings = read_ratings(
            folder / "images", folder / "data.csv", "mos_quality", folder / "splits.csv", "official"
        )
        self.parts = {part: ratings.rows(part) for part in ("train", "val", "test")}
        self.names = [path.name for path in ratings.paths]
        self.generators = np.array([generator(name) for name in self.names])
        self.images, self.mos, self.cache = Images(ratings.paths), ratings.mos, cache
        made_of = {
            "images": files_digest(ratings.paths),
            "ratings": digest([ratings.mos.tobytes(), *map(str.encode, ratings.part)]),
            "weights": entry(NAME)["sha256"],
        }
        claim_folder(cache, made_of)
        self.model = MAAGIQA()
        summaries, rows = Summaries(self.model.encoder, cache / "summaries"), np.arange(len(self.mos))
        self.plain, self.flipped = (summaries(self.images, rows, mirrored) for mirrored in (False, True))
        self.features = cached(
            cache / "features.npy", len(self.mos), (QualityBranch.width,), np.float32, self._features
        )

    def _features(self, row: int) -> np.ndarray:
        return branch_features(self.model.branch, self.images, np.array([row]))[0]

    def cropped(self) -> np.ndarray:
        """Summaries of the central crop of val and test images; NaN for train."""
        wanted = set(self.parts["val"]) | set(self.parts["test"])
        shape = (len(DEPTHS), 3, WIDTH)

        @torch.inference_mode()
        def make(row: int) -> np.ndarray:
            if row not in wanted:
                return np.full(shape, np.nan, np.float32)
            pixels = to_tensor([self.images[row]])
            height, width = (round(CROP * side) for side in pixels.shape[2:])
            top, left = (pixels.shape[2] - height) // 2, (pixels.shape[3] - width) // 2
            view = encoder_view(pixels[:, :, top : top + height, left : left + width])
            return self.model.encoder(view)[0].numpy()

        return cached(self.cache / "crop.npy", len(self.mos), shape, np.float32, make)

    def stage(self, plain: np.ndarray, flipped: np.ndarray) -> Stage:
        """The second stage on summaries of all images and of mirrored train images."""
        fitted, chosen = self.parts["train"], self.parts["val"]
        return Stage(plain, flipped, self.branch(), self.mos, fitted, chosen)

    @torch.inference_mode()
    def mixture(self, rows: np.ndarray) -> Mixture:
        """What the shipped experts and gate make of some images."""
        features = torch.from_numpy(np.array(self.features[rows]))
        return self.model.mix(torch.from_numpy(self.plain[rows]), features)

    def shipped(self) -> Row:
        """The shipped weights, with nothing fitted anew."""
        scores = self.mixture(np.arange(len(self.mos))).score
        return Row(scores[:, 0].numpy(), entry(NAME)["recipe"]["blend"])

    def branch(self) -> np.ndarray:
        """MOS (M,) that the shipped branch alone predicts.

        The shipped quality expert holds the branch's head times the blend weight, and in its bias that of
        the head beside the standardisation of the tower's inputs.
        """
        weight = entry(NAME)["recipe"]["blend"]
        fitted = self.parts["train"]
        standardised = Inputs(self.plain[fitted], ExpertsStageConfig().content_weight)
        row = self.model.quality_expert.weight[0].detach().numpy()
        head, of_tower = row[: QualityBranch.width], row[QualityBranch.width :]
        bias = self.model.quality_expert.bias[0].item() + of_tower @ standardised.means[QUALITY]
        return self.mos[fitted].mean() + (self.features @ head + bias) / weight
