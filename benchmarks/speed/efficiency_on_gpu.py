"""How fast is ma_agiqa on a GPU, beside its bare backbones and beside pyiqa's learned metrics?

    python -m benchmarks.speed.efficiency_on_gpu

As `efficiency.py` measures it on a CPU, in float32 and under autocast to bfloat16; ours runs in integers and
is the same in both. Needs a GPU that nobody else uses. Writes efficiency_on_gpu.json beside itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.common.machine import circumstances, write_json
from benchmarks.common.metrics import weights_sha256
from benchmarks.speed.comparators import PEERS, crops_of
from benchmarks.speed.efficiency import OURS, SIDE, create, measure

PRECISIONS = ("float32", "bfloat16")


def build(names: tuple[str, ...], untrained: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """Metrics on the GPU by name, and why one could not be built."""
    metrics, not_built = {}, {}
    for name in tqdm(names, "metrics"):
        try:
            metrics[name] = create(name, "cuda", untrained)
        except Exception as error:  # of whatever library the metric is made of
            if name == OURS:
                raise
            not_built[name] = (str(error) or type(error).__name__).splitlines()[0]
    return metrics, not_built


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--others", nargs="*", default=list(PEERS), metavar="NAME", help="of pyiqa's metrics")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4, 16, 64])
    parser.add_argument("--sides", nargs="+", type=int, default=[256, 512, 1024, 2048])
    parser.add_argument("--untrained", action="store_true", help="random weights for ma_agiqa, for try-outs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no GPU is at hand; `python -m benchmarks.speed.efficiency` measures the CPU")
    torch.manual_seed(0)
    metrics, not_built = build((OURS, *options.others), options.untrained)
    result: dict[str, Any] = {
        "image": f"{SIDE} x {SIDE}",
        "rounds": options.rounds,
        "weights": {OURS: "random" if options.untrained else "shipped", "others": "random"},
        "not_built": not_built,
        "crops_an_image": {name: crops_of(metric) for name, metric in metrics.items() if name != OURS},
    }
    for precision in PRECISIONS:
        result[f"cuda_{precision}"] = measure(metrics, "cuda", precision, options)
    if not options.untrained:
        result |= weights_sha256(metrics[OURS])
    write_json(options.out / "efficiency_on_gpu.json", result | circumstances())


if __name__ == "__main__":
    main()
