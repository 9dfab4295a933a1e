"""The published system with the golden files' synthetic weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pyiqa_ma_agiqa.published.arch import MAAGIQAOwl2
from pyiqa_ma_agiqa.published.checkpoint import COMPUTED, used_layout

from .golden import recipe

GOLDEN = Path(__file__).parent / "golden"
CASES = json.loads((GOLDEN / "quality_public.json").read_text())


def constant(name: str) -> torch.Tensor | None:
    """The tensors of the layout that no recipe fills."""
    return next((compute() for ending, compute in COMPUTED.items() if name.endswith(ending)), None)


@pytest.fixture(scope="session")
def published_checkpoint(tmp_path_factory):
    """A file of the published layout without the unused tensors, about 0.5 GB, filled by the recipe."""
    path = tmp_path_factory.mktemp("published") / "weights.pth"
    state = {}
    for name, (shape, _) in used_layout().items():
        fixed = constant(name)
        state[name] = torch.from_numpy(recipe.fill(name, shape)) if fixed is None else fixed
    torch.save(state, path)
    yield path
    path.unlink()


@pytest.fixture(scope="session")
def published_net(published_checkpoint):
    """The network with these weights and no semantic encoder. Not to be changed by tests."""
    return MAAGIQAOwl2(pretrained_model_path=published_checkpoint, semantic_encoder=None)


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
