"""What do the short cuts of the published system's language model save, beside plain passes?

    python -m benchmarks.published_system.language_model --layers auto

A plain pass is vision tower, abstractor and language model over all tokens. The paper's two prompts need
two of them an image; its released script runs four, each prompt twice. `MPlugOwl2Model.encode` runs
vision once and the language model over what follows the text before the image, both prompts in one batch.
Here, with random weights:

- operations by count, at full size, on tensors without memory;
- time on the CPU in bfloat16, at full width with as many layers of the language model as fit in 16 GB
  (`--layers auto`), in interleaved rounds, and how far the vectors are apart there and in float32.

`language_model_on_gpu.py` has a GPU. Needs a quiet machine. Writes language_model.json beside itself.
"""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common.machine import circumstances, write_json
from benchmarks.common.timing import interleaved, memory_mib, spread
from pyiqa_ma_agiqa.mplug_owl2 import MPlugOwl2Config, MPlugOwl2Model
from pyiqa_ma_agiqa.mplug_owl2.encoder import FLOATS, QUANTISED, quantisation

TEXT_TOKENS = ((29, 6), (24, 6))
"""Tokens before (with BOS) and after the image of both prompts: semantic content, coherence. Counted with
LLaMA's vocabulary of 32000 pieces, as llama.cpp carries it for its tests."""
IMAGE_TOKENS = 65
VOCABULARY = 32000
PASSES = {"four passes": 4, "two passes": 2}
"""Full passes for an image: as the released script runs them, every prompt twice, and as the prompts need."""
FULL = 32
"""Layers of the published language model."""
MEMORY = 16e9
BESIDES_WEIGHTS = 1.5e9
"""Bytes for Python, its modules and what the layers make."""
OURS = "encode"


class RandomTensor:
    """A weight that is drawn when transformers asks for it, as if it were read from a file."""

    def __init__(self, name: str, shape: torch.Size, dtype: torch.dtype, device: str) -> None:
        self.name, self.shape, self.dtype, self.device = name, shape, dtype, device

    def __getitem__(self, index: Any) -> torch.Tensor:
        weight = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        if len(self.shape) == 1:
            return weight.fill_(0 if self.name.endswith("bias") else 1)[index]
        return weight.normal_(0, 0.02)[index]


def configuration(layers: int) -> MPlugOwl2Config:
    """The published 7B model with so many layers of its language model."""
    return MPlugOwl2Config(num_hidden_layers=layers, rms_norm_eps=1e-5)


def bare_model(layers: int) -> MPlugOwl2Model:
    """Shapes without memory."""
    with torch.device("meta"):
        return MPlugOwl2Model(configuration(layers)).eval()


def random_model(layers: int, precision: str, device: str) -> MPlugOwl2Model:
    """Random weights through transformers' own loading, quantised as the metric quantises."""
    half = torch.bfloat16 if device == "cpu" else torch.float16
    dtype = FLOATS.get(precision, half)
    state = {
        name: RandomTensor(name, weight.shape, dtype, device)
        for name, weight in bare_model(layers).state_dict().items()
    }
    options = {"quantization_config": quantisation(precision, half)} if precision in QUANTISED else {}
    model = MPlugOwl2Model.from_pretrained(
        None, config=configuration(layers), state_dict=state, dtype=dtype, device_map={"": device}, **options
    )
    return model.requires_grad_(False)


def prompts() -> list[list[int]]:
    """Random token ids, as many as the real prompts have."""
    drawn = torch.Generator().manual_seed(0)
    return [
        [
            *torch.randint(3, VOCABULARY, (before,), generator=drawn).tolist(),
            -200,
            *torch.randint(3, VOCABULARY, (after,), generator=drawn).tolist(),
        ]
        for before, after in TEXT_TOKENS
    ]


def pixels(model: MPlugOwl2Model, count: int, device: str) -> torch.Tensor:
    side = model.config.visual_model.image_size
    values = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))
    return values.to(device)


def plain_passes(model: MPlugOwl2Model, images: torch.Tensor, count: int) -> torch.Tensor:
    """(N, 2, width) by so many plain passes, the prompts in turns."""
    ids = [torch.tensor(prompt) for prompt in prompts()]
    vectors = [model(images, ids[i % len(ids)]) for i in range(count)]
    return torch.stack(vectors[: len(ids)], dim=1)


