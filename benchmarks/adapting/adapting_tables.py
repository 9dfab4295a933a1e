"""The tables of what `adapting.py` found."""

from __future__ import annotations

from typing import Any

from benchmarks.common.table_parts import NONE, markdown, source


def adapting(result: dict[str, Any]) -> str:
    """SRCC within a generator taken as new, by how many of its images were rated."""
    head = ["ratings of the new generator", "the model as it is", "`adapt`", "experts fitted to these alone"]
    head += ["`adapt` leads the model by", "it leads those fitted alone by"]
    head += ["draws in which experts moved", "MOS within the interval", "seconds"]
    rows = [["0", f"{result['without_ratings']['mean']:.3f}", *[NONE] * (len(head) - 2)]]
    rows += [
        [
            count,
            *(f"{figures[name]['mean']:.3f}" for name in ("shipped", "adapted", "anew")),
            *(_lead(figures[f"lead_over_{name}"]) for name in ("shipped", "anew")),
            *(f"{100 * figures[name]['mean']:.0f} %" for name in ("moved", "held")),
            f"{figures['seconds']['mean']:.1f}",
        ]
        for count, figures in result["mean"].items()
    ]
    notes = (
        "SRCC within the generator, on its images that are not rated; mean over generators, and over "
        f"{result['draws']} draws of the ratings, ± its standard error over draws. Seconds: after the "
        "networks have seen the images."
    )
    return "\n\n".join([markdown(head, rows), notes, source(result)])


def by_generator(result: dict[str, Any]) -> str:
    """The same for each generator: the model as it is, then `adapt`."""
    counts = list(result["mean"])
    head = ["generator taken as new", "0 ratings", *(f"{count}: as it is → adapted" for count in counts)]
    rows = [
        [
            name,
            f"{result['without_ratings'][name]:.3f}",
            *(
                f"{some[count]['shipped']['mean']:.3f} → {some[count]['adapted']['mean']:.3f}"
                for count in counts
            ),
        ]
        for name, some in result["by_generator"].items()
    ]
    return "\n\n".join([markdown(head, rows), source(result)])


def _lead(figure: dict[str, float]) -> str:
    return f"{figure['mean']:+.3f} ± {figure['error']:.3f}"
