"""The tables of what `score_command.py` found."""

from __future__ import annotations

from typing import Any

from accuracy_tables import NONE, markdown

PRICE_PER_CORE_HOUR = 0.04
"""US dollars; assumed, of the order of what cloud providers ask for a core on demand."""
MILLION = 1_000_000


def keeping_up(result: dict[str, Any]) -> str:
    """Rates beside the model's, and memory."""
    found = result["throughput"]
    rates, shares = found["images_per_second"], found["of_the_models_rate"]
    labels = {
        "model": f"{found['metric']} alone, fed from memory",
        "command": "`score`, from its start to its exit",
        "command_after_its_start": "`score`, its start not counted",
    }
    rows = [
        [label, _with_quartiles(rates[name]), _with_quartiles(shares[name]) if name in shares else NONE]
        for name, label in labels.items()
    ]
    if "images_per_second_on_ray" in found:
        rate = found["images_per_second_on_ray"]
        share = rate / rates["model"]["median"]
        rows.append(["`score --engine ray`, on this machine alone", f"{rate:.2f}", f"{share:.2f}"])
    heads = [f"{found['images']} images", "images / s (quartiles)", "of the model's rate (quartiles)"]
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
    """Hours and price of a million images at the measured rates."""
    found = result["throughput"]
    rates = {"`score`": found["images_per_second"]["command_after_its_start"]["median"]}
    if "images_per_second_on_ray" in found:
        rates["`score --engine ray`"] = found["images_per_second_on_ray"]
    rows = []
    for label, rate in rates.items():
        hours = MILLION / rate / 3600 * found["threads"]
        rows.append(
            [label, f"{rate / found['threads']:.2f}", f"{hours:.0f}", f"{hours * PRICE_PER_CORE_HOUR:.2f}"]
        )
    heads = ["", "images / s / core", "core hours", f"US dollars, at {PRICE_PER_CORE_HOUR} a core hour"]
    note = "The price of a core hour is assumed, not looked up; put in your own. No GPU was at hand."
    return f"{markdown(heads, rows)}\n\n{note}"


def _with_quartiles(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f} ({spread['low_quartile']:.2f}–{spread['high_quartile']:.2f})"
