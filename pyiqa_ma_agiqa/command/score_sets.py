"""The scores of one side of a comparison: from a file that `score` wrote, or of a folder of images."""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from ..errors import InputError
from .arguments import MAX_BYTES, MAX_PIXELS
from .names import escape, printable
from .output import holds_only_parts

if TYPE_CHECKING:
    from .scoring import Job, Scorer

SUFFIXES = (".csv", ".jsonl", ".parquet")


class ScoreSet(NamedTuple):
    """Scores with their images, and the images without a score.

    Attributes:
        source: as given by the user.
        paths: of the N images that have a score.
        scores: (N,), finite.
        failures: path and reason for each image that has none.
    """

    source: str
    paths: list[str]
    scores: np.ndarray
    failures: list[tuple[str, str]]


def score_set(source: str) -> ScoreSet:
    """Scores of a file or of a folder of parquets that `score` wrote, or of a folder of images.

    Raises:
        InputError: neither, unreadable, without the columns, or without a single score.
    """
    path = Path(source)
    if path.suffix.lower() in SUFFIXES or (path.is_dir() and any(path.iterdir()) and holds_only_parts(path)):
        table = _read(source)
    elif path.is_dir():
        table = _score_folder(source)
    else:
        raise InputError(
            f"{source}: neither a folder nor a file of scores; give a folder of images, or a file that "
            f"`pyiqa-ma-agiqa score` wrote ({', '.join(SUFFIXES)})"
        )
    missing = {"path", "score"} - set(table)
    if missing:
        raise InputError(
            f"{source}: no column {' and '.join(sorted(missing))}; "
            "give a file that `pyiqa-ma-agiqa score` wrote"
        )
    return _sorted_out(source, table)


def _sorted_out(source: str, table: pd.DataFrame) -> ScoreSet:
    paths = table["path"].astype(str)
    empty = table["score"].isna() | (table["score"].astype(str) == "")
    scores = pd.to_numeric(table["score"].mask(empty), errors="coerce").astype(float)
    wrong = scores.isna() & ~empty & (table["score"].astype(str).str.lower() != "nan")
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"{source}: {paths.iloc[row]} has the score {table['score'].iloc[row]!r}, not a number"
        )
    errors = table["error"].fillna("").astype(str) if "error" in table else pd.Series("", index=table.index)
    good = np.isfinite(scores) & (errors == "")
    reasons = errors.mask(errors == "", scores.map(lambda score: f"the score is {score}"))
    reasons = reasons.mask((errors == "") & empty, "there is no score")
    if not good.any():
        cure = f"all {len(table)} rows have errors" if len(table) else "there are no images in it"
        raise InputError(f"{source}: no image has a score, {cure}")
    failures = list(zip(paths[~good], reasons[~good], strict=True))
    return ScoreSet(source, paths[good].tolist(), scores[good].to_numpy(float), failures)


def _read(source: str) -> pd.DataFrame:
    try:
        suffix = Path(source).suffix.lower()
        if suffix == ".csv":
            # Text throughout: an image may be called "NA" or "007".
            return pd.read_csv(source, dtype=str, keep_default_na=False, encoding_errors="surrogateescape")
        if suffix == ".jsonl":
            with open(source, encoding="utf-8") as file:
                return pd.DataFrame([json.loads(line) for line in file if line.strip()], dtype=object)
        return pd.read_parquet(source)
    except FileNotFoundError:
        raise InputError(f"{source}: no such file; check the path") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{source}: not a readable file of scores ({error}); write it again") from None


def _score_folder(folder: str) -> pd.DataFrame:
    """Score the images of a folder and its subfolders with ma_agiqa."""
    from tqdm import tqdm

    from .inputs import list_items
    from .scoring import score_items

    scorer, job = _scorer()
    items = list(list_items([folder]))
    seldom = 1 if sys.stderr.isatty() else 30
    scored = score_items(enumerate(items), scorer, job)
    rows = dict(tqdm(scored, printable(folder), len(items), unit=" images", mininterval=seldom))
    return pd.DataFrame(
        [{"path": escape(item.name), **rows[number]} for number, item in enumerate(items)],
        columns=["path", "score", "error"],
        dtype=object,
    )


@lru_cache(maxsize=1)
def _scorer() -> tuple[Scorer, Job]:
    from .decoding import Limits
    from .scoring import Job, Scorer, automatic_batch_size, own_device, threads

    device = own_device(None)
    limits = Limits(MAX_PIXELS, MAX_BYTES)
    job = Job("ma_agiqa", device, automatic_batch_size(device), False, limits, threads())
    return Scorer(job), job
