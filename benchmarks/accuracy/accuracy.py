"""How well do metrics agree with people on a folder of rated images?

    python -m benchmarks.accuracy.accuracy --data FOLDER --mos CSV --metrics ma_agiqa clipiqa+
    python -m benchmarks.accuracy.accuracy --data FOLDER --mos CSV --split CSV --part test --metrics all

Any no-reference metric of pyiqa by name (`all` for every one), and the baselines of packaged.py. For
each: SRCC and KRCC of raw scores, PLCC and RMSE after the paper's logistic, all with 95 % bootstrap
intervals, over all images and within each generator; and the probability, by a paired bootstrap, that
the first metric has a higher SRCC than it. Where lower is better, scores are negated. A metric that
cannot be built here, as where its weights cannot be reached, is a row that says so. With a split, the
mean MOS of each generator in the train part is scored as a baseline.

Writes to --out: scores.parquet, table.csv, table.md, result.json and pictures. Scores are kept in
--cache by the content of the image and the version of the metric. The defaults of --data and --mos
are AGIQA-3K's ($AGIQA3K).
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmarks.accuracy import rated_folder
from benchmarks.accuracy.accuracy_figures import draw_all
from benchmarks.accuracy.accuracy_tables import as_frame, as_markdown
from benchmarks.accuracy.score_cache import DEFAULT as DEFAULT_CACHE
from benchmarks.accuracy.scoring import Unavailable, expand, lower_better, score_images, version
from benchmarks.common import network
from benchmarks.common.agiqa3k import DEFAULT_DATA
from benchmarks.common.machine import circumstances, write_json
from benchmarks.common.statistics_of_scores import (
    generator_mean,
    probability_of_better_srcc,
    rank_agreement,
    report,
    report_by_generator,
)
from pyiqa_ma_agiqa.errors import InputError, WeightsError

BASELINE = "mean of the generator"


def arguments() -> argparse.ArgumentParser:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA / "images", help="folder of the images")
    parser.add_argument("--mos", type=Path, default=DEFAULT_DATA / "data.csv", help="CSV or Excel file")
    parser.add_argument("--metrics", nargs="+", default=["ma_agiqa"], metavar="NAME")
    parser.add_argument("--name-column", help="of --mos; default: name, image_name, ...")
    parser.add_argument("--mos-column", help="of --mos; default: mos, MOS or mos_quality")
    parser.add_argument("--generator-column", help="of --mos; default: from the file name")
    parser.add_argument(
        "--generator-pattern",
        default=rated_folder.GENERATOR_PATTERN,
        help="regular expression whose first group, in the file name, is the generator (%(default)s)",
    )
    parser.add_argument("--split", help="CSV with names and parts, or seed20, or every4th")
    parser.add_argument("--split-column", help="of --split, where it has several")
    parser.add_argument("--part", help="score only this part of the split, such as test")
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="weights of another training run for this metric, by default the first",
    )
    parser.add_argument(
        "--scores",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="CSV or parquet with name and score (or NAME): scores to use instead of computing them",
    )
    parser.add_argument("--repeats", type=int, default=1000, help="bootstrap resamples (%(default)s)")
    parser.add_argument("--device", default="cpu", help="of torch (%(default)s)")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="folder of kept scores")
    parser.add_argument("--out", type=Path, default=Path("accuracy"), help="folder to write (%(default)s)")
    return parser


def images_to_score(options: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rated images to score, with their paths, and those of the train part (none without a split).

    Raises:
        InputError: a table, a column or an image is missing, or there are too few images.
    """
    ratings = rated_folder.read_ratings(
        options.mos,
        options.name_column,
        options.mos_column,
        options.generator_column,
        options.generator_pattern,
    )
    chosen, train = ratings, ratings.iloc[:0]
    if options.split:
        parts = rated_folder.parts(ratings, options.split, options.split_column, options.mos)
        train = ratings[parts.str.startswith("train")]
        if options.part:
            chosen = ratings[parts == options.part]
            if chosen.empty:
                raise InputError(f"{options.split}: no part {options.part}; it has {', '.join(set(parts))}")
    elif options.part:
        raise InputError("--part needs --split")
    chosen = chosen.assign(path=[options.data / name for name in chosen["name"]]).reset_index(drop=True)
    absent = [path for path in chosen["path"] if not path.is_file()]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise InputError(f"{absent[0]}: no such image, which {options.mos} rates{more}")
    if len(chosen) < 5:
        raise InputError(f"{options.mos}: {len(chosen)} images to score; statistics need at least 5")
    return chosen, train


