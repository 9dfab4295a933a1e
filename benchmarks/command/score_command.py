"""Does the command `score` keep up with its model, and does its memory stay flat?

    python -m benchmarks.command.score_command

Throughput: the model fed with decoded images from memory, and the whole command from its start to its
exit on the same images, by itself and, where Ray is installed, on Ray, in turns. The start of each, a run
of one image, is measured beside it. Memory: what the command holds while it scores many images, which are
links to the same files. Images are AGIQA-3K's ($AGIQA3K), or pictures made here where it is absent. Needs a
machine that does nothing else, and Linux. Writes score_command.json beside itself, after each run; of runs
that are not asked for it keeps what it has, so that `--rounds 0 --memory piqe=10000` adds one.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyiqa
import torch
from PIL import Image

from benchmarks.common.agiqa3k import DEFAULT_DATA
from benchmarks.common.machine import circumstances, write_json
from benchmarks.common.timing import spread
from pyiqa_ma_agiqa.input_checks import read_tensor

HELD = 50
"""Decoded images that are held in memory at once."""
SIDE = 512
SAMPLES = 200
"""About how often the memory is read."""


def pictures(data: Path, count: int, folder: Path) -> list[Path]:
    """Images of AGIQA-3K, evenly taken from all its generators, or noise in JPEG files."""
    files = sorted((data / "images").glob("*"))
    if files:
        return files[:: max(len(files) // count, 1)][:count]
    rng = np.random.default_rng(0)
    for number in range(count):
        levels = rng.integers(0, 256, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
        Image.fromarray(levels).resize((SIDE, SIDE)).save(folder / f"{number:05}.jpg")
    return sorted(folder.glob("*.jpg"))


def model_rate(metric: Any, files: list[Path]) -> float:
    """Images in a second that the model scores one by one, decoding not counted."""
    seconds = 0.0
    for start in range(0, len(files), HELD):
        images = [read_tensor(file) for file in files[start : start + HELD]]
        began = time.perf_counter()
        for image in images:
            metric(image).item()
        seconds += time.perf_counter() - began
    return len(files) / seconds


def command(table: Path, metric: str, device: str, *more: str) -> list[str]:
    """The command line that scores the paths of a table."""
    out = str(table.with_suffix(".parquet"))
    words = ["score", str(table), "--out", out, "--restart", "--metric", metric, "--device", device]
    return [sys.executable, "-m", "pyiqa_ma_agiqa.command", *words, *more]


def write_table(path: Path, files: list[Path]) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["path"], *([str(name.absolute())] for name in files)])
    return path


def seconds(words: list[str]) -> float:
    """Wall time of a process that must succeed."""
    began = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True)
    return time.perf_counter() - began


def throughput(files: list[Path], options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Rates of the model and of the command on each engine, each round one of each, and their ratios."""
    metric = pyiqa.create_metric(options.metric, device=options.device)
    for file in files[:3]:
        metric(read_tensor(file))
    whole, one = write_table(folder / "all.csv", files), write_table(folder / "one.csv", files[:1])
    engines: dict[str, list[str]] = {"command": []} | (
        {"ray": ["--engine", "ray"]} if find_spec("ray") else {}
    )
    rates: dict[str, list[float]] = defaultdict(list)
    starts: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.rounds):
        rates["model"].append(model_rate(metric, files))
        for engine, words in engines.items():
            taken = seconds(command(whole, options.metric, options.device, *words))
            start = seconds(command(one, options.metric, options.device, *words))
            starts[engine].append(start)
            rates[engine].append(len(files) / taken)
            rates[f"{engine}_after_its_start"].append((len(files) - 1) / (taken - start))
    model = np.array(rates["model"])
    return {
        "metric": options.metric,
        "device": options.device,
        "images": len(files),
        "images_per_second": {name: spread(np.array(values)) for name, values in rates.items()},
        "of_the_models_rate": {
            name: spread(np.array(values) / model) for name, values in rates.items() if name != "model"
        },
        "seconds_with_one_image": {engine: spread(np.array(values)) for engine, values in starts.items()},
    }


def memory(files: list[Path], metric: str, count: int, device: str, folder: Path) -> dict[str, Any]:
    """Resident memory while the command scores many images, by the share of its time that has passed."""
    links = folder / f"links_{metric}"
    links.mkdir()
    for number, file in enumerate(islice(cycle(files), count)):
        os.symlink(file.absolute(), links / f"{number:06}{file.suffix}")
    table = write_table(folder / f"many_{metric}.csv", sorted(links.iterdir()))
    samples = []
    began = time.perf_counter()
    process = subprocess.Popen(
        command(table, metric, device),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None:
        samples.append((time.perf_counter() - began, resident_mib(process.pid)))
        # Often at first, later as often as the time that has passed asks for.
        time.sleep(max(0.05, samples[-1][0] / SAMPLES))
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    times, sizes = (np.array(column) for column in zip(*samples, strict=True))
    shares = times / times[-1]
    tenths = {
        f"{low}-{low + 10} %": float(np.median(sizes[(shares >= low / 100) & (shares <= (low + 10) / 100)]))
        for low in range(10, 90, 10)  # before, it starts; after, it writes the output
    }
    return {
        "images": count,
        "seconds": float(times[-1]),
        "median_mib_by_tenth_of_the_time": tenths,
        "growth_mib": tenths["80-90 %"] - tenths["10-20 %"],
        "peak_mib": float(sizes.max()),
    }


def resident_mib(pid: int) -> float:
    """Resident memory of a process; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def alone(options: argparse.Namespace, parser: argparse.ArgumentParser, *words: str) -> dict[str, Any]:
    """Circumstances of one part of the result, with the command line that makes this part alone."""
    shared = ("data", "metric", "device", "images")
    given = [name for name in shared if getattr(options, name) != parser.get_default(name)]
    return circumstances(
        [*words, *(word for name in given for word in (f"--{name}", str(getattr(options, name))))]
    )


def _count(text: str) -> tuple[str, int]:
    metric, _, count = text.partition("=")
    return metric, int(count)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of AGIQA-3K (or $AGIQA3K)")
    parser.add_argument("--metric", default="ma_agiqa")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--images", type=int, default=500, help="for the throughput")
    parser.add_argument("--rounds", type=int, default=3, help="of the throughput; 0 for none")
    parser.add_argument(
        "--memory",
        nargs="+",
        type=_count,
        default=[],
        metavar="METRIC=IMAGES",
        help="runs whose memory is watched, such as ma_agiqa=10000",
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args(arguments)
    result = json.loads(options.out.read_text()) if options.out.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = pictures(options.data, options.images, folder)
        if options.rounds:
            rates = throughput(files, options, folder)
            result["throughput"] = rates | alone(options, parser, "--rounds", str(options.rounds))
            write_json(options.out, result)
        for metric, count in options.memory:
            watched = memory(files, metric, count, options.device, folder)
            words = ("--rounds", "0", "--memory", f"{metric}={count}")
            result["memory"] = result.get("memory", {}) | {metric: watched | alone(options, parser, *words)}
            write_json(options.out, result)
    print(options.out.read_text())


if __name__ == "__main__":
    main()
