"""What the tables of every question share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.common.places import module_name

NONE = "–"
STATISTICS = {
    "srcc": "SRCC",
    "plcc": "PLCC",
    "krcc": "KRCC",
    "rmse": "RMSE",
    "within_generator_srcc": "SRCC within a generator",
}
"""Figures of agreement with MOS, and how tables name them."""


class NoResult(Exception):
    """A result file that is not there yet; the message is the module that makes it."""


def read(results: Path, name: str) -> dict[str, Any]:
    """A result file, which bears the name of its script and lies beside it.

    Args:
        results: the folder of the benchmarks.
        name: of the file, from there.

    Raises:
        NoResult: it is not there.
    """
    try:
        return json.loads((results / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NoResult(module_name(Path("benchmarks", name))) from None


def of_file(name: str, table: Callable[[dict[str, Any]], str]) -> Callable[[Path], str]:
    """The table of a result file."""
    return lambda results: table(read(results, name))


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table, the first column left-aligned, the others right-aligned."""
    head = list(head)
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def interval(entry: dict[str, Any] | None) -> str:
    """A statistic with its interval."""
    if entry is None or not is_number(entry["value"]):
        return NONE
    if not is_number(entry["low"]):
        return f"{entry['value']:.4f}"
    return f"{entry['value']:.4f} [{entry['low']:.3f}, {entry['high']:.3f}]"


def is_number(value: float | None) -> bool:
    """Whether a figure of a result file is one: neither null nor NaN."""
    return value is not None and value == value


def with_quartiles(spread: dict[str, float]) -> str:
    """Median and quartiles of ratios or rates; of a single run, the one figure."""
    if "low_quartile" not in spread:
        return f"{spread['median']:.2f}"
    return f"{spread['median']:.2f} ({spread['low_quartile']:.2f}–{spread['high_quartile']:.2f})"


def milliseconds(spread: dict[str, float]) -> str:
    """Median and quartiles of times in seconds."""
    values = (1000 * spread[key] for key in ("median", "low_quartile", "high_quartile"))
    middle, low, high = (f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in values)
    return f"{middle} ({low}–{high})"


def source(result: dict[str, Any]) -> str:
    """Command, date, machine and commit of a result, and what there is to know of its record."""
    gpu = f"{result['gpu']}, " if result.get("gpu") else ""
    facts = [f"{gpu}{result['cpu']}, {result['cores']} cores, {result['threads']} used"]
    facts += [", ".join(f"{name} {result['versions'][name]}" for name in ("pyiqa", "torch"))]
    if "weights_sha256" in result:
        facts.append(f"weights {result['weights_sha256'][:12]}")
    facts += _commit(result)
    note = f" {result['note']}" if "note" in result else ""
    return f"`{result['command']}`: {result['date']}; {'; '.join(facts)}.{note}"


def _commit(result: dict[str, Any]) -> list[str]:
    """The commit of the measured code; results of before it was recorded tell with which they came."""
    if "recorded_with_commit" in result:
        return [f"recorded with commit {result['recorded_with_commit'][:7]}"]
    if not result.get("commit"):
        return []
    changed = result.get("uncommitted_changes")
    return [f"commit {result['commit'][:7]}" + (f" with changes to {', '.join(changed)}" if changed else "")]
