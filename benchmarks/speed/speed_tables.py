"""The tables of what `efficiency.py` found."""

from __future__ import annotations

from typing import Any

from benchmarks.common.table_parts import NONE, markdown, milliseconds, source, with_quartiles


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
        crops = result["crops_an_image"].get(name, 1)
        row = [name if crops == 1 else f"{name}, {crops} crops an image"]
        for measured in devices.values():
            taken, relative = measured["latency_seconds"].get(name), measured["time_over_ours"].get(name)
            row += [milliseconds(taken) if taken else NONE, with_quartiles(relative) if relative else NONE]
        entry = own.get(name)
        row += [
            NONE if entry is None else f"{entry[key]:.{digits}f}"
            for key, digits in (("peak_memory_increase_mib", 0), ("load_seconds", 2), ("weights_mib", 0))
        ]
        rows.append(row)
    columns = [
        column for label in devices for column in (f"{label}: ms (quartiles)", "time / ours (quartiles)")
    ]
    head = [result["image"], *columns, "peak memory on the CPU, MiB", "loading, s", "files read, MiB"]
    overhead = " and ".join(
        f"{entry['median']:.2f} times as long as its {name}"
        for name, entry in result["cpu_float32"]["ours_over"].items()
    )
    facts = (
        f"On the CPU `ma_agiqa` takes {overhead}; it loads in {own['ma_agiqa']['load_seconds']:.2f} s; "
        f"`import pyiqa_ma_agiqa` takes {1000 * result['import_seconds']['median']:.0f} ms. "
        "The other metrics ran with random weights, which do not change their time."
    )
    if len(own) > 1:
        facts += (
            " Their memory and loading are with files as large as theirs, written with these weights and "
            "read by pyiqa's own code."
        )
    if result.get("not_built"):
        facts += f" Could not be built here: {', '.join(result['not_built'])}."
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
