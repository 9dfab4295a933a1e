"""What `accuracy.py` measured, as tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd
import published

STATISTICS = {
    "srcc": "SRCC",
    "plcc": "PLCC",
    "krcc": "KRCC",
    "rmse": "RMSE",
    "within_generator_srcc": "SRCC within a generator",
}
NONE = "–"


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table, the first column left-aligned, the others right-aligned."""
    head = list(head)
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def interval(entry: dict[str, Any] | None) -> str:
    """A statistic with its interval."""
    if entry is None or not _number(entry["value"]):
        return NONE
    if not _number(entry["low"]):
        return f"{entry['value']:.4f}"
    return f"{entry['value']:.4f} [{entry['low']:.3f}, {entry['high']:.3f}]"


def _number(value: float | None) -> bool:
    return value is not None and value == value


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
        rows.append([name + mark, *statistics, NONE if not _number(probability) else f"{probability:.3f}"])
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
    head += [f"P({first['first']} is better), `{split}`", f"published SRCC / PLCC / KRCC / RMSE, `{split}`"]
    rows, others = [], {method: f"*{method}*" for method in published.AGIQA3K}
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
        cells.append(f"{probability:.3f}" if _number(probability) else NONE)
        rows.append([name, *cells, published.figures(method) or NONE])
    empty = ["not measured", *[NONE] * (2 * len(results))]
    rows += [
        [others[method], *empty, published.figures(method)]
        for method in published.AGIQA3K
        if method in others
    ]
    return markdown(head, rows)
