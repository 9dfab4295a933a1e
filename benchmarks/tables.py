"""Writes the result files into the Markdown tables of the READMEs.

    python benchmarks/tables.py            # rewrite them
    python benchmarks/tables.py --check    # exit status 1 if one differs from the result files

A table stands between the lines `<!-- results:NAME -->` and `<!-- /results -->`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")

PUBLISHED = {
    "MA-AGIQA (mPLUG-Owl2-7B)": ".8939 .9273 .7211 .3756",
    "MANIQA, trained on AGIQA-3K": ".8618 .9115",
    "HyperIQA, trained on AGIQA-3K": ".8509 .9049",
    "MUSIQ, trained on AGIQA-3K": ".8261 .8657",
    "CLIPIQA+": ".6933 .7493",
}
"""SRCC, PLCC, KRCC, RMSE on AGIQA-3K as printed in Wang et al., ACM MM 2024; not measured here."""
STATISTICS = ("srcc", "plcc", "krcc", "rmse", "within_generator_srcc")
NONE = "–"


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table, the first column left-aligned, the others right-aligned."""
    head = list(head)
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def source(result: dict[str, Any]) -> str:
    """Command, date and machine of a result."""
    machine = f"{result['cpu']}, {result['cores']} cores, {result['threads']} used"
    versions = ", ".join(f"{name} {result['versions'][name]}" for name in ("pyiqa", "torch"))
    weights = f"; weights {result['weights_sha256'][:12]}" if "weights_sha256" in result else ""
    return f"`{result['command']}`: {result['date']}; {machine}; {versions}{weights}."


def read(results: Path, pattern: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob(pattern))]


def figure(entry: dict[str, Any]) -> str:
    """A statistic with its interval."""
    if entry["value"] is None:
        return NONE
    return f"{entry['value']:.4f} [{entry['low']:.3f}, {entry['high']:.3f}]"


def accuracy(results: Path) -> str:
    """Agreement with MOS: what was measured, the baseline of each split, and the paper's figures."""
    measured = [result for result in read(results, "accuracy_*.json") if result["part"] == "test"]
    if not measured:
        return missing("accuracy.py")
    rows, unfitted = [], []
    baselines: dict[str, list[str]] = {}
    for result in measured:
        split = result["split"]
        labels = {"agreement": result["metric"], "generator_mean_baseline": "mean of the generator"}
        for key, label in labels.items():
            statistics = result[key]
            row = [label, split, *(figure(statistics[name]) for name in STATISTICS)]
            if key == "agreement":
                rows.append(row)
            else:
                baselines[split] = row
            if not statistics["logistic_converged"]:
                unfitted.append(f"{label} ({split})")
    for label, printed in PUBLISHED.items():
        figures = [value.replace(".", "0.", 1) for value in printed.split()]
        rows.append(
            [f"*{label}, as published*", "official", *figures, *[NONE] * (len(STATISTICS) - len(figures))]
        )
    rows[len(measured) : len(measured)] = baselines.values()
    table = markdown(["", "split", "SRCC", "PLCC", "KRCC", "RMSE", "SRCC within a generator"], rows)
    sizes = ", ".join(
        f"{split} {images}" for split, images in {r["split"]: r["images"] for r in measured}.items()
    )
    notes = [f"Test images: {sizes}. In brackets: 95 % bootstrap intervals over images."]
    if unfitted:
        notes.append(
            f"The logistic fit did not converge for {', '.join(unfitted)}: PLCC and RMSE after a line."
        )
    return "\n\n".join([table, " ".join(notes), "  \n".join(source(result) for result in measured)])


def robustness(results: Path) -> str:
    """Rank correlation of level and score for every photograph and degradation."""
    found = read(results, "robustness.json")
    if not found:
        return missing("robustness.py")
    (result,) = found
    kinds = list(result["by_kind"])
    rows = []
    for photo in dict.fromkeys(pair["photo"] for pair in result["by_pair"]):
        of_photo = {p["kind"]: p["rank_correlation"] for p in result["by_pair"] if p["photo"] == photo}
        rows.append([photo, *(f"{of_photo[kind]:+.3f}" for kind in kinds)])
    steady = f"{result['steady_pairs']} of {result['pairs']} pairs have a {result['steady_means']}."
    by_size = plain_scores("score at size, times", result["score_by_scale"])
    by_shape = plain_scores("score of crop, width / height", result["score_by_aspect"])
    return "\n\n".join([markdown(["", *kinds], rows), steady, by_size, by_shape, source(result)])


def plain_scores(label: str, scores: dict[str, dict[str, float]]) -> str:
    """Scores by photograph (rows) and setting (columns)."""
    settings = next(iter(scores.values()))
    rows = [[photo, *(f"{value:.2f}" for value in entries.values())] for photo, entries in scores.items()]
    return markdown([label, *settings], rows)


