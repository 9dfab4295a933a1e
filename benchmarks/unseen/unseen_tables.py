"""The tables of what `unseen.py` and `choices.py` found."""

from __future__ import annotations

from typing import Any

from benchmarks.common.table_parts import NONE, markdown, source

COLUMNS = {
    "srcc": "SRCC within it",
    "srcc_without_branch": "without the branch",
    "srcc_branch": "the branch alone",
    "bias": "bias",
    "coverage": "coverage",
    "coverage_of_familiar": "of the familiar half",
    "half_width": "half width",
    "coverage_of_constant": "coverage at constant width",
    "constant_half_width": "constant half width",
    "familiarity": "familiarity",
    "gate": "gate",
}
LEAST = 0.0005
"""Smaller changes are none."""


def unseen(result: dict[str, Any]) -> str:
    """Generators left out, one by one and all together, and known ones."""
    head = ["generator left out", "images", *COLUMNS.values(), "AUC of familiarity"]
    apart, over_all = result["auc_of_familiarity"], result["all"]
    rows = [
        [name, str(row["images"]), *_figures(row), f"{apart[name]:.2f}"]
        for name, row in result["by_generator"].items()
    ]
    means = {name: over_all[f"mean_{name}"] for name in COLUMNS if f"mean_{name}" in over_all}
    rows.append(["*mean of the generators*", NONE, *_figures(means), f"{apart['all']:.2f}"])
    rows += [
        [f"*none: `official` {part}*", str(row["images"]), *_figures(row), NONE]
        for part, row in result["known"].items()
    ]
    notes = (
        f"SRCC over all generators left out together (pooled): {over_all['pooled_srcc']:.4f}; without the "
        f"branch {over_all['pooled_srcc_without_branch']:.4f}, the branch alone "
        f"{over_all['pooled_srcc_branch']:.4f}. *Without the branch*: the same model before it joined; "
        "*the branch alone*: what it predicts by itself. Bias and widths in MOS; bias: mean score less mean "
        "MOS. Coverage: part of the MOS inside the 90 % interval, of all images and of those with a "
        "familiarity of .5 or more. AUC: how often, of an image of `official` val and one of the generator "
        "left out, the first is the more familiar."
    )
    return "\n\n".join([markdown(head, rows), notes, source(result)])


def _figures(row: dict[str, float]) -> list[str]:
    return [f"{row[name]:{'+' if name == 'bias' else ''}.3f}" if name in row else NONE for name in COLUMNS]


def helps(known: float, others: float) -> str:
    """What a change of both figures means in words."""
    better, worse = (known >= LEAST, others >= LEAST), (known <= -LEAST, others <= -LEAST)
    return {
        (True, True): "both",
        (True, False): "known generators only" if worse[1] else "known generators",
        (False, True): "unseen generators only" if worse[0] else "unseen generators",
        (False, False): "neither",
    }[better]


def choices(result: dict[str, Any]) -> str:
    """Each value of each setting in both lights, against the recipe's."""
    rows = []
    for setting, found in result["settings"].items():
        recipe = found["values"][found["recipe"]]
        for value, row in found["values"].items():
            own = value == found["recipe"]
            marks = [word for word, there in (("recipe", own), ("rule", value == found["chosen"])) if there]
            changes = row["known"] - recipe["known"], row["unseen"] - recipe["unseen"]
            rows.append(
                [
                    f"`{setting}` {value}" + (f" ({', '.join(marks)})" if marks else ""),
                    f"{row['srcc']:.4f} / {row['plcc']:.4f}",
                    f"{row['mean_srcc']:.4f} / {row['pooled_srcc']:.4f}",
                    f"{row['sum']:.4f}",
                    NONE if own else f"{changes[0]:+.4f}",
                    NONE if own else f"{changes[1]:+.4f}",
                    NONE if own else helps(*changes),
                ]
            )
    head = ["setting", "known: SRCC / PLCC", "unseen: mean / pooled SRCC", "judged by the sum"]
    head += ["change, known", "change, unseen", "better than the recipe on"]
    notes = (
        "Known: `official` val. Unseen: each generator by a fit to the others, with gate and branch of the "
        "model trained without it. Fits leave out the degraded copies. *Recipe*: what ships; *rule*: what "
        f"the rule takes when this setting alone is open. Changes below {LEAST} count as none."
    )
    return "\n\n".join([markdown(head, rows), notes, source(result)])


def falls(result: dict[str, Any]) -> str:
    """Steady series and figures in both lights of each pair of ridge and variance of the falls."""
    rows = []
    for row in result["pairs"]:
        own = all(row[name] == value for name, value in result["recipe"].items())
        taken = row == result["chosen"]
        marks = [word for word, there in (("recipe", own), ("rule", taken)) if there]
        rows.append(
            [
                f"{row['ridge']:g}" + (f" ({', '.join(marks)})" if marks else ""),
                f"{row['fall_noise']:g}",
                f"{row['steady']:.3f}",
                f"{row['srcc']:.4f} / {row['plcc']:.4f}",
                f"{row['mean_srcc']:.4f} / {row['pooled_srcc']:.4f}",
                f"{row['sum']:.4f}",
            ]
        )
    head = ["`ridge`", "`fall_noise`", "steady series", "known: SRCC / PLCC", "unseen: mean / pooled SRCC"]
    notes = (
        f"Steady series: part of the {result['series']} series, each a val image and a kind of degradation, "
        "whose scores fall. Known and unseen as in the other table, but of fits with the degraded copies."
    )
    return "\n\n".join([markdown([*head, "judged by the sum"], rows), notes, source(result)])
