"""The tables of what the scripts of this folder found."""

from __future__ import annotations

from typing import Any

from benchmarks.common.table_parts import NONE, markdown, milliseconds, source, with_quartiles


def efficiency(result: dict[str, Any]) -> str:
    """Time, memory and throughput on the CPU."""
    own = result["in_own_process"]
    head, rows = _times(result, ("cpu_float32",))
    head += ["peak memory on the CPU, MiB", "loading, s", "files read, MiB"]
    for name, row in zip(result["cpu_float32"]["latency_seconds"], rows, strict=True):
        entry = own.get(name)
        row += [
            NONE if entry is None else f"{entry[key]:.{digits}f}"
            for key, digits in (("peak_memory_increase_mib", 0), ("load_seconds", 2), ("weights_mib", 0))
        ]
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
    of_ours = throughput("cpu, float32", result["cpu_float32"])
    return "\n\n".join([markdown(head, rows), facts, *of_ours, source(result)])


def efficiency_on_gpu(result: dict[str, Any]) -> str:
    """Time and throughput on a GPU, in both precisions of the other metrics."""
    head, rows = _times(result, ("cuda_float32", "cuda_bfloat16"))
    head[0] += f" on {result['gpu']}"
    parts = [markdown(head, rows)]
    if result["not_built"]:
        parts.append(f"Could not be built there: {', '.join(result['not_built'])}.")
    parts += throughput("cuda", result["cuda_float32"])
    return "\n\n".join([*parts, source(result)])


def _times(result: dict[str, Any], devices: tuple[str, ...]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table: time of each metric, and against ours, on some devices."""
    head = [result["image"]]
    for device in devices:
        head += [f"{device.replace('_', ', ')}: ms (quartiles)", "time / ours (quartiles)"]
    rows = []
    for name in result[devices[0]]["latency_seconds"]:
        crops = result["crops_an_image"].get(name, 1)
        row = [name if crops == 1 else f"{name}, {crops} crops an image"]
        for measured in (result[device] for device in devices):
            taken, relative = measured["latency_seconds"].get(name), measured["time_over_ours"].get(name)
            row += [milliseconds(taken) if taken else NONE, with_quartiles(relative) if relative else NONE]
        rows.append(row)
    return head, rows


def throughput(label: str, measured: dict[str, Any]) -> list[str]:
    """Two tables of `ma_agiqa` on one device: by batch and by image size."""
    batches, sides = measured["images_per_second_by_batch"], measured["latency_seconds_by_side"]
    by_batch = ["images / s", *(f"{entry['median']:.3g}" for entry in batches.values())]
    rows = [by_batch]
    if "memory_rise_mib_by_batch" in measured:
        rises = measured["memory_rise_mib_by_batch"].values()
        rows.append(["memory over its weights, MiB", *(f"{rise:.0f}" for rise in rises)])
    by_side = ["ms (quartiles)", *map(milliseconds, sides.values())]
    return [
        markdown([f"{label}: batch", *batches], rows),
        markdown([f"{label}: side, pixels", *sides], [by_side]),
    ]


def where_time_goes(result: dict[str, Any]) -> str:
    """Time of the parts of one score, by number of threads."""
    by_threads = result["by_threads"]
    head = ["part of a score"]
    for threads in by_threads:
        head += [f"{threads} thread{'s' * (threads != '1')}: ms (quartiles)", "share"]
    first = next(iter(by_threads.values()))
    parts = sorted(first["parts_seconds"], key=lambda part: -first["parts_seconds"][part]["median"])
    rows = []
    for part in parts:
        row = [part]
        for measured in by_threads.values():
            share = measured["share_of_the_score"][part]["median"]
            row += [milliseconds(measured["parts_seconds"][part]), f"{100 * share:.0f} %"]
        rows.append(row)
    whole = ["the whole score"]
    for measured in by_threads.values():
        whole += [milliseconds(measured["clocked_score_seconds"]), "100 %"]
    unclocked = " and ".join(
        f"{1000 * measured['score_seconds']['median']:.0f} ms on {threads}"
        for threads, measured in by_threads.items()
    )
    quick = {"fast_products": "linear maps", "fast_convolutions": "convolutions"}
    slow = [name for key, name in quick.items() if not result[key]]
    facts = (
        f"{result['image']}, medians of {result['rounds']} rounds. Without the clock a score takes "
        f"{unclocked}. Attention, summaries and experts include their own products and rounding."
    )
    if slow:
        facts += f" Here {' and '.join(slow)} multiply the integers as floats."
    return "\n\n".join([markdown(head, [*rows, whole]), facts, source(result)])


def against_commit(result: dict[str, Any]) -> str:
    """Times beside an earlier commit, by variant of the machine, and memory and loading."""
    commit = result["earlier"]["commit"][:7]
    rows, needs = [], []
    for variant, measured in result["variants"].items():
        rows += [
            [
                f"{variant}; {row['case']}",
                str(row["threads"]),
                milliseconds(row["earlier_seconds"]),
                milliseconds(row["ours_seconds"]),
                with_quartiles(row["earlier_over_ours"]),
            ]
            for row in measured["times"]
        ]
        first = measured["first_score"]
        needs.append(
            [
                variant,
                *(f"{first[version]['peak_memory_increase_mib']:.0f}" for version in ("earlier", "ours")),
                *(f"{first[version]['load_seconds']:.2f}" for version in ("earlier", "ours")),
            ]
        )
    head = [f"beside commit {commit}", "threads", f"{commit}: ms (quartiles)", "ours: ms (quartiles)"]
    memory = [f"peak memory of the first score, MiB: {commit}", "ours", f"loading, s: {commit}", "ours"]
    facts = (
        f"Medians of {result['rounds']} rounds; the ratio is that of the times within a round. Weights of "
        f"{result['weights_mib']:.0f} MiB, in {commit} {result['earlier']['weights_mib']:.0f}."
    )
    times = markdown([*head, f"{commit} / ours (quartiles)"], rows)
    return "\n\n".join([times, markdown(["", *memory], needs), facts, source(result)])