def calls_on(model: MPlugOwl2Model, count: int, device: str) -> dict[str, Callable[[], torch.Tensor]]:
    images = pixels(model, count, device)
    plain = {name: partial(plain_passes, model, images, passes) for name, passes in PASSES.items()}
    return plain | {OURS: partial(model.encode, images, prompts())}


def ratios(times: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """How much longer plain passes take than `encode`, round by round."""
    return {name: spread(times[name] / times[OURS]) for name in PASSES}


def operations() -> dict[str, Any]:
    """Floating-point operations for an image at full size; a multiplication and an addition are two."""
    model = bare_model(FULL)
    images = pixels(model, 1, "meta")

    def counted(call: Callable[[], Any]) -> int:
        with FlopCounterMode(display=False) as counter:
            call()
        return counter.get_total_flops()

    vision = counted(lambda: model.image_tokens(images))
    first = counted(lambda: model.encode(images, prompts()))
    later = counted(lambda: model.encode(images, prompts()))
    plain = {name: counted(partial(plain_passes, model, images, passes)) for name, passes in PASSES.items()}
    return {
        **plain,
        OURS: later,
        "of which vision, in each pass": vision,
        "once for all images, the text before the image": first - later,
        "not counted: logits, in four passes of the released code": PASSES["four passes"]
        // len(TEXT_TOKENS)
        * sum(before + IMAGE_TOKENS + after for before, after in TEXT_TOKENS)
        * 2
        * 4096
        * VOCABULARY,
    }


def layers_that_fit() -> int:
    """Layers of the language model, in bfloat16, with all else of the model, in 16 GB."""
    sizes = [2 * sum(weight.numel() for weight in bare_model(n).parameters()) for n in (1, 2)]
    layer = sizes[1] - sizes[0]
    return min(FULL, int((MEMORY - BESIDES_WEIGHTS - (sizes[0] - layer)) // layer))


def apart(calls: dict[str, Callable[[], torch.Tensor]]) -> dict[str, float]:
    """How far the vectors of plain passes and of `encode` are apart."""
    plain, ours = calls["two passes"](), calls[OURS]()
    return {
        "largest_difference": (plain - ours).abs().max().item(),
        "relative_difference": ((plain - ours).norm() / plain.norm()).item(),
        "standard_deviation_of_vectors": plain.std().item(),
    }


@torch.inference_mode()
def on_cpu(layers: int, float32_layers: int, rounds: int) -> dict[str, Any]:
    """Time in bfloat16, and the equality of the vectors in both precisions."""
    model = random_model(float32_layers, "fp32", "cpu")
    exact = {"layers": float32_layers} | apart(calls_on(model, 1, "cpu"))
    del model
    gc.collect()
    model = random_model(layers, "bf16", "cpu")
    calls = calls_on(model, 1, "cpu")
    difference = apart(calls)
    times = interleaved(calls, rounds, "cpu", f"bf16, {layers} layers")
    return {
        "layers": layers,
        "parameters": model.num_parameters(),
        "seconds_an_image": {name: spread(values) for name, values in times.items()},
        "time_over_ours": ratios(times),
        "vectors_bf16": difference,
        "vectors_float32": exact,
        "peak_memory_mib": memory_mib("VmHWM"),
    }


def library_versions() -> dict[str, str]:
    """Of what the large model is made of."""
    return {name: version(name) for name in ("transformers", "bitsandbytes")}


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", default="auto", help="of the language model, or auto: what fits in 16 GB")
    parser.add_argument("--float32-layers", type=int, default=4, help="where vectors are compared in float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    layers = layers_that_fit() if options.layers == "auto" else int(options.layers)
    result: dict[str, Any] = {
        "image": "448 x 448",
        "weights": "random",
        "text_tokens": {"before and after the image": TEXT_TOKENS, "image tokens": IMAGE_TOKENS},
        "operations_at_full_size": operations(),
        "cpu_bfloat16": on_cpu(layers, options.float32_layers, options.rounds),
    }
    result |= circumstances()
    result["versions"] |= library_versions()
    write_json(options.out / "language_model.json", result)
    print(json.dumps({key: result[key] for key in ("operations_at_full_size", "cpu_bfloat16")}, indent=1))


if __name__ == "__main__":
    main()
