"""The tables of what `ablations.py` found."""

from __future__ import annotations

from typing import Any

from benchmarks.common.table_parts import NONE, STATISTICS, interval, markdown, source


def ablations(result: dict[str, Any]) -> str:
    """ma_agiqa with parts left out or replaced, on the official split."""
    columns = ("srcc", "plcc", "krcc", "rmse", "within_generator_srcc")
    rows = [
        [
            name,
            NONE if row["blend"] is None else f"{row['blend']:.2f}",
            f"{row['val']['srcc']:.4f}",
            *(f"{row['test'][column]:.4f}" for column in columns),
            interval(row.get("lead_of_whole")),
        ]
        for name, row in result["rows"].items()
    ]
    head = ["ablation", "weight of the branch", "SRCC, val"]
    head += [f"{STATISTICS[column]}, test" for column in columns]
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
