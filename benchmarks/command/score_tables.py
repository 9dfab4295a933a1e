"""The tables of what `score_command.py` found."""

from __future__ import annotations

from typing import Any

from benchmarks.common.table_parts import NONE, markdown, source, with_quartiles

PRICE_PER_CORE_HOUR = 0.04
"""US dollars; assumed, of the order of what cloud providers ask for a core on demand."""
MILLION = 1_000_000
RUNS = {
    "command": "`score`",
    "ray": "`score --engine ray`, on this machine alone",
}
"""Ways to run the command, under which a result has rates from start to exit, and `NAME_after_its_start`."""


def score_command(result: dict[str, Any]) -> str:
    """Does `score` keep up with its model, and does its memory stay flat?"""
    runs = [result["throughput"], *result.get("memory", {}).values()]
    sources = dict.fromkeys(source(run) for run in runs)
    return "\n\n".join([keeping_up(result), "  \n".join(sources)])


def keeping_up(result: dict[str, Any]) -> str:
    """Rates beside the model's, and memory."""
    found = result["throughput"]
    rates, shares = found["images_per_second"], found["of_the_models_rate"]
    labels = {"model": f"{found['metric']} alone, fed from memory"}
    for run, label in RUNS.items():
        labels |= {
            run: f"{label}, from start to exit",
            f"{run}_after_its_start": f"{label}, start not counted",
        }
    rows = [
        [label, with_quartiles(rates[name]), with_quartiles(shares[name]) if name in shares else NONE]
        for name, label in labels.items()
        if name in rates
    ]
    heads = ["throughput", f"images / s, of {found['images']} (quartiles)", "of the model's rate (quartiles)"]
    memory = [
        [
            metric,
            f"{watched['images']:,}",
            *(f"{watched['median_mib_by_tenth_of_the_time'][tenth]:.0f}" for tenth in ("10-20 %", "80-90 %")),
            f"{watched['peak_mib']:.0f}",
        ]
        for metric, watched in result.get("memory", {}).items()
    ]
    memory_heads = ["memory, MiB", "images", "at 10–20 % of the time", "at 80–90 %", "peak"]
    return f"{markdown(heads, rows)}\n\n{markdown(memory_heads, memory)}"


def cost(result: dict[str, Any]) -> str:
    """A million images at the measured rates, each way counted alike."""
    found = result["throughput"]
    rates = found["images_per_second"]
    # Of a million images the start is next to nothing: it is left out where every way was measured so.
    known = all(f"{run}_after_its_start" in rates for run in RUNS if run in rates)
    suffix = "_after_its_start" if known else ""
    rows = []
    for run, label in RUNS.items():
        if run in rates:
            rate = rates[f"{run}{suffix}"]["median"] / found["threads"]
            hours = MILLION / rate / 3600
            rows.append([label, f"{rate:.2f}", f"{hours:.0f}", f"{hours * PRICE_PER_CORE_HOUR:.2f}"])
    heads = ["cost", "images / s / core", "core hours", f"US dollars, at {PRICE_PER_CORE_HOUR} a core hour"]
    start = (
        "The rates leave out the start of a run."
        if suffix
        else f"The rates are of runs of {found['images']} images and count their start."
    )
    notes = [start, "The price of a core hour is assumed, not looked up; put in your own."]
    if found.get("gpu") is None:
        notes.append("No GPU was at hand.")
    return "\n\n".join([markdown(heads, rows), " ".join(notes), source(found)])


def shards(result: dict[str, Any]) -> str:
    """A run by shards beside webdataset's loader, and beside its model."""
    rates, hours = result["images_per_second"], result["core_hours_of_a_billion"]
    rows = []
    for name, rate in rates.items():
        with_model = name.startswith("shards") and name.endswith(" with ma_agiqa")
        beside = "ma_agiqa alone" if with_model else name.replace("shards", "webdataset")
        of_it = rate["median"] / rates[beside]["median"]
        share = NONE if beside == name else f"{of_it:.2f} of {beside}"
        rows.append([name, with_quartiles(rate), share, f"{hours[name]:,.0f}"])
    heads = ["by shards", "images / s (quartiles)", "share", "core hours of a billion images"]
    return "\n\n".join([markdown(heads, rows), source(result)])