def efficiency(results: Path) -> str:
    """Time, memory and throughput on each device."""
    found = read(results, "efficiency.json")
    if not found:
        return missing("efficiency.py")
    (result,) = found
    own = result["in_own_process"]
    devices = {
        key.replace("_", ", "): result[key]
        for key in ("cpu_float32", "cuda_float32", "cuda_bfloat16")
        if key in result
    }
    rows = []
    for name in result["cpu_float32"]["latency_seconds"]:
        row = [name]
        for measured in devices.values():
            taken, ratio = measured["latency_seconds"].get(name), measured["time_over_ours"].get(name)
            row += [milliseconds(taken) if taken else NONE, f"{ratio['median']:.2f}" if ratio else NONE]
        rows.append([*row, f"{own[name]['peak_memory_increase_mib']:.0f}" if name in own else NONE])
    columns = [column for label in devices for column in (f"{label}: ms (quartiles)", "time / ours")]
    head = [result["image"], *columns, "peak memory on the CPU, MiB"]
    overhead = " and ".join(
        f"{entry['median']:.2f} times as long as its {name}"
        for name, entry in result["cpu_float32"]["ours_over"].items()
    )
    facts = (
        f"On the CPU `ma_agiqa` takes {overhead}; it loads in {own['ma_agiqa']['load_seconds']:.2f} s; "
        f"`import pyiqa_ma_agiqa` takes {1000 * result['import_seconds']['median']:.0f} ms. "
        "The other metrics ran with random weights, which change neither time nor memory."
    )
    parts = [markdown(head, rows), facts]
    for label, measured in devices.items():
        parts += throughput(label, measured)
    if "cuda" in result:
        parts.append(f"CUDA: {result['cuda']}.")
    return "\n\n".join([*parts, source(result)])


def throughput(label: str, measured: dict[str, Any]) -> list[str]:
    """Two tables of `ma_agiqa` on one device: by batch and by image size."""
    batches, sides = measured["images_per_second_by_batch"], measured["latency_seconds_by_side"]
    by_batch = ["images / s", *(f"{entry['median']:.3g}" for entry in batches.values())]
    rows = [by_batch]
    if "peak_memory_mib_by_batch" in measured:
        rows.append(
            ["peak memory, MiB", *(f"{peak:.0f}" for peak in measured["peak_memory_mib_by_batch"].values())]
        )
    by_side = ["ms (quartiles)", *map(milliseconds, sides.values())]
    return [
        markdown([f"{label}: batch", *batches], rows),
        markdown([f"{label}: side, pixels", *sides], [by_side]),
    ]


def milliseconds(entry: dict[str, float]) -> str:
    """Median and quartiles of times in seconds."""
    values = (1000 * entry[key] for key in ("median", "low_quartile", "high_quartile"))
    middle, low, high = (f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in values)
    return f"{middle} ({low}–{high})"


def missing(script: str) -> str:
    return f"No result yet: `python benchmarks/{script}` makes it."


TABLES: dict[str, Callable[[Path], str]] = {
    "accuracy": accuracy,
    "robustness": robustness,
    "efficiency": efficiency,
}


def fill(text: str, results: Path) -> str:
    """The page with every table as the result files have it.

    Raises:
        ValueError: a marker names no table, or has no end.
    """

    def replaced(match: re.Match[str]) -> str:
        name = match[1]
        if name not in TABLES:
            raise ValueError(f"no table is called {name}; there are {', '.join(TABLES)}")
        return f"<!-- results:{name} -->\n\n{TABLES[name](results)}\n\n<!-- /results -->"

    if text.count("<!-- results:") != text.count("<!-- /results -->"):
        raise ValueError("each <!-- results:NAME --> needs a <!-- /results -->")
    return re.sub(r"<!-- results:(\w+) -->.*?<!-- /results -->", replaced, text, flags=re.DOTALL)


def outdated(pages: Iterable[Path], results: Path) -> dict[Path, str]:
    """Pages that differ from the result files, with what they should hold."""
    current = {page: page.read_text(encoding="utf-8") for page in pages if page.is_file()}
    filled = {page: fill(text, results) for page, text in current.items()}
    return {page: text for page, text in filled.items() if text != current[page]}


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing")
    options = parser.parse_args()
    pages = outdated(PAGES, RESULTS)
    for page, text in pages.items():
        if options.check:
            print(f"{page.relative_to(ROOT)} differs from the result files; run python benchmarks/tables.py")
        else:
            page.write_text(text, encoding="utf-8")
            print(f"{page.relative_to(ROOT)} rewritten")
    sys.exit(1 if pages and options.check else 0)


if __name__ == "__main__":
    main()
