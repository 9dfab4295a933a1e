"""How fast and how large is the published quality branch here, beside a literal reading of its description?

    python -m benchmarks.published_system.published_branch

Both score the same images with the same random weights and semantic vectors, on the CPU in float32
(`literal_branch.py` is the literal reading): time in interleaved rounds by batch, peak memory in
processes of their own, and how far the scores lie apart. Needs a quiet machine, and Linux for the
memory. Writes published_branch.json beside itself.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.machine import circumstances, write_json
from benchmarks.common.places import ROOT
from benchmarks.common.timing import interleaved, memory_mib, spread
from benchmarks.published_system.literal_branch import LiteralModel
from pyiqa_ma_agiqa.published.arch import MAAGIQAOwl2

OURS, LITERAL = "ours", "literal"
BUILD: dict[str, Callable[[], torch.nn.Module]] = {
    OURS: partial(MAAGIQAOwl2, pretrained=False, semantic_encoder=None),
    LITERAL: LiteralModel,
}


def inputs(count: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images (count, 3, side, side) and semantic vectors (count, 2, 4096)."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, side, side, generator=generator)
    return images, torch.randn(count, 2, 4096, generator=generator)


def pair() -> dict[str, torch.nn.Module]:
    """Both models with the same weights."""
    models = {name: build() for name, build in BUILD.items()}
    ours = models[OURS].state_dict()
    unmatched = models[LITERAL].load_state_dict(ours, strict=False)
    constants = [name for name in ours if name.endswith((".relative_position_index", ".attn_mask"))]
    assert sorted(unmatched.unexpected_keys) == sorted(constants)
    assert all(name.startswith(("vit.blocks.1", "vit.norm", "vit.head")) for name in unmatched.missing_keys)
    return models


@torch.no_grad()
def times(models: dict[str, torch.nn.Module], options: argparse.Namespace) -> dict[str, Any]:
    """Seconds an image and the ratio, by batch."""
    result = {}
    for count in options.batches:
        calls = {name: partial(model, *inputs(count, options.side)) for name, model in models.items()}
        taken = interleaved(calls, options.rounds, "cpu", f"batch {count}")
        result[str(count)] = {
            "seconds_per_image": {name: spread(values / count) for name, values in taken.items()},
            "literal_over_ours": spread(taken[LITERAL] / taken[OURS]),
        }
    return result


@torch.no_grad()
def score_difference(models: dict[str, torch.nn.Module], count: int) -> float:
    """Largest relative difference of the scores, on images of 224 x 224, which neither resizes."""
    images, semantic = inputs(count, 224)
    ours, literal = (models[name](images, semantic) for name in (OURS, LITERAL))
    return ((ours - literal).abs() / literal.abs()).max().item()


@torch.no_grad()
def alone(name: str, count: int, side: int) -> dict[str, float]:
    """Memory in MiB of a model, and the most that scoring a batch takes beyond it."""
    batch = inputs(count, side)
    before = memory_mib("VmRSS")
    model = BUILD[name]()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    built = memory_mib("VmRSS")
    model(*batch)
    return {"model_mib": built - before, "scoring_mib": memory_mib("VmHWM") - built}


def in_own_process(name: str, count: int, options: argparse.Namespace) -> dict[str, float]:
    """`alone` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.published_system.published_branch", "--alone", name]
    command += ["--threads", str(options.threads), "--batches", str(count), "--side", str(options.side)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Peak memory and its ratio, by batch."""
    result = {}
    for count in options.batches:
        taken: dict[str, Any] = {name: in_own_process(name, count, options) for name in BUILD}
        ratios = {key: taken[LITERAL][key] / taken[OURS][key] for key in taken[OURS]}
        result[str(count)] = taken | {"literal_over_ours": ratios}
    return result


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--alone", choices=list(BUILD), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.alone:
        print(json.dumps(alone(options.alone, options.batches[0], options.side)))
        return

    models = pair()
    result: dict[str, Any] = {
        "image": f"{options.side} x {options.side}",
        "rounds": options.rounds,
        "weights": "random",
        "max_relative_score_difference": score_difference(models, 4),
        "time_by_batch": times(models, options),
        "memory_by_batch": memory(options),
    }
    write_json(options.out / "published_branch.json", result | circumstances())
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
