"""A tiny mPLUG-Owl2 with random weights, in a folder like the published one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.published_system import random_published
from pyiqa_ma_agiqa.mplug_owl2 import MPlugOwl2Config, MPlugOwl2Model

SIDE = 56
SHARDS = 3
train_tokenizer = random_published.train_tokenizer

UNUSED: dict[str, Any] = {
    "_name_or_path": "somewhere/mplug-owl2",
    "architectures": ["MPLUGOwl2LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "freeze_vision_model": False,
    "image_aspect_ratio": "pad",
    "image_grid_pinpoints": None,
    "initializer_range": 0.02,
    "pretraining_tp": 1,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.28.1",
    "tune_visual_abstractor": True,
    "use_cache": True,
}
"""What the published configuration says besides."""


def tiny_config(hidden: int = 64) -> dict[str, Any]:
    """Content of `config.json`; `hidden` is the width of the vectors, all else stays tiny."""
    return UNUSED | {
        "model_type": "mplug_owl2",
        "hidden_act": "silu",
        "vocab_size": random_published.VOCABULARY,
        "hidden_size": hidden,
        "intermediate_size": 192,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 16,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-05,
        "visual_config": {
            "visual_model": {
                "attention_dropout": 0.0,
                "hidden_act": "quick_gelu",
                "hidden_size": 48,
                "image_size": SIDE,
                "intermediate_size": 96,
                "layer_norm_eps": 1e-06,
                "model_type": "mplug_owl_vision_model",
                "num_attention_heads": 4,
                "num_channels": 3,
                "num_hidden_layers": 3,
                "patch_size": 14,
                "use_cls_token": True,
                "use_flash_attn": False,
                "use_post_layernorm": True,
            },
            "visual_abstractor": {
                "add_v2t_pos_emb": False,
                "encoder_hidden_size": 48,
                "grid_size": 4,
                "hidden_size": 48,
                "intermediate_size": 80,
                "layer_norm_eps": 1e-06,
                "model_type": "mplug_owl_visual_abstract",
                "num_attention_heads": 4,
                "num_hidden_layers": 2,
                "num_learnable_queries": 8,
                "use_cls_token": True,
            },
        },
    }


def processor_settings(side: int = SIDE) -> dict[str, Any]:
    """Content of `preprocessor_config.json`."""
    return random_published.processor_settings(side)


def published_state(model: MPlugOwl2Model, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The model's tensors, and those that published files have besides."""
    config = model.config
    state = {name: tensor.detach().to(dtype) for name, tensor in model.state_dict().items()}
    for layer in range(config.num_hidden_layers):
        frequencies = torch.zeros(config.head_dim // 2)
        state[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = frequencies
    return state | {"lm_head.weight": torch.zeros(config.vocab_size, config.hidden_size, dtype=dtype)}


def without_one_tensor(folder: Path) -> Path:
    """The folder, when a tensor that the model needs is gone from its first shard."""
    shard = sorted(folder.glob("*.bin"))[0]
    state = torch.load(shard, weights_only=True)
    del state[next(name for name in state if name.endswith("q_proj.weight"))]
    torch.save(state, shard)
    return folder


def save_tiny_lmm(
    folder: Path, hidden: int = 64, dtype: torch.dtype = torch.float16, seed: int = 0, **changes: Any
) -> Path:
    """Write a tiny random mPLUG-Owl2 in the published layout: `.bin` shards with an index.

    Args:
        folder: made if need be.
        hidden: width of the semantic vectors.
        dtype: of the weights in the files.
        seed: of the weights.
        changes: to the top level of `config.json`.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = tiny_config(hidden) | changes
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    (folder / "preprocessor_config.json").write_text(json.dumps(processor_settings()))
    train_tokenizer(folder / "tokenizer.model")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MPlugOwl2Model(MPlugOwl2Config(**config))
        with torch.no_grad():
            for parameter in model.parameters():
                # Larger than at the start of a training, so that every part changes the vectors.
                scale = 0.7 / parameter.shape[-1] ** 0.5 if parameter.dim() > 1 else 0.1
                parameter.add_(scale * torch.randn_like(parameter))
    state = published_state(model, dtype)
    names = list(state)
    at_once = len(names) // SHARDS + 1
    weight_map = {}
    for number in range(SHARDS):
        shard = f"pytorch_model-{number + 1}-of-{SHARDS}.bin"
        # In the order of the names, as published: a file is opened anew wherever the next one is asked for.
        part = {name: state[name].clone() for name in names[number * at_once :][:at_once]}
        torch.save(part, folder / shard)
        weight_map |= dict.fromkeys(part, shard)
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder
