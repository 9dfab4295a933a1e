"""What the shipped networks, which have seen no MOS, say of AGIQA-3K, kept in a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch

from benchmarks.common.agiqa3k import FAMILY
from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.compact import arch, preprocessing
from pyiqa_ma_agiqa.compact.preprocessing import ENCODER_SIDE
from pyiqa_ma_agiqa.compact.quality import QualityBranch
from pyiqa_ma_agiqa.compact.semantic import SUMMARY
from pyiqa_ma_agiqa.experts import EXPERTS
from pyiqa_ma_agiqa.training.checkpoint import digest, files_digest, state_digest
from pyiqa_ma_agiqa.training.closed_form import Rated
from pyiqa_ma_agiqa.training.compact import rated
from pyiqa_ma_agiqa.training.data import Images, Ratings, read_ratings
from pyiqa_ma_agiqa.training.quality_stage import branch_features
from pyiqa_ma_agiqa.training.summaries import Summaries

DEFAULT_CACHE = Path("runs")


@dataclass
class Seen:
    """M images, their ratings and what the networks say of them.

    Attributes:
        ratings: with the split `official`; the generators are the six, whatever their variants.
        everything: (M, 15104): mean branch features, then the tower's summary.
    """

    ratings: Ratings
    everything: np.ndarray

    @property
    def mos(self) -> np.ndarray:
        return self.ratings.mos

    @property
    def generators(self) -> np.ndarray:
        return self.ratings.generators

    def rated(self, rows: np.ndarray, rater_weight: float) -> Rated:
        """What a fit is told of some images."""
        return rated(self.ratings, rows, rater_weight)


def official(folder: Path) -> Ratings:
    """The ratings of all images, of whatever part of the split `official`."""
    return read_ratings(
        folder / "images",
        folder / "data.csv",
        "mos_quality",
        folder / "splits.csv",
        "official",
        deviation_column="std_quality",
        generator_pattern=FAMILY,
    )


def seen(model: MAAGIQA, ratings: Ratings, cache: Path, side: int = ENCODER_SIDE) -> Seen:
    """What the networks of a model say of images.

    Args:
        model: holds the networks.
        cache: what is there is not computed again. `runs/summaries` is where `train` keeps summaries, too.
        side: the tower's view has about this side squared in area.
    """
    images, rows = Images(ratings.paths), np.arange(len(ratings.mos))
    # How summaries are kept does not tell views of another size apart.
    folder = cache / ("summaries" if side == ENCODER_SIDE else f"summaries_{side}")
    with mock.patch.object(preprocessing, "ENCODER_SIDE", side):
        summaries = Summaries(model.encoder, folder)(images, rows)
    code = files_digest(sorted(Path(arch.__file__).parent.rglob("*.py")))
    made_of = digest(
        [word.encode() for word in (code, files_digest(ratings.paths), state_digest(model.branch))]
    )
    path = cache / f"branch_features_{made_of[:16]}.npy"
    if not path.is_file():
        np.save(path, branch_features(model.branch, images, rows))
    return Seen(ratings, np.concatenate([np.load(path), summaries.reshape(len(rows), -1)], 1))


@torch.inference_mode()
def judged(model: MAAGIQA, everything: np.ndarray) -> pd.DataFrame:
    """Score, gate of quality, familiarity, both ends of the interval and shares that a model gives.

    Args:
        everything: (M, 15104).
    """
    features, summaries = np.split(everything, [QualityBranch.width], axis=1)
    found = model.judge(torch.from_numpy(summaries.reshape(-1, *SUMMARY)), torch.from_numpy(features))
    low, high = found.interval.double().T.numpy()
    return pd.DataFrame(
        {
            "score": found.score[:, 0].double().numpy(),
            "gate": found.gate[:, 2].double().numpy(),
            "familiarity": found.familiarity[:, 0].double().numpy(),
            "low": low,
            "high": high,
        }
        | {f"share {name}": found.shares[:, place].double().numpy() for place, name in enumerate(EXPERTS)}
    )
