"""The published system's quality branch, experts and gate: golden values, and promises over inputs."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import DropPath
from torch import nn

from pyiqa_ma_agiqa.errors import InputError
from pyiqa_ma_agiqa.published import windows
from pyiqa_ma_agiqa.published.branch import QualityBranch
from pyiqa_ma_agiqa.published.transposed_attention import TransposedAttention

from ..images import batch
from ..passed_by import PassedBy
from ..published_nets import CASES, case_image, case_semantic, random_semantic

STAGES = {
    "conv1": "conv1",
    "swin1": "swintransformer1",
    "conv2": "conv2",
    "swin2": "swintransformer2",
    "fc_score": "fc_score",
    "fc_weight": "fc_weight",
    "expert_quality": "fc784_784",
    "expert_a2": "fc4096_784_a2",
    "expert_b2": "fc4096_784_b2",
}
"""Stage in the golden file, and the module that gives it."""
BESIDE = next(case for case in CASES if case["height"] == case["width"] == 224)
"""The golden image that is scored beside another one."""


@pytest.fixture
def net(published_net):
    return published_net


def watched(net: nn.Module, *arguments, **keywords) -> tuple[dict, dict]:
    """What a call returns, and what each stage gave."""
    seen = {}

    def keep(stage):
        return lambda module, inputs, output: seen.update({stage: output.double()})

    handles = [net.get_submodule(name).register_forward_hook(keep(stage)) for stage, name in STAGES.items()]
    with torch.no_grad():
        parts = net(*arguments, **keywords)
    for handle in handles:
        handle.remove()
    return parts, seen


@pytest.fixture(scope="module")
def scored(published_net):
    """A golden image and a grey one, their semantic vectors, and what they score together.

    At the end what each stage gave.
    """
    images, semantic = batch(2, 224, 224), torch.cat([case_semantic(BESIDE), random_semantic(1)])
    images[0], images[1] = case_image(BESIDE)[0], images[1, :1]
    return images, semantic, *watched(published_net, images, semantic, return_parts=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"seed {case['seed']}")
def test_golden(net, scored, case):
    if case is BESIDE:
        parts, stages = ({name: values[:1] for name, values in found.items()} for found in scored[2:])
    else:
        image, semantic = case_image(case), case_semantic(case)
        parts, stages = watched(net, image, semantic=semantic, return_parts=True)
    for stage in STAGES:  # in the order of the computation: the first to fail is the one at fault
        got, wanted = stages[stage], case[stage]
        assert list(got.shape) == wanted["shape"], stage
        assert got.mean().item() == pytest.approx(wanted["mean"], rel=1e-5, abs=1e-5), stage
        assert got.std(unbiased=False).item() == pytest.approx(wanted["std"], rel=1e-5), stage
        assert got.flatten()[:8].tolist() == pytest.approx(wanted["first8"], rel=1e-4, abs=2e-4), stage
    assert parts["gate"][0].tolist() == pytest.approx(case["gating"], abs=1e-5)
    assert parts["score"].item() == pytest.approx(case["score"], rel=1e-5)


def test_alone_and_in_a_batch(net, scored):
    images, semantic, parts, _ = scored
    assert parts["score"].shape == (2, 1)
    assert parts["score"].unique().numel() == 2
    with torch.no_grad():
        grey = net(images[1:, :1], semantic[1:])
    torch.testing.assert_close(grey, parts["score"][1:], rtol=0, atol=1e-6)


def test_a_literal_reading_scores_the_same(net, monkeypatch):
    from benchmarks.published_system import published_branch as benchmark

    monkeypatch.setitem(benchmark.BUILD, benchmark.OURS, lambda: net)
    # No time for random weights that ours replace: what is not replaced is nan, and would be seen.
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda weights, *_, **__: weights.fill_(torch.nan))
    literal = benchmark.pair()[benchmark.LITERAL]
    monkeypatch.undo()
    with torch.no_grad():
        score = literal(case_image(CASES[0]), case_semantic(CASES[0]))
    assert score.item() == pytest.approx(CASES[0]["score"], rel=1e-4)


def test_parts_sum_to_the_score(scored):
    parts = scored[2]
    assert parts["gate"].shape == parts["shares"].shape == (2, 3)
    assert parts["quality_map"].shape == (2, 28, 28)
    torch.testing.assert_close(parts["shares"].sum(1, keepdim=True), parts["score"], rtol=0, atol=1e-6)
    torch.testing.assert_close(parts["quality_map"].mean((1, 2)), parts["shares"][:, 2], rtol=0, atol=1e-6)


def test_the_map_is_what_each_patch_adds(net):
    quality = torch.rand(1, 784, generator=torch.Generator().manual_seed(0))
    gate = torch.tensor([[1.7]])

    def share(patches):
        return gate * net.output_fc(net.fc784_784(patches))

    with torch.no_grad():
        quality_map = net._quality_map(quality, gate, share(quality))
        for patch in (0, 300, 783):
            without = quality.clone()
            without[0, patch] = 0
            change = share(quality) - share(without)
            # Its part of the mean of the map, beyond what all patches have in common.
            none = share(torch.zeros_like(quality))
            expected = 784 * change + none
            torch.testing.assert_close(quality_map.flatten()[patch], expected[0, 0], rtol=1e-3, atol=1e-3)


def test_gradients_reach_the_image_and_the_vectors(net, scored, monkeypatch):
    for block in [*net.vit.blocks[1:6], *net.vit.blocks[7:]]:  # all ten are alike
        monkeypatch.setattr(block, "forward", PassedBy().forward)
    image, semantic = (values[:1].clone().requires_grad_() for values in scored[:2])
    for gradient in torch.autograd.grad(net(image, semantic).sum(), [image, semantic]):
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def test_autocast_stays_near_float32(net, scored):
    images, semantic, parts, _ = scored
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        got = net(images[:1], semantic[:1])
    assert got.dtype == torch.float32
    assert (got - parts["score"][:1]).abs().max() <= 0.02


@pytest.mark.parametrize(
    ("semantic", "message"),
    [
        (None, "needs the semantic vectors"),
        (np.zeros((1, 2, 4096)), "is a ndarray, not a tensor"),
        (torch.zeros(2, 4096), "has shape"),
        (torch.zeros(2, 2, 4096), "has shape"),
        (torch.zeros(1, 2, 768), "has shape"),
        (torch.zeros(1, 2, 4096, dtype=torch.int64), "not dense floating point"),
        (torch.full((1, 2, 4096), torch.nan), "NaN or infinite"),
    ],
)
def test_unusable_semantic_vectors_are_refused(net, semantic, message):
    with pytest.raises(InputError, match=message):
        net(batch(1, 32, 32), semantic)


def test_unusable_images_are_refused(net):
    with pytest.raises(InputError, match="dimensions"):
        net(torch.zeros(3, 32, 32), random_semantic(1))
    with pytest.raises(InputError, match="empty batch"):
        net(torch.zeros(0, 3, 32, 32), torch.zeros(0, 2, 4096))


def test_no_module_is_hooked_and_no_block_idle(net):
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert len(net.vit.blocks) == 10


def transposed_attention_by_hand(block: TransposedAttention, x: torch.Tensor) -> torch.Tensor:
    """As the description has it, with every matrix spelled out."""
    count, channels, patches = x.shape
    q, k, v = block.c_q(x), block.c_k(x), block.c_v(x)
    y = torch.softmax(q @ k.transpose(1, 2) * patches**-0.5, dim=-1) @ v
    memory = y.transpose(1, 2).contiguous().flatten()
    return x + memory.view(count, channels, patches)


@settings(max_examples=15)
@given(count=st.integers(1, 3), channels=st.integers(1, 40), patches=st.integers(1, 30))
def test_transposed_attention_reads_its_memory_the_other_way(count, channels, patches):
    torch.manual_seed(0)
    block = TransposedAttention(patches).double().eval()
    x = torch.randn(count, channels, patches, dtype=torch.float64)
    expected = transposed_attention_by_hand(block, x)
    torch.testing.assert_close(block(x), expected)
    transposed = x.transpose(1, 2).contiguous().transpose(1, 2)  # equal values, another memory
    torch.testing.assert_close(block(transposed), expected)


def test_windows_are_cut_and_put_together():
    grid = torch.arange(2 * 28 * 28 * 3).view(2, 28, 28, 3)
    cut = windows.partition(grid)
    assert cut.shape == (98, 16, 3)
    assert torch.equal(cut[8].view(4, 4, 3), grid[0, 4:8, 4:8])
    assert torch.equal(windows.assemble(cut), grid)


def test_the_mask_parts_what_the_shift_brought_together():
    mask = windows.shifted_window_mask()
    assert set(mask.unique().tolist()) == {0.0, -100.0}
    assert not mask[0].any()
    places = windows.partition(torch.cartesian_prod(torch.arange(28), torch.arange(28)).view(1, 28, 28, 2))
    origin = (places + windows.SHIFT) % 28  # where a patch of the shifted grid came from
    apart = (origin[:, :, None] - origin[:, None]).abs().amax(-1) >= windows.WINDOW
    assert torch.equal(mask != 0, apart)


def test_relative_positions_name_an_offset_each():
    index = windows.relative_position_index()
    rows, columns = torch.arange(16) // 4, torch.arange(16) % 4
    down = rows[:, None] - rows[None]
    right = columns[:, None] - columns[None]
    assert torch.equal(index, 7 * (down + 3) + right + 3)


def test_training_drops_out_as_published():
    with torch.device("meta"):
        branch = QualityBranch()
    for stage in (branch.swintransformer1, branch.swintransformer2):
        rates = [module.drop_prob for module in stage.modules() if isinstance(module, DropPath)]
        assert rates == pytest.approx([0, 0.1 / 3, 0.2 / 3, 0.1])
        assert stage.dropout.p == 0.1
    dropouts = [module.p for module in branch.modules() if isinstance(module, nn.Dropout) and module.p]
    assert dropouts == [0.1] * (4 + 2 + 2)  # attention blocks, Swin stages, heads


def test_training_is_random_and_evaluation_is_not(net):
    stage, x = net.swintransformer2, torch.randn(1, 384, 28, 28)
    trained = copy.deepcopy(stage).train()
    with torch.no_grad():
        assert torch.equal(stage(x), stage(x))
        assert not torch.equal(trained(x), trained(x))
