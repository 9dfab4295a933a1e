"""The scores of one side of a comparison: from a file that `score` wrote, or of a folder of images."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from ..compact.unfamiliar import UNFAMILIAR
from ..errors import InputError
from ..names import escape, printable, unescape
from ..places import is_url, without_secrets
from ..scoring.inputs import storage
from ..scoring.inputs.stamps import open_regular
from ..scoring.origins import Origin, origin_here
from ..scoring.rows.output import holds_only_parts, shown

if TYPE_CHECKING:
    from ..scoring.scorer import Job, Scorer

SUFFIXES = (".csv", ".jsonl", ".parquet")
COLUMNS = ("path", "score", "error", "familiarity", *Origin._fields)
"""Those that are read; `familiarity` is there after `score --interval`."""


class ScoreSet(NamedTuple):
    """Scores with their images, and the images without a score.

    Attributes:
        source: as given by the user.
        paths: of the N images that have a score.
        scores: (N,), finite.
        failures: path and reason for each image that has none.
        origins: what the scores were made with, each once.
        familiarity: (N,), 0 to 1; None where not every image has one.
    """

    source: str
    paths: list[str]
    scores: np.ndarray
    failures: list[tuple[str, str]]
    origins: list[Origin]
    familiarity: np.ndarray | None = None

    @property
    def unfamiliar(self) -> int | None:
        """How many images are unlike the training images; None where that is not known."""
        return None if self.familiarity is None else int((self.familiarity < UNFAMILIAR).sum())


def holds_images(source: str) -> bool:
    """Whether a side is a folder of images, rather than one of parquets that `score` wrote, or a file.

    Raises:
        InputError: a folder that cannot be read.
    """
    path = Path(source)
    if is_url(source) or path.suffix.lower() in SUFFIXES or not path.is_dir():
        return False
    try:
        return not any(path.iterdir()) or not holds_only_parts(path)
    except OSError as error:
        why = f"the folder cannot be read ({error.strerror}); check its permissions"
        raise InputError(f"{source}: {why}") from None


def read_scores(source: str) -> ScoreSet:
    """Scores of a file or of a folder of parquets that `score` wrote.

    Raises:
        InputError: neither, unreadable, without the columns, cut off, or without a single score.
    """
    path = Path(source)
    if path.suffix.lower() not in SUFFIXES and not path.is_dir() and not is_url(source):
        raise InputError(
            f"{source}: neither a folder nor a file of scores; give a folder of images, or a file that "
            f"`pyiqa-ma-agiqa score` wrote ({', '.join(SUFFIXES)})"
        )
    table = _read(source)
    missing = [name for name in ("path", "score") if name not in table]
    if missing:
        raise InputError(
            f"{source}: no column {' and '.join(missing)}; give a file that `pyiqa-ma-agiqa score` wrote"
        )
    rows = len(table["path"])
    cells = {name: _as_text(table.get(name, [""] * rows)) for name in COLUMNS}
    # Files that were put together by `cat` have the line of the columns again.
    repeated = (cells["path"] == "path") & (cells["score"] == "score")
    cells = {name: values[~repeated] for name, values in cells.items()} if repeated.any() else cells
    # A CSV file has more escapes than the other formats.
    cells["path"] = _as_text(escape(unescape(path)) for path in cells["path"])
    return _sorted_out(source, cells, _origins(source, cells))


Cells = dict[str, np.ndarray]
"""Text by column, empty where there is nothing."""


def _as_text(values: Iterable[Any]) -> np.ndarray:
    # A value that is not equal to itself is NaN.
    cells = [
        value if type(value) is str else "" if value is None or value != value else str(value)
        for value in values
    ]
    return np.array(cells, dtype=object)


def _origins(source: str, cells: Cells) -> list[Origin]:
    """What the rows were made with.

    Raises:
        InputError: some rows do not say so, while others do.
    """
    unknown = cells["metric"] == ""
    if unknown.any() and not unknown.all():
        path = printable(unescape(cells["path"][int(np.argmax(unknown))]))
        raise InputError(
            f"{source}: the row of {path} has no metric, while others have one; the file is cut off there, "
            "or put together with rows of unknown origin; score it again"
        )
    return [
        Origin(*names) for names in dict.fromkeys(zip(*(cells[name] for name in Origin._fields), strict=True))
    ]


def _sorted_out(source: str, cells: Cells, origins: list[Origin]) -> ScoreSet:
    """Split into images with a score and without."""
    paths, errors, text = cells["path"], cells["error"], cells["score"]
    empty = text == ""
    scores = pd.to_numeric(np.where(empty, "nan", text), errors="coerce").astype(float)
    for row in np.flatnonzero(np.isnan(scores) & ~empty):
        if text[row].lower() != "nan":
            raise InputError(f"{source}: {paths[row]} has the score {text[row]!r}, not a number")
    bad = ~np.isfinite(scores) | (errors != "")
    if bad.all():
        why = "there are no images in it; check the path"
        if len(paths):
            name, error = printable(unescape(paths[0])), printable(errors[0] or "there is no score")
            why = f"all {len(paths)} rows have errors, the first ({name}): {error}"
        raise InputError(f"{source}: no image has a score; {why}")
    failures = [
        (paths[row], errors[row] or ("there is no score" if empty[row] else f"the score is {scores[row]}"))
        for row in np.flatnonzero(bad)
    ]
    familiarity = pd.to_numeric(cells["familiarity"][~bad], errors="coerce").astype(float)
    known = np.isfinite(familiarity).all()
    return ScoreSet(
        source, paths[~bad].tolist(), scores[~bad], failures, origins, familiarity if known else None
    )


def _read(source: str) -> Mapping[str, Any]:
    path = Path(source)
    try:
        if is_url(source):
            return pd.concat([_read_parquet(part) for part in _in_store(source)])
        if path.suffix.lower() == ".csv":
            # Text throughout: an image may be called "NA" or "007". As objects, which hold any byte.
            return pd.read_csv(
                source,
                usecols=lambda name: name in COLUMNS,
                dtype=object,
                keep_default_na=False,
                encoding_errors="surrogateescape",
            )
        if path.suffix.lower() == ".jsonl":
            return _read_jsonl(path)
        parts = shown(path) if path.is_dir() else [path]
        return pd.concat([_read_parquet(str(part)) for part in parts])
    except FileNotFoundError:
        raise InputError(f"{source}: no such file; check the path") from None
    except InputError:
        raise
    except (OSError, ValueError, TypeError, AttributeError) as error:
        why = f"not a readable file of scores ({error}); write it again"
        raise InputError(without_secrets(f"{source}: {why}")) from None


def _in_store(url: str) -> list[str]:
    """The parquets below a URL, or the one that it is of.

    Raises:
        InputError: there are none.
    """
    found = storage.below(url) if not url.endswith(".parquet") else [url]
    parts = [name for name in found if name.endswith(".parquet")]
    if not parts:
        raise InputError(f"{without_secrets(url)}: no parquets below it; give the --out of `score`")
    return parts


def _read_jsonl(path: Path) -> dict[str, list[Any]]:
    cells: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    named: set[str] = set()
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.strip():
                row = json.loads(line)
                named.update(row.keys())
                for name, values in cells.items():
                    values.append(row.get(name))
    return {name: values for name, values in cells.items() if name in named}


def _read_parquet(place: str) -> pd.DataFrame:
    from pyarrow import parquet

    with open_regular(place) as opened, parquet.ParquetFile(opened) as file:
        table = file.read([name for name in COLUMNS if name in file.schema_arrow.names])
    return pd.DataFrame({name: table[name].to_numpy() for name in table.column_names}, dtype=object)


def score_folder(folder: str, metric: str) -> ScoreSet:
    """Score the images of a folder and its subfolders.

    Raises:
        PluginError: there are none with a score, or the metric cannot be made here.
    """
    from tqdm import tqdm

    from ..scoring.inputs.listing import list_items
    from ..scoring.scorer import score_items

    try:
        scorer, job = _scorer(metric)
    except InputError as error:
        reason = str(error).removeprefix(f"--metric {metric}: ")
        raise InputError(
            f"{folder}: cannot be scored with {printable(metric)} ({printable(reason)})"
        ) from None
    items = list(list_items([folder]))
    seldom = 1 if sys.stderr.isatty() else 30
    scored = score_items(enumerate(items), scorer, job)
    rows = dict(tqdm(scored, printable(folder), len(items), unit=" images", mininterval=seldom))
    cells = {
        name: _as_text(rows[number].get(name) for number in range(len(items)))
        for name in ("score", "error", "familiarity")
    }
    cells["path"] = _as_text(escape(item.name) for item in items)
    return _sorted_out(folder, cells, [origin_here(metric)])


@lru_cache(maxsize=1)
def _scorer(metric: str) -> tuple[Scorer, Job]:
    from ..compact.reference_scores import METRIC
    from ..scoring.inputs.limits import Limits
    from ..scoring.scorer import Job, Scorer, automatic_batch_size, check_metric, own_device, threads

    device = own_device(None)
    batch, interval = automatic_batch_size(device), metric == METRIC
    job = Job(metric, device, batch, False, Limits(), threads(), interval)
    check_metric(job)
    return Scorer(job), job
