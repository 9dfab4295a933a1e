"""Where scores are from: the metric, the versions and the weights that each row of an output names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..names import printable
from ..registration.configs import CONFIGS
from ..version import __version__
from ..weights.manifest import load_manifest
from .columns import Row

DIGITS = 12
"""Of a SHA-256: enough to tell files apart."""


class Origin(NamedTuple):
    """What scores were made with; by column, empty where it is not known.

    Attributes:
        metric: its name in pyiqa.
        version: of this package and of pyiqa.
        weights: start of the SHA-256 of the weights file, of our own metrics where the manifest has it.
    """

    metric: str = ""
    version: str = ""
    weights: str = ""


def origin_here(metric: str) -> Origin:
    """That of scores that are made by what is installed here."""
    files = [entry for entry in load_manifest()["files"] if metric in entry["metric_names"]]
    # The first one listed is the metric's own; others hold parts that it builds on.
    weights = (files[0]["sha256"] or "")[:DIGITS] if files else ""
    return Origin(metric, f"pyiqa-ma-agiqa/{__version__} pyiqa/{version('pyiqa')}", weights)


def with_origin(rows: Iterable[Row], metric: str) -> Iterator[Row]:
    """Rows that name what they were made with."""
    origin = origin_here(metric)._asdict()
    return (row | origin for row in rows)


def of_here(path: Path, rows: Iterable[Row], metric: str) -> Iterator[Row]:
    """The rows of an output, all of which name what rows of this metric would name here.

    Raises:
        InputError: one does not.
    """
    here = origin_here(metric)
    for row in rows:
        for name, value in here._asdict().items():
            if row[name] != value:
                raise InputError(
                    f"{path}: has rows of the {name} {printable(row[name]) or '(none named)'}, not "
                    f"{value or '(none)'}; repeat the command that wrote it, or give --restart to begin again"
                )
        yield row


def check_same(origins: Sequence[tuple[str, Origin]]) -> None:
    """Check that scores can be compared; those of unknown origin can with all.

    Args:
        origins: with the name of the file or folder that has each.

    Raises:
        InputError: they are of several metrics, or of several weights of one.
    """
    known = [(source, origin) for source, origin in origins if origin.metric]
    for source, origin in known:
        first, expected = known[0]
        if origin.metric != expected.metric:
            what, others = printable(expected.metric), printable(origin.metric)
            cure = "score both sides with one metric"
        elif origin.weights != expected.weights:
            what, others = (
                f"the weights {printable(each.weights) or '(none named)'}" for each in (expected, origin)
            )
            cure = "score both sides with one version of pyiqa-ma-agiqa"
        else:
            continue
        where = " also" if source == first else f" {source} has"
        raise InputError(f"{first}: has scores of {what}, but{where} scores of {others}; {cure}")


def lower_is_better(metric: str) -> bool | None:
    """Whether lower scores are better; None where pyiqa has no such metric."""
    if metric in CONFIGS:
        return CONFIGS[metric]["lower_better"]
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    return DEFAULT_CONFIGS[metric].get("lower_better", False) if metric in DEFAULT_CONFIGS else None
