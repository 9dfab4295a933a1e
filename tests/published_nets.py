"""The published system with the golden files' synthetic weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pyiqa_ma_agiqa.published import arch, branch, checkpoint
from pyiqa_ma_agiqa.published.arch import MAAGIQAOwl2
from pyiqa_ma_agiqa.published.checkpoint import COMPUTED, official_layout, used_layout

from .golden import recipe

GOLDEN = Path(__file__).parent / "golden"
CASES = json.loads((GOLDEN / "quality_public.json").read_text())


def constant(name: str) -> torch.Tensor | None:
    """The tensors of the layout that no recipe fills."""
    return next((compute() for ending, compute in COMPUTED.items() if name.endswith(ending)), None)


def filled(names: Iterable[str]) -> dict[str, torch.Tensor]:
    """Tensors of the published layout, filled by the recipe."""
    state = {}
    for name in names:
        fixed = constant(name)
        shape = official_layout()[name][0]
        state[name] = torch.from_numpy(recipe.fill(name, shape)) if fixed is None else fixed
    return state


def filled_net() -> MAAGIQAOwl2:
    """The network with these weights and no semantic encoder."""

    def fill(net: MAAGIQAOwl2, path: Path) -> None:
        net.load_state_dict(filled(used_layout()), assign=True)

    with pytest.MonkeyPatch.context() as patch:
        # As from a file, so that no time goes into random weights that are then replaced.
        patch.setattr(arch, "load_checkpoint", fill)
        return MAAGIQAOwl2(pretrained_model_path="none", semantic_encoder=None)


def save_random_checkpoint(path: Path) -> None:
    """A random file of the published layout: 30 MB, since its tensors lie in one memory, each elsewhere."""
    sizes = [torch.Size(shape).numel() for shape, _ in official_layout().values()]
    values = 0.02 * torch.randn(max(sizes) + 8 * len(sizes), generator=torch.Generator().manual_seed(0))
    state = {}
    for number, (name, (shape, _)) in enumerate(official_layout().items()):
        fixed = constant(name)
        state[name] = values[8 * number :][: sizes[number]].view(shape) if fixed is None else fixed
    torch.save(state, path)


@contextmanager
def light_branch(patch_features: Callable):
    """The published system without its backbone, which takes seconds an image and half a gigabyte.

    Args:
        patch_features: stands in for `QualityBranch.patch_features`.
    """

    def heads_alone(self) -> None:
        nn.Module.__init__(self)
        self.fc_score = branch.head(nn.ReLU())
        self.fc_weight = branch.head(nn.Sigmoid())

    backbone = ("vit.", "tablock", "conv", "swin")
    light = {name: entry for name, entry in used_layout().items() if not name.startswith(backbone)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(branch.QualityBranch, "__init__", heads_alone)
        patch.setattr(branch.QualityBranch, "patch_features", patch_features)
        patch.setattr(checkpoint, "UNUSED", checkpoint.UNUSED + backbone)
        patch.setattr(checkpoint, "used_layout", lambda: light)
        yield


def case_image(case: dict) -> torch.Tensor:
    """(1, 3, H, W) in [0, 1]."""
    pixels = recipe.image(case["seed"], case["height"], case["width"])
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def case_semantic(case: dict) -> torch.Tensor:
    """(1, 2, 4096): semantic content, coherence."""
    vectors = [recipe.semantic(10 * case["seed"] + i) for i in (1, 2)]
    return torch.from_numpy(np.stack(vectors))[None]


def random_semantic(count: int) -> torch.Tensor:
    return torch.randn(count, 2, 4096, generator=torch.Generator().manual_seed(count))


def quick_patch_features(network, pixels):
    """A stand-in for the backbone of the published branch, which takes seconds an image on two cores.

    What is around it stays: resizing before, heads, experts and gate behind. The backbone has tests of
    its own.
    """
    resized = branch.opencv_bicubic(pixels, (branch.SIDE, branch.SIDE))
    colours = nn.functional.avg_pool2d(resized, branch.PATCH).flatten(2).transpose(1, 2)
    return colours.repeat(1, 1, branch.NARROW // 3)
