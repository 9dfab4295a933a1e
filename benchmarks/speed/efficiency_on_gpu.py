"""How fast is ma_agiqa on a GPU, beside its bare backbones and beside pyiqa's learned metrics?

    python -m benchmarks.speed.efficiency_on_gpu

As `efficiency.py` measures it on a CPU, in float32 and under autocast to bfloat16; ours runs in integers and
is the same in both. Needs a GPU that nobody else uses. Writes efficiency_on_gpu.json beside itself.
"""

from __future__ import annotations

from typing import Any

import torch
from tqdm import tqdm

from benchmarks.common.machine import circumstances, need_gpu, write_json
from benchmarks.common.metrics import weights_sha256
from benchmarks.speed.comparators import crops_of
from benchmarks.speed.efficiency import OURS, SIDE, create, measure, parser_of_rounds

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
    options = parser_of_rounds(__doc__, batches=[1, 4, 16, 64]).parse_args()
    need_gpu("speed.efficiency")
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
