"""What do the weights of the published system take at full size, from a file brought by hand to a score?

    python -m benchmarks.published_system.published_full_size --folder /somewhere/with/50/GB

Weights cannot be had here, so random ones are written in the published files: 8.2 billion in 16.4 GB of
shards, and a checkpoint of 0.66 GB. `pyiqa-ma-agiqa weights import` brings them in, and pyiqa's own
command scores the example images with them, each in a process of its own with caches of its own.
Measured are seconds and peak memory of each, without a GPU; `published_full_size_on_gpu.py` lets the metrics
have one. Needs a quiet machine, Linux for the memory, 24 GB of memory and, while it runs, 34 GB of disk.
Writes published_full_size.json beside itself.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.common.machine import circumstances, write_json
from benchmarks.common.places import ROOT
from benchmarks.common.timing import spread
from benchmarks.published_system.random_published import model_shapes, write_checkpoint, write_model
from pyiqa_ma_agiqa.mplug_owl2 import MPlugOwl2Config
from pyiqa_ma_agiqa.mplug_owl2.prompts import PROMPTS, load_tokenizer, tokenise

EXAMPLES = ROOT / "examples"
WEIGHTS = [sys.executable, "-m", "pyiqa_ma_agiqa.command", "weights"]
PYIQA = [sys.executable, "-c", "from pyiqa.pyiqa_cmd import main; main()"]


class Size(NamedTuple):
    """How large the weights are: `config.json` of the large model, bytes of a shard, kind of checkpoint."""

    settings: dict[str, Any]
    shard_bytes: int
    thin: bool


FULL = Size(
    {"model_type": "mplug_owl2", "vocab_size": 32000, "num_hidden_layers": 32, "rms_norm_eps": 1e-5},
    1_500_000_000,
    thin=False,
)
"""As published; what is not said is so by default."""


class Run(NamedTuple):
    """A process that has ended: seconds, the most memory it took, and when it wrote what to stderr."""

    seconds: float
    peak_memory_mib: float
    output: str
    progress: list[tuple[float, str]]

    def reached(self, count: int, total: int) -> float:
        """Seconds until tqdm had counted so many."""
        text = ""
        for moment, piece in self.progress:
            text += piece
            if re.search(rf"\b{count}/{total}\b", text):
                return moment
        raise SystemExit(f"no progress of {count}/{total} seen:\n{text[-2000:]}")


def run(command: Sequence[str], environ: dict[str, str]) -> Run:
    """Run a command to its end, watched; its failure ends this script."""
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    peak = 0.0
    output: list[bytes] = []
    progress: list[tuple[float, str]] = []
    assert process.stdout and process.stderr
    errors, printed = process.stderr, process.stdout

    def read_errors() -> None:
        while piece := os.read(errors.fileno(), 4096):
            progress.append((time.perf_counter() - began, piece.decode(errors="replace")))

    readers = [
        threading.Thread(target=read_errors),
        threading.Thread(target=lambda: output.append(printed.read())),
    ]
    for reader in readers:
        reader.start()
    while process.poll() is None:
        with suppress(FileNotFoundError, ProcessLookupError):
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM"):
                    peak = int(line.split()[1]) / 1024
        time.sleep(0.02)
    seconds = time.perf_counter() - began
    for reader in readers:
        reader.join()
    if process.returncode:
        told = "".join(piece for _, piece in progress)
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}\n{told[-4000:]}")
    return Run(seconds, peak, b"".join(output).decode(), progress)


def scored(metric: str, images: Path, environ: dict[str, str]) -> dict[str, Any]:
    """Score a folder of images by pyiqa's command."""
    count = len(list(images.iterdir()))
    done = run([*PYIQA, metric, "-t", str(images), "-v"], environ)
    scores = [float(score) for score in re.findall(r"\.png': (\S+?)[,}]", done.output)]
    if len(scores) != count or not np.isfinite(scores).all():
        raise SystemExit(f"{metric}: {count} images, but these scores:\n{done.output}")
    moments = np.array([done.reached(number, count) for number in range(1, count + 1)])
    return {
        "images": count,
        "until_the_first_score_seconds": float(moments[0]),
        "each_further_score_seconds": spread(np.diff(moments)),
        "peak_memory_mib": done.peak_memory_mib,
    }


def measure(folder: Path, size: Size, metrics: Sequence[str], threads: int, on_gpu: bool) -> dict[str, Any]:
    """Write the weights into a folder, import and score; seconds and peak memory of each step."""
    environ = {name: value for name, value in os.environ.items() if name != "PYIQA_MA_AGIQA_DISABLE"}
    environ |= {"TORCH_HOME": str(folder / "torch"), "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"}
    environ |= {"OMP_NUM_THREADS": str(threads)} | ({} if on_gpu else {"CUDA_VISIBLE_DEVICES": ""})
    model, checkpoint = folder / "model", folder / "checkpoint.pt"
    began = time.perf_counter()
    model_bytes = write_model(model, size.settings, size.shard_bytes)
    write_checkpoint(checkpoint, size.thin)
    result: dict[str, Any] = {
        "weights": "random",
        "large_model": {
            "parameters": sum(
                torch.Size(shape).numel()
                for shape, dtype in model_shapes(MPlugOwl2Config(**size.settings)).values()
            ),
            "bytes": model_bytes,
            "shards": len(list(model.glob("*.bin"))),
            "tokens_of_the_prompts": [len(tokenise(prompt, load_tokenizer(model))) - 1 for prompt in PROMPTS],
        },
        "checkpoint": {"bytes": checkpoint.stat().st_size},
        "writing_seconds": time.perf_counter() - began,
        "import": {},
        "score": {},
    }
    for name, source in (("checkpoint", checkpoint), ("large_model", model)):
        done = run([*WEIGHTS, "import", str(source)], environ)
        result["import"][name] = {"seconds": done.seconds, "peak_memory_mib": done.peak_memory_mib}
    images = folder / "images"
    images.mkdir()
    for path in EXAMPLES.glob("*.png"):
        (images / path.name).symlink_to(path.resolve())
    for metric in metrics:
        result["score"][metric] = scored(metric, images, environ)
    return result


def main(arguments: Sequence[str] | None = None, size: Size = FULL, on_gpu: bool = False) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="where the weights are written, and deleted at the end")
    parser.add_argument(
        "--metrics", nargs="+", default=["ma_agiqa_owl2"], help="or ma_agiqa_owl2_4bit, _8bit"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="published_full_size_") as folder:
        result = measure(Path(folder), size, options.metrics, options.threads, on_gpu)
    name = "published_full_size_on_gpu.json" if on_gpu else "published_full_size.json"
    write_json(options.out / name, result | circumstances())
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
