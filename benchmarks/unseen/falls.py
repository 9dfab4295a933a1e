"""How much do the degraded copies weigh, so that scores fall as images get worse?

    python -m benchmarks.unseen.falls [--data FOLDER] [--runs FOLDER]

The rule. Of each generator and variant of AGIQA-3K the two val images with the highest MOS, degraded in seven
steps by each kind of `robustness` but the colour shift; that benchmark looks at test images and photographs.
A series is steady as it is there. Of the pairs of `ridge` and `fall_noise` with which at least .95 of the
series are steady (else of those with the most), the one with the greatest sum of `choices`, here of fits with
the degraded copies. What the recipe has gives way only to gain .0005.

Gate and branch of each fold are those of the model that was trained for it, or shipped; see `choices`. Writes
falls.json beside itself.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.agiqa3k import generator
from benchmarks.common.degraded_series import COLOUR_SHIFT, KINDS, LEVELS, is_steady
from benchmarks.common.features import Seen, judged, official, summaries_of
from benchmarks.common.folds import KNOWN, Fold, branch_of, folds
from benchmarks.common.left_out import model_of, parser_of_runs, shipped_recipe
from benchmarks.common.lights import joined, of_known, of_unseen
from benchmarks.common.machine import circumstances, write_json
from benchmarks.common.metrics import own_weights_sha256
from benchmarks.common.statistics_of_scores import srcc
from benchmarks.unseen import choices
from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.training import closed_form
from pyiqa_ma_agiqa.training.compact import seen_by
from pyiqa_ma_agiqa.training.data import Images, ImageSource, Ratings
from pyiqa_ma_agiqa.training.degradations import DegradedCopies
from pyiqa_ma_agiqa.training.experts_stage import LATE, ExpertsStageConfig, penalties, prior, standardisation
from pyiqa_ma_agiqa.training.quality_stage import branch_features
from pyiqa_ma_agiqa.training.recipe import Recipe
from pyiqa_ma_agiqa.training.summaries import Summaries

RIDGES = (0.35, 0.5, 0.7, 1.0)
FALL_NOISES = (0.5, 0.75, 1.0, 1.5, 3.0)
ENOUGH = 0.95
"""Part of the series that are to be steady."""
OF_EACH = 2
"""Images of each generator and variant."""
Summarise = Callable[[ImageSource, np.ndarray], np.ndarray]
"""What the tower says (M, 18432) of images by their rows."""
DEGRADATIONS = [degrade for kind, degrade in KINDS.items() if kind != COLOUR_SHIFT]


class Series:
    """Every level of every kind of degradation of some images, made when asked for.

    Args:
        images: (H, W, 3) uint8 each.
        rows: which of them.
    """

    def __init__(self, images: ImageSource, rows: np.ndarray) -> None:
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        return len(self.rows) * len(DEGRADATIONS) * LEVELS

    def __getitem__(self, number: int) -> np.ndarray:
        place, level = divmod(int(number), LEVELS)
        row, kind = divmod(place, len(DEGRADATIONS))
        image = self.images[self.rows[row]]
        if level == 0:
            return image
        return DEGRADATIONS[kind](image, (level - 1) / (LEVELS - 2), np.random.default_rng(0))


def best_of_val(ratings: Ratings) -> np.ndarray:
    """Rows of the val images with the highest MOS of each generator and variant."""
    rows = ratings.rows("val")
    best_first = rows[np.argsort(-ratings.mos[rows], kind="stable")]
    variants = np.array([generator(ratings.paths[row].name) for row in best_first])
    return np.concatenate([best_first[variants == name][:OF_EACH] for name in np.unique(variants)])


def steady(scores: np.ndarray) -> float:
    """Part of the series that fall steadily.

    Args:
        scores: (N * LEVELS,), series by series, the untouched image first.
    """
    found = [is_steady(srcc(np.arange(LEVELS), series)) for series in scores.reshape(-1, LEVELS)]
    return float(np.mean(found))


class Regressions:
    """Both regressions of the experts for any ridge and weight of the copies; the products are made once.

    Args:
        seen: what they are fitted to.
        asked: (M, 18432) what they are asked for.
        config: all else of the recipe.
    """

    def __init__(self, seen: closed_form.Seen, asked: np.ndarray, config: ExpertsStageConfig) -> None:
        self.seen = seen
        variance = prior(config)
        centre, scale = standardisation(seen.summaries, variance)
        rows = np.concatenate([(seen.summaries - centre) * scale, seen.falls * scale])
        new, share = (asked - centre) * scale, np.float32(variance[LATE].sum())
        late, new_late = rows[:, LATE], new[:, LATE]
        self.products = [
            (late @ late.T / share, new_late @ late.T / share),
            (rows @ rows.T, new @ rows.T),
        ]

    def predict(self, config: ExpertsStageConfig) -> tuple[np.ndarray, np.ndarray]:
        """MOS (M,) by the late blocks alone, and by all."""
        found = []
        for kernel, asked in self.products:
            dual, intercept = closed_form.duals(kernel.astype(np.float64), self.seen, penalties(config))
            found.append(asked.astype(np.float64) @ dual + intercept)
        return found[0], found[1]


def of_fold(ratings: Ratings, fold: Fold) -> Ratings:
    """The ratings with what a fold was fitted to as their train part."""
    fitted = np.isin(np.arange(len(ratings.mos)), fold.fitted)
    part = np.where(fitted, "train", "test")
    return dataclasses.replace(ratings, part=part, everywhere=ratings.everywhere & fitted)


class Kept:
    """What the tower says (M, 18432) of images and of their degraded copies, for which all folds ask.

    Args:
        images: the ones that are rated.
        summaries: of all of them.
        summarise: what it says of others.
    """

    def __init__(self, images: ImageSource, summaries: np.ndarray, summarise: Summarise) -> None:
        self.images, self.summaries, self.summarise = images, summaries, summarise
        self.copies: dict[int, np.ndarray] = {}

    def __call__(self, source: ImageSource, rows: np.ndarray) -> np.ndarray:
        if source is self.images:
            return self.summaries[rows]
        if not isinstance(source, DegradedCopies):
            return self.summarise(source, rows)
        new = np.array([row for row in source.rows if row not in self.copies], int)
        if len(new):
            copies = DegradedCopies(self.images, new)
            said = self.summarise(copies, np.arange(len(copies)))
            self.copies.update(zip(new.tolist(), np.split(said, len(new)), strict=True))
        return np.concatenate([self.copies[row] for row in source.rows.tolist()])[rows]


@dataclasses.dataclass
class Asked:
    """Images that a fold is asked for: summaries (M, 18432), what its branch predicts and its gate, (M,)."""

    summaries: np.ndarray
    branch: np.ndarray
    gate: np.ndarray

    def with_more(self, others: Asked) -> Asked:
        """These images and then others."""
        return Asked(
            np.concatenate([self.summaries, others.summaries]),
            np.concatenate([self.branch, others.branch]),
            np.concatenate([self.gate, others.gate]),
        )


def measure(
    images: ImageSource,
    ratings: Ratings,
    fold: dict[str, Fold],
    series: Asked,
    recipe: Recipe,
    summarise: Summarise,
) -> list[dict[str, float]]:
    """A row for each pair of `ridge` and `fall_noise`: part of steady series, the figures of `choices`.

    Args:
        series: of val images, level by level.
        summarise: what the tower says (M, 18432) of images by their rows.
    """
    pairs = [{"ridge": ridge, "fall_noise": noise} for ridge, noise in itertools.product(RIDGES, FALL_NOISES)]
    known, unseen = np.full((2, len(pairs), len(ratings.mos)), np.nan)
    of_series = np.empty((len(pairs), len(series.gate)))
    for name, one in fold.items():
        seen = seen_by(summarise, images, of_fold(ratings, one), recipe)
        branch, gate = one.table["branch"].to_numpy(), one.table["gate"].to_numpy()
        asked = Asked(summarise(images, one.asked), branch, gate)
        if name == KNOWN:
            asked = asked.with_more(series)
        print(f"fold {name or 'official'}", flush=True)
        regressions = Regressions(seen, asked.summaries, recipe.experts)
        for place, pair in enumerate(pairs):
            both = regressions.predict(dataclasses.replace(recipe.experts, **pair))
            scores = joined(*both, asked.branch, asked.gate, recipe.blend)
            (known if name == KNOWN else unseen)[place, one.asked] = scores[: len(one.asked)]
            if name == KNOWN:
                of_series[place] = scores[len(one.asked) :]
    val = ratings.rows("val")
    rows = []
    for place, pair in enumerate(pairs):
        figures = of_known(ratings.mos[val], known[place, val])
        figures |= of_unseen(ratings.mos, ratings.generators, unseen[place])
        rows.append(
            pair | {"steady": steady(of_series[place])} | figures | {"sum": sum(figures.values()) / 2}
        )
    return rows


def winner(rows: list[dict[str, float]], used: ExpertsStageConfig) -> dict[str, float]:
    """The row that the rule takes, where the recipe is `used`."""
    enough = min(ENOUGH, max(row["steady"] for row in rows))
    steady_ones = {(row["ridge"], row["fall_noise"]): row for row in rows if row["steady"] >= enough}
    sums = {pair: row["sum"] for pair, row in steady_ones.items()}
    recipe = (used.ridge, used.fall_noise)
    if recipe not in sums:
        return max(steady_ones.values(), key=lambda row: row["sum"])
    return steady_ones[choices.winner(sums, recipe)]


def main() -> None:
    """Command line; see the module's docstring."""
    parser = parser_of_runs(__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    ratings, recipe, model = official(options.data), shipped_recipe(), MAAGIQA()
    fold = folds(model_of(options, model), ratings, ("val",), recipe.blend, options.runs)
    images, whole = Images(ratings.paths), summaries_of(model, ratings, options.runs)
    cache = Summaries(model.encoder, options.runs / "summaries")
    summarise = Kept(images, whole, lambda source, rows: cache(source, rows).reshape(len(rows), -1))
    copies = Series(images, best_of_val(ratings))
    everything = np.arange(len(copies))
    features = branch_features(model.branch, copies, everything)
    of_series = Seen(ratings, summarise(copies, everything), features)
    branch = branch_of(model, ratings, fold[KNOWN].fitted, recipe.blend, options.runs)(features)
    series = Asked(of_series.summaries, branch, judged(model, of_series)["gate"].to_numpy())
    rows = measure(images, ratings, fold, series, recipe, summarise)
    own = dataclasses.asdict(recipe.experts)
    found: dict[str, Any] = {"pairs": rows, "chosen": winner(rows, recipe.experts)}
    found |= {"recipe": {name: own[name] for name in ("ridge", "fall_noise")}}
    found |= {"series": len(copies) // LEVELS}
    write_json(options.out / "falls.json", found | own_weights_sha256() | circumstances())


if __name__ == "__main__":
    main()
