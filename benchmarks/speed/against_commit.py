"""How fast is ma_agiqa beside an earlier commit of it?

    python -m benchmarks.speed.against_commit --commit 00f8087 --rounds 15

Checks the commit out in a temporary folder and scores with both versions, each in a process of its own with
the weights that it ships. Each round asks each process once, in another order each time, so that drift of
the machine hits both alike. Also as on machines with fewer instructions: oneDNN, which multiplies for both
versions, is held to AVX2 and to AVX-512 without byte products, and this version to products of floats.
Needs a quiet machine, Linux and git. Writes against_commit.json beside itself.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.common.machine import circumstances, git, write_json
from benchmarks.common.places import ROOT, module_name
from benchmarks.common.timing import spread
from benchmarks.speed import version_worker
from pyiqa_ma_agiqa.compact.shipped import shipped_weights

EARLIER, OURS = "earlier", "ours"
AS_IT_IS = "the machine as it is"
VARIANTS: dict[str, tuple[dict[str, str], bool]] = {
    AS_IT_IS: ({}, False),
    "oneDNN held to AVX2": ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, False),
    "oneDNN held to AVX512_CORE": ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, False),
    "this version without integer products": ({}, True),
}
"""How the processes are started: environment of both, and whether ours multiplies floats."""
CASES = {"512 x 512": (512, 1), "1024 x 1024": (1024, 1), "512 x 512, batch of 4": (512, 4)}
"""Sides and batches. The variants of the machine are timed with the first."""
WEIGHTS = Path("pyiqa_ma_agiqa", "weights", "ma_agiqa.safetensors")
"""Where each version has its weights."""


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A worktree of a commit, removed afterwards.

    Raises:
        SystemExit: there is no such commit, or no git.
    """
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        if git("worktree", "add", "--detach", str(tree), commit) is None:
            sys.exit(f"against_commit.py: git cannot check out {commit}; name a commit of this repository")
        try:
            yield tree
        finally:
            git("worktree", "remove", "--force", str(tree))


class Worker:
    """A process that scores with the package of a tree; what it has to complain of it prints itself.

    Attributes:
        facts: what its first score needed, and the score.

    Raises:
        RuntimeError: it ended.
    """

    def __init__(self, tree: Path, environment: dict[str, str], floats: bool, threads: int) -> None:
        self.tree = tree
        module = module_name(Path(version_worker.__file__).relative_to(ROOT))
        words = ["--threads", str(threads), *["--no-integer-products"] * floats]
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, str(tree), *words],
            cwd=ROOT,
            env=os.environ | {"PYIQA_MA_AGIQA_DISABLE": "1"} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.facts: dict[str, float] = self._answer()

    def ask(self, threads: int, side: int, batch: int) -> float:
        """Seconds of a score."""
        assert self.process.stdin is not None
        print(
            json.dumps({"threads": threads, "side": side, "batch": batch}),
            file=self.process.stdin,
            flush=True,
        )
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self.process.communicate()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.tree}: this version ended with {self.process.wait()}; see above")
        return json.loads(line)


@contextlib.contextmanager
def workers(trees: dict[str, Path], variant: str, threads: int) -> Iterator[dict[str, Worker]]:
    """A process for each version, as a variant has them."""
    environment, floats = VARIANTS[variant]
    with contextlib.ExitStack() as stack:
        started = {}
        for version, tree in trees.items():
            started[version] = Worker(tree, environment, floats and version == OURS, threads)
            stack.callback(started[version].close)
        yield started


def interleaved(versions: dict[str, Worker], rounds: int, **case: int) -> dict[str, np.ndarray]:
    """Seconds (rounds,) of one case by version."""
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {version: [] for version in versions}
    for _ in range(rounds):
        for version in rng.permutation(list(versions)):
            times[version].append(versions[version].ask(**case))
    return {version: np.array(taken) for version, taken in times.items()}


def measure(trees: dict[str, Path], options: argparse.Namespace) -> dict[str, Any]:
    """Times, memory and loading by variant of the machine."""
    found: dict[str, Any] = {}
    for variant in options.variants:
        rows = []
        with workers(trees, variant, max(options.threads)) as versions:
            cases = CASES if variant == AS_IT_IS else dict([*CASES.items()][:1])
            asked = [(threads, case) for threads in options.threads for case in cases.items()]
            for threads, (case, (side, batch)) in tqdm(asked, variant):
                times = interleaved(versions, options.rounds, threads=threads, side=side, batch=batch)
                rows.append(
                    {"case": case, "threads": threads}
                    | {f"{version}_seconds": spread(taken) for version, taken in times.items()}
                    | {"earlier_over_ours": spread(times[EARLIER] / times[OURS])}
                )
            facts = {version: worker.facts for version, worker in versions.items()}
        found[variant] = {"times": rows, "first_score": facts}
    return found


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commit", required=True, help="the earlier version")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS, metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args(arguments)

    with checked_out(options.commit) as tree:
        result = {
            "earlier": {
                "commit": (git("rev-parse", "HEAD", root=tree) or "").strip(),
                "weights_sha256": hashlib.sha256((tree / WEIGHTS).read_bytes()).hexdigest(),
                "weights_mib": (tree / WEIGHTS).stat().st_size / 2**20,
            },
            "weights_mib": shipped_weights().stat().st_size / 2**20,
            "rounds": options.rounds,
            "variants": measure({EARLIER: tree, OURS: ROOT}, options),
        }
    torch.set_num_threads(max(options.threads))
    result |= {"weights_sha256": hashlib.sha256(shipped_weights().read_bytes()).hexdigest()}
    write_json(options.out / "against_commit.json", result | circumstances(arguments))
    print(json.dumps(result["variants"], indent=1))


if __name__ == "__main__":
    main()