def named_files(values: list[str], metrics: list[str]) -> dict[str, Path]:
    """`[NAME=]FILE`s of the command line, with the first metric for a missing name."""
    found = {}
    for value in values:
        name, separator, file = value.partition("=")
        name, path = (name, Path(file)) if separator else (metrics[0], Path(value))
        if name not in metrics:
            raise InputError(f"{value}: {name} is not among the metrics")
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        found[name] = path
    return found


def kept_scores(file: Path, name: str, names: pd.Series) -> tuple[np.ndarray, str]:
    """Scores (N,) of the named images from a file, and what it says made them."""
    table = pd.read_parquet(file) if file.suffix == ".parquet" else rated_folder.read_table(file)
    scores = rated_folder.column(table, file, None, (name, "score"), "--scores NAME=FILE")
    found = names.map(table.set_index(table["name"].astype(str))[scores])
    if not np.isfinite(found).all():
        raise InputError(f"{file}: no finite score for {names[~np.isfinite(found)].iloc[0]}")
    told = "" if file.suffix == ".parquet" else rated_folder.header(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    return found.to_numpy(float), "; ".join(filter(None, [told, f"scores kept in {file.name} ({digest})"]))


def measured(options: argparse.Namespace, images: pd.DataFrame) -> tuple[dict[str, Any], pd.DataFrame]:
    """Entry of each metric for the result file, and the scores of those that gave some."""
    metrics = expand(options.metrics)
    weights, kept = named_files(options.weights, metrics), named_files(options.scores, metrics)
    network.fail_soon()
    entries: dict[str, Any] = {}
    scores = images[["name", "mos", "generator"]].copy()
    for name in metrics:
        try:
            if name in kept:
                scores[name], made_by = kept_scores(kept[name], name, images["name"])
            else:
                made_by = version(name, weights.get(name))
                scores[name] = score_images(
                    name, list(images["path"]), options.cache, weights.get(name), options.device
                )
            entries[name] = {"measured": True, "version": made_by, "negated": lower_better(name)}
        except (Unavailable, WeightsError) as error:
            entries[name] = {"measured": False, "why": str(error)}
            print(f"{name}: not measured: {error}", file=sys.stderr)
    return entries, scores


def add_statistics(entries: dict[str, Any], scores: pd.DataFrame, repeats: int) -> None:
    """Put the agreement of every column of scores into its entry."""
    mos, generators = scores["mos"].to_numpy(float), scores["generator"].to_numpy(str)
    several = len(set(generators)) > 1
    names = [name for name in scores if name not in ("name", "mos", "generator")]
    for name in tqdm(names, "statistics", unit="metric"):
        values = scores[name].to_numpy(float)
        entries[name]["agreement"] = report(values, mos, generators if several else None, repeats)
        if several and name != BASELINE:
            entries[name]["by_generator"] = report_by_generator(values, mos, generators, repeats)
        if name != names[0]:
            first = scores[names[0]].to_numpy(float)
            entries[name]["probability_first_is_better"] = probability_of_better_srcc(
                first, values, mos, repeats
            )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Score, measure, and write everything to `options.out`.

    Raises:
        InputError: something on the command line or in the tables does not fit.
    """
    images, train = images_to_score(options)
    entries, scores = measured(options, images)
    if min(train["generator"].nunique(), scores["generator"].nunique()) > 1:
        entries[BASELINE] = {
            "measured": True,
            "version": "mean MOS of the generator's train images",
            "negated": False,
        }
        scores[BASELINE] = generator_mean(
            train["mos"].to_numpy(float),
            train["generator"].to_numpy(str),
            scores["generator"].to_numpy(str),
        )
    add_statistics(entries, scores, options.repeats)
    ranked = rank_agreement(scores.drop(columns=["name", "mos", "generator"]))
    result = {
        "ratings": options.mos.name,
        "split": options.split and Path(options.split).name,
        "split_column": options.split_column,
        "part": options.part,
        "images": len(images),
        "first": next((name for name, entry in entries.items() if entry["measured"]), None),
        "metrics": entries,
        "rank_agreement": ranked.to_dict(),
        "bootstrap_repeats": options.repeats,
        **circumstances(),
    }
    write_json(options.out / "result.json", result)
    scores.to_parquet(options.out / "scores.parquet", index=False)
    as_frame(result).to_csv(options.out / "table.csv", index=False, float_format="%.6g")
    (options.out / "table.md").write_text(as_markdown(result) + "\n", encoding="utf-8")
    draw_all(result, scores, options.out)
    return result


def main() -> None:
    """Command line; see the module's docstring."""
    options = arguments().parse_args()
    try:
        result = run(options)
    except InputError as error:
        sys.exit(f"accuracy.py: {error}")
    print(as_markdown(result))


if __name__ == "__main__":
    main()
