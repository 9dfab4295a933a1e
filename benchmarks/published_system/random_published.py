"""Random weights in the files of the published system: names, shapes, kinds and formats are its own."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sentencepiece
import torch

from pyiqa_ma_agiqa.mplug_owl2 import MPlugOwl2Config, MPlugOwl2Model
from pyiqa_ma_agiqa.mplug_owl2.prompts import PROMPTS
from pyiqa_ma_agiqa.published.checkpoint import COMPUTED, official_layout

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
VOCABULARY = 320
"""Pieces of the tokenizer; published are 32000, which the few texts here could not fill."""

Shapes = dict[str, tuple[tuple[int, ...], torch.dtype]]


def processor_settings(side: int) -> dict[str, Any]:
    """Content of `preprocessor_config.json`, in the old form that the published model has."""
    return {
        "crop_size": side,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "resample": 3,
        "size": side,
    }


def train_tokenizer(path: Path) -> None:
    """Write a sentencepiece model with the settings of LLaMA's, trained on the prompts."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(prompt.split()) for prompt in PROMPTS] * 3),
        model_writer=model,
        vocab_size=VOCABULARY,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        num_threads=1,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())


def model_shapes(config: MPlugOwl2Config) -> Shapes:
    """Shape and type of every tensor in the files of a large model, those that are never read included."""
    with torch.device("meta"):
        state = MPlugOwl2Model(config).state_dict()
    shapes: Shapes = {name: (tuple(weight.shape), torch.float16) for name, weight in state.items()}
    for layer in range(config.num_hidden_layers):
        name = f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"
        shapes[name] = (config.head_dim // 2,), torch.float32
    return shapes | {"lm_head.weight": ((config.vocab_size, config.hidden_size), torch.float16)}


def bytes_of(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    return torch.Size(shape).numel() * dtype.itemsize


def shards(shapes: Shapes, shard_bytes: int) -> list[list[str]]:
    """Names by shard: each as full as may be, in the order of the names, with at least one tensor."""
    found: list[list[str]] = [[]]
    size = 0
    for name, (shape, dtype) in shapes.items():
        added = bytes_of(shape, dtype)
        if found[-1] and size + added > shard_bytes:
            found.append([])
            size = 0
        found[-1].append(name)
        size += added
    return found


def drawn(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Values of a size that keeps what passes through many layers finite."""
    values = torch.randn(shape, generator=generator)
    return values * (0.7 / shape[-1] ** 0.5) if len(shape) > 1 else values.mul_(0.1).add_(1)


def write_model(folder: Path, settings: dict[str, Any], shard_bytes: int) -> int:
    """Write a large model as published: `.bin` shards with an index. One shard is in memory at a time.

    Args:
        folder: made if need be.
        settings: content of `config.json`.
        shard_bytes: the most that a shard holds.

    Returns:
        Bytes of all tensors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = MPlugOwl2Config(**settings)
    (folder / "config.json").write_text(json.dumps(settings, indent=1))
    (folder / "preprocessor_config.json").write_text(
        json.dumps(processor_settings(config.visual_model.image_size))
    )
    train_tokenizer(folder / "tokenizer.model")
    shapes = model_shapes(config)
    parts = shards(shapes, shard_bytes)
    generator = torch.Generator().manual_seed(0)
    weight_map = {}
    for number, names in enumerate(parts, start=1):
        shard = f"pytorch_model-{number:05}-of-{len(parts):05}.bin"
        torch.save(
            {name: drawn(shapes[name][0], generator).to(shapes[name][1]) for name in names}, folder / shard
        )
        weight_map |= dict.fromkeys(names, shard)
    size = sum(bytes_of(*entry) for entry in shapes.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return size


def write_checkpoint(path: Path, thin: bool = False) -> None:
    """Write a checkpoint with every tensor of the published one; of a thin one each repeats one value."""
    generator = torch.Generator().manual_seed(0)

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for name, (shape, _) in official_layout().items():
            constant = next((make() for ending, make in COMPUTED.items() if name.endswith(ending)), None)
            if constant is None:
                constant = torch.full((), 0.01).expand(shape) if thin else drawn(shape, generator)
            yield name, constant

    torch.save(dict(tensors()), path)
