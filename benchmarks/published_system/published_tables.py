"""The tables of what the published system costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.common.table_parts import markdown, read, source, with_quartiles

RELEASED, NEEDED, OURS = "four passes", "two passes", "encode"
"""Ways to run the large model: as the released script does, as the paper's two prompts need, as here."""


def published_system(results: Path) -> str:
    """What the published system costs beside plain passes and a literal reading."""
    language_model, on_a_gpu, branch = (
        read(results, f"published_system/{name}.json")
        for name in ("language_model", "language_model_on_gpu", "published_branch")
    )
    measured = language_model["cpu_bfloat16"]
    apart = measured["vectors_float32"]
    notes = (
        "Semantic vectors of plain passes and ours differ by at most "
        f"{apart['largest_difference']:.1e} in float32 ({apart['layers']} layers), scores of both branches "
        f"by at most {branch['max_relative_score_difference']:.1e} of themselves. Peak memory of the large "
        f"model with {measured['layers']} layers: {measured['peak_memory_mib'] / 1024:.1f} GiB."
    )
    parts = [large_model(language_model), on_gpu(on_a_gpu), quality_branch(branch), notes]
    sources = (source(result) for result in (language_model, on_a_gpu, branch))
    return "\n\n".join([*parts, "  \n".join(sources)])


def full_size_on_gpu(result: dict[str, Any]) -> str:
    """The same where the metrics have a GPU."""
    return full_size(result, f"full size on {result['gpu']}, random weights")


def full_size(result: dict[str, Any], what: str = "full size, random weights") -> str:
    """Seconds and peak memory of importing the published files, and of scores from them."""
    steps = [(f"import, {name.replace('_', ' ')}", entry) for name, entry in result["import"].items()]
    rows = [[name, f"{entry['seconds']:.0f}", _gib(entry)] for name, entry in steps]
    for metric, entry in result["score"].items():
        further = entry["each_further_score_seconds"]
        rows += [
            [
                f"`{metric}`, until the first score",
                f"{entry['until_the_first_score_seconds']:.0f}",
                _gib(entry),
            ],
            [f"`{metric}`, each further score", f"{further['median']:.3g}", ""],
        ]
    table = markdown([what, "seconds", "peak memory, GiB"], rows)
    return f"{table}\n\n{source(result)}"


def _gib(entry: dict[str, Any]) -> str:
    return f"{entry['peak_memory_mib'] / 1024:.1f}"


def large_model(result: dict[str, Any]) -> str:
    """Operations and time of an image in each way."""
    operations, measured = result["operations_at_full_size"], result["cpu_bfloat16"]
    times = measured["seconds_an_image"]
    rows = [
        [
            "operations by count, at full size",
            *(f"{operations[way] / 1e12:.2f} T" for way in (RELEASED, NEEDED, OURS)),
            *(f"{operations[way] / operations[OURS]:.2f}" for way in (RELEASED, NEEDED)),
        ],
        [
            f"{measured['layers']} of 32 layers ({measured['parameters'] / 1e9:.1f} billion random weights, "
            "bf16), s an image",
            *(f"{times[way]['median']:.1f}" for way in (RELEASED, NEEDED, OURS)),
            *(with_quartiles(measured["time_over_ours"][way]) for way in (RELEASED, NEEDED)),
        ],
    ]
    head = [
        "mPLUG-Owl2-7B",
        "four full passes: the released script",
        "two full passes: the paper's two prompts",
    ]
    return markdown([*head, "ours", "four / ours (quartiles)", "two / ours (quartiles)"], rows)


def on_gpu(result: dict[str, Any]) -> str:
    """Images per second on a GPU in each way, by precision and batch."""
    rows = [
        [
            f"{key.removeprefix('cuda_')}, {count}",
            *(f"{entry['images_per_second'][way]['median']:.3g}" for way in (RELEASED, NEEDED, OURS)),
            *(with_quartiles(entry["time_over_ours"][way]) for way in (RELEASED, NEEDED)),
            f"{entry['peak_memory_mib'][OURS] / 1024:.1f}",
        ]
        for key, measured in result.items()
        if key.startswith("cuda_")
        for count, entry in measured["by_batch"].items()
    ]
    head = [
        f"all 32 layers on {result['gpu']}, images / s: precision, batch",
        "four passes",
        "two passes",
        "ours",
    ]
    return markdown([*head, "four / ours (quartiles)", "two / ours (quartiles)", "peak, ours, GiB"], rows)


def quality_branch(result: dict[str, Any]) -> str:
    """Time of an image by batch."""
    rows = [
        [
            count,
            *(f"{part['seconds_per_image'][way]['median']:.2f}" for way in ("literal", "ours")),
            with_quartiles(part["literal_over_ours"]),
        ]
        for count, part in result["time_by_batch"].items()
    ]
    head = ["quality branch, float32, s an image: batch", "literal reading", "ours"]
    return markdown([*head, "literal / ours (quartiles)"], rows)
