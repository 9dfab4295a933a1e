"""What is looked at in processes of its own, each of which begins without transformers."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch


def tell_memory_of_loading(told: Connection, large: Path, small: Path) -> None:
    """Tell the most memory that loading a large folder takes, over its weights, and the weights' bytes."""
    from pyiqa_ma_agiqa.mplug_owl2.loading import load_folder

    def status(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024

    torch.set_num_threads(1)
    load_folder(small, torch.bfloat16, device_map={"": "cpu"})
    before = status("VmRSS")
    model = load_folder(large, torch.bfloat16, device_map={"": "cpu"})
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    told.send(((status("VmHWM") - before) / weights, weights))


def tell_of_an_ordinary_llama(told: Connection, config: dict[str, Any]) -> None:
    """Tell what a LLaMA of transformers says and is made of, before and after ours is imported and run."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.llama import modeling_llama

    def observed() -> list[Any]:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
        )
        model = LlamaForCausalLM(config).eval()
        output = model(torch.arange(12)[None], use_cache=True)
        generated = model.generate(torch.arange(5)[None], max_new_tokens=6, do_sample=False)
        parts = sorted(
            f"{name}.{key} {value.__module__} {value.__code__.co_filename} {id(value.__code__)}"
            for name, kind in vars(modeling_llama).items()
            if isinstance(kind, type)
            for key, value in vars(kind).items()
            if hasattr(value, "__code__")
        )
        found = output.logits.tolist(), generated.tolist()
        return [*found, parts, sorted(model.state_dict()), "mplug_owl2" in CONFIG_MAPPING]

    torch.set_num_threads(1)
    before = observed()
    from pyiqa_ma_agiqa.mplug_owl2 import MPlugOwl2Config, MPlugOwl2Model

    owl = MPlugOwl2Model(MPlugOwl2Config(**config))
    with torch.no_grad():
        owl.encode(torch.zeros(1, 3, 56, 56), [[1, -200]])
    ours = isinstance(owl.model.layers[0], modeling_llama.LlamaDecoderLayer)
    told.send((before, observed(), ours))
