"""The tables of what `ablations.py` found."""

from __future__ import annotations

from typing import Any

from benchmarks.common.table_parts import NONE, markdown, source


def ablations(result: dict[str, Any]) -> str:
    """ma_agiqa with parts left out, on known generators and on unseen ones."""
    rows = [
        [
            name,
            *(f"{row[part]['srcc']:.4f} / {row[part]['plcc']:.4f}" for part in ("val", "test")),
            f"{row['unseen']['mean_srcc']:.3f}",
            f"{row['unseen']['pooled_srcc']:.3f}",
        ]
        for name, row in result["rows"].items()
    ]
    head = ["ablation", "known: SRCC / PLCC, val", "known: SRCC / PLCC, test"]
    head += ["unseen: mean SRCC within a generator", "unseen: SRCC of all together"]
    sizes = ", ".join(f"{count} {part}" for part, count in result["images"].items())
    notes = (
        f"Known: `official` split, {sizes} images, fitted on train. Unseen: each of the six generators by a "
        "fit to all images of the others, with a branch and a gate that have not seen it. SRCC and PLCC of "
        "raw scores."
    )
    return "\n\n".join([markdown(head, rows), notes, source(result)])


def precision(result: dict[str, Any]) -> str:
    """The shipped model by the precision of its weights and of its activations."""
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
    return "\n\n".join([markdown(["precision", *columns.values()], rows), source(result)])
