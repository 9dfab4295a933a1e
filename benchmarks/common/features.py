"""What the networks of a model say of rated images, kept in a folder."""

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
from pyiqa_ma_agiqa.compact.semantic import SUMMARY
from pyiqa_ma_agiqa.experts import EXPERTS
from pyiqa_ma_agiqa.training.checkpoint import digest, files_digest, state_digest, write_whole
from pyiqa_ma_agiqa.training.data import Images, Ratings, read_ratings
from pyiqa_ma_agiqa.training.quality_stage import branch_features
from pyiqa_ma_agiqa.training.summaries import Summaries


@dataclass
class Seen:
    """M images, their ratings and what both networks of a model say of them.

    Attributes:
        summaries: (M, 18432), the tower's.
        features: (M, 1280), the branch's mean features.
    """

    ratings: Ratings
    summaries: np.ndarray
    features: np.ndarray

    @property
    def mos(self) -> np.ndarray:
        return self.ratings.mos

    @property
    def generators(self) -> np.ndarray:
        return self.ratings.generators


def official(folder: Path) -> Ratings:
    """The ratings of all images, of whatever part of the split `official`.

    The generators are the six, whatever their variants.
    """
    return read_ratings(
        folder / "images",
        folder / "data.csv",
        "mos_quality",
        folder / "splits.csv",
        "official",
        deviation_column="std_quality",
        generator_pattern=FAMILY,
    )


def of_rows(ratings: Ratings, rows: np.ndarray) -> Ratings:
    """The ratings of some images alone, by their row numbers."""
    others = (ratings.mos, ratings.part, ratings.everywhere, ratings.generators, ratings.deviation)
    return Ratings([ratings.paths[row] for row in rows], *(values[rows] for values in others))


def seen(model: MAAGIQA, ratings: Ratings, cache: Path) -> Seen:
    """What the networks of a model say of images.

    Args:
        cache: what is there is not computed again. In `runs`, `train` keeps summaries, too.
    """
    return Seen(ratings, summaries_of(model, ratings, cache), features_of(model, ratings, cache))


def summaries_of(model: MAAGIQA, ratings: Ratings, cache: Path, side: int = ENCODER_SIDE) -> np.ndarray:
    """What the tower says (M, 18432).

    Args:
        side: the tower's view has about this side squared in area.
    """
    # How summaries are kept does not tell views of another size apart.
    folder = cache / ("summaries" if side == ENCODER_SIDE else f"summaries_{side}")
    rows = np.arange(len(ratings.mos))
    with mock.patch.object(preprocessing, "ENCODER_SIDE", side):
        found = Summaries(model.encoder, folder)(Images(ratings.paths), rows)
    return found.reshape(len(rows), -1)


def features_of(model: MAAGIQA, ratings: Ratings, cache: Path) -> np.ndarray:
    """Mean features (M, 1280) of the model's own branch."""
    code = files_digest(sorted(Path(arch.__file__).parent.rglob("*.py")))
    words = (code, files_digest(ratings.paths), state_digest(model.branch))
    path = cache / f"branch_features_{digest(word.encode() for word in words)[:16]}.npy"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        found = branch_features(model.branch, Images(ratings.paths), np.arange(len(ratings.mos)))
        write_whole(path, lambda aside: np.save(aside, found))
    return np.load(path)


@torch.inference_mode()
def judged(model: MAAGIQA, seen: Seen) -> pd.DataFrame:
    """Score, gate of quality, familiarity, both ends of the interval and shares that a model gives.

    Args:
        model: the one whose networks have said what is seen.
    """
    summaries = torch.from_numpy(seen.summaries.reshape(-1, *SUMMARY))
    found = model.judge(summaries, torch.from_numpy(seen.features))
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
