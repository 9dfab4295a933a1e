"""Float networks become networks in integers that say nearly the same, and a branch becomes a float one."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from pyiqa_ma_agiqa.compact import quality, semantic
from pyiqa_ma_agiqa.compact.arch import MAAGIQA
from pyiqa_ma_agiqa.compact.arithmetic import floats, integers
from pyiqa_ma_agiqa.compact.arithmetic.layers import QuantisedConvolution, QuantisedLinear
from pyiqa_ma_agiqa.compact.quality import QualityBranch
from pyiqa_ma_agiqa.compact.semantic import SemanticEncoder
from pyiqa_ma_agiqa.training import rounding
from pyiqa_ma_agiqa.training.float_networks import FloatBranch, float_tower, normalised
from pyiqa_ma_agiqa.training.rounding import float_branch, integer_branch, integer_tower

from ..images import batch


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Of two tensors, as a part of the second one."""
    return ((found - expected).norm() / expected.norm()).item()


def exactly(self, matrix: torch.Tensor, bias: torch.Tensor) -> None:
    """In the place of a layer's own `set`: takes the matrix as it is."""
    self.weight, self.scale, self.bias = matrix.float(), torch.ones(len(matrix)), bias.float().clone()


# The tower


TWO = (1, 2)
"""Towers here are of two blocks, summed up after each of them."""


@pytest.fixture
def two_blocks(monkeypatch):
    monkeypatch.setattr(semantic, "DEPTHS", TWO)


of_two_blocks = pytest.mark.usefixtures("two_blocks")


@pytest.fixture(scope="module")
def tower():
    """A float tower of two blocks, whose channels are as uneven as those of a trained one."""
    torch.manual_seed(0)
    tower = float_tower()
    tower.blocks = tower.blocks[:2]
    with torch.no_grad():
        tower.pos_embed.normal_(std=0.3)
        tower.cls_token.normal_()
        for block in tower.blocks:
            for norm in (block.norm1, block.norm2):
                norm.weight.uniform_(0.3, 1.5)
                norm.weight[::97] *= 12
                norm.bias.normal_(std=0.3)
            for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
                layer.weight.normal_(std=0.04)
                layer.bias.normal_(std=0.2)
            for layer in (block.attn.qkv, block.mlp.fc1):
                layer.weight[:, ::97] /= 12
            block.mlp.fc1.weight[::211] *= 8
        tower.norm_pre.weight.uniform_(0.5, 2)
        tower.norm_pre.bias.normal_(std=0.2)
    return tower


@pytest.fixture(scope="module")
def views():
    return [batch(2, 64, 96), batch(2, 64, 64) ** 2]


@pytest.fixture(scope="module")
def encoder(tower, views) -> SemanticEncoder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(semantic, "DEPTHS", TWO)
        return integer_tower(tower, views)


@torch.no_grad()
def summary_of_floats(tower, view: torch.Tensor) -> torch.Tensor:
    """What `SemanticEncoder` gives, from the float tower's own tokens."""
    seen: list[torch.Tensor] = []
    hooks = [block.register_forward_hook(lambda _, __, tokens: seen.append(tokens)) for block in tower.blocks]
    hooks.append(tower.norm_pre.register_forward_hook(lambda _, __, tokens: seen.insert(0, tokens)))
    tower.forward_features(normalised(view))
    for hook in hooks:
        hook.remove()
    return torch.stack(
        [
            torch.stack([before[:, 0], t[:, 0], t[:, 1:].mean(1), t[:, 1:].std(1)], dim=1)
            for before, t in pairwise(seen)
        ],
        dim=1,
    )


@of_two_blocks
@torch.no_grad()
def test_a_tower_in_integers_says_what_the_float_one_says(tower, encoder, views):
    other = batch(3, 80, 64)[2:]
    for view in (views[0], other):
        expected = summary_of_floats(tower, view)
        found, smooth = encoder(view), encoder(view, floats)
        assert found.shape == expected.shape
        for depth in range(2):
            for kind in range(4):
                # Two class tokens, a mean, a deviation.
                assert distance(smooth[:, depth, kind], expected[:, depth, kind]) < 0.03
                assert distance(found[:, depth, kind], expected[:, depth, kind]) < 0.06


@of_two_blocks
@torch.no_grad()
def test_an_exact_matrix_leaves_nothing_but_rounding(tower, views, monkeypatch):
    """Without rounding of weights the steps of a gradient are those of the float tower."""
    monkeypatch.setattr(QuantisedLinear, "set", exactly)
    encoder = integer_tower(tower, views)
    for view in views:
        torch.testing.assert_close(
            encoder(view, floats), summary_of_floats(tower, view), rtol=1e-3, atol=2e-3
        )


@of_two_blocks
@torch.no_grad()
def test_calibration_makes_uneven_channels_even(tower, encoder, views, monkeypatch):
    monkeypatch.setattr(rounding, "_factors", lambda largest, matrix: torch.ones_like(largest))
    plain = integer_tower(tower, views)
    view = batch(3, 80, 64)[2:]
    expected = summary_of_floats(tower, view)
    assert distance(encoder(view), expected) < 0.8 * distance(plain(view), expected)


@of_two_blocks
def test_a_tower_is_the_same_to_the_last_bit_however_its_sums_are_cut(tower, encoder, views):
    """As they are on other machines: here one image after the other, and other threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(threads % 2 + 1)
    again = integer_tower(tower, [one[None] for view in views for one in view])
    torch.set_num_threads(threads)
    for name, value in encoder.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_calibration_leaves_the_float_tower_as_it_was(tower, encoder):
    for module in tower.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    assert all(not buffer.requires_grad for buffer in encoder.state_dict().values())
    assert {name for name, _ in encoder.named_parameters()} == set()


def test_positions_are_as_the_float_tower_resamples_them(tower, encoder):
    from timm.layers import resample_abs_pos_embed

    positions = tower.pos_embed[:, 1:]
    for rows, columns in ((14, 14), (7, 28), (20, 10)):
        expected = resample_abs_pos_embed(
            positions, [rows, columns], num_prefix_tokens=0, interpolation="bicubic", antialias=True
        )
        torch.testing.assert_close(encoder.positions_for(rows, columns), expected[0].detach())


# The quality branch


@pytest.fixture
def same_border(monkeypatch):
    """Around the image the float branch has grey 127.5, the one in integers 128; not so here."""
    monkeypatch.setattr(quality, "MIDDLE", 127.5)


@pytest.fixture(scope="module")
def shipped() -> QualityBranch:
    return MAAGIQA().branch


@pytest.fixture(scope="module")
def of_floats(shipped) -> FloatBranch:
    """A trained branch, with statistics in its normalisations that are not those of a new one."""
    torch.manual_seed(0)
    branch = float_branch(shipped)
    with torch.no_grad():
        for _, norm in branch.layers():
            factor = norm.weight / (norm.running_var + norm.eps).sqrt()
            norm.running_mean.normal_(std=0.3)
            norm.running_var.uniform_(0.5, 2)
            norm.weight.copy_(factor * (norm.running_var + norm.eps).sqrt())
            norm.bias += norm.running_mean * factor
    return branch


@pytest.fixture(scope="module")
def branch_views():
    return [batch(2, 64, 96), batch(2, 96, 64) ** 2]


@pytest.fixture(scope="module")
def of_integers(of_floats, branch_views) -> QualityBranch:
    return integer_branch(of_floats, branch_views)


@torch.no_grad()
def test_a_branch_in_integers_says_what_the_float_one_says(of_floats, of_integers, branch_views):
    for view in (branch_views[0], batch(3, 70, 91)[2:]):
        expected = of_floats(view)
        found, smooth = of_integers(view), of_integers(view, floats)
        assert found.shape == expected.shape
        assert distance(smooth, expected) < 0.25
        assert distance(found, expected) < 0.3
        assert distance(found, smooth) < 0.25
        assert distance(integers.mean(found, (2, 3)), expected.mean((2, 3))) < 0.2


@torch.no_grad()
def test_only_weights_are_rounded_for_a_gradient(of_floats, branch_views, same_border, monkeypatch):
    """Normalisations, steps and centres are folded in: with exact matrices nothing else is left."""
    monkeypatch.setattr(QuantisedConvolution, "set", exactly)
    for view in branch_views:
        exact = integer_branch(of_floats, [view])
        torch.testing.assert_close(exact(view, floats), of_floats(view), rtol=1e-3, atol=2e-3)


@torch.no_grad()
def test_a_branch_in_integers_becomes_the_float_one_it_stands_for(of_integers, same_border):
    again = float_branch(of_integers)
    for sides in ((64, 96), (75, 61)):
        view = batch(2, *sides)
        smooth = of_integers(view, floats)
        assert smooth.shape == (2, 1280, *(-(-side // 32) for side in sides))
        assert smooth.abs().mean() > 0.01
        torch.testing.assert_close(again(view), smooth, rtol=1e-3, atol=2e-3)


@torch.no_grad()
def test_fine_tuning_starts_from_what_the_shipped_branch_says(shipped, same_border):
    view = batch(1, 96, 64)
    torch.testing.assert_close(float_branch(shipped)(view), shipped(view, floats), rtol=1e-3, atol=2e-3)


def test_every_convolution_has_its_counterpart(of_integers, of_floats):
    pairs = list(zip(of_integers.in_order(), of_floats.layers(), strict=True))
    assert len(pairs) == 49
    for layer, (convolution, norm) in pairs:
        assert layer.convolution.weight.shape == convolution.weight.shape
        assert layer.convolution.groups == convolution.groups
        assert (layer.convolution.stride,) * 2 == convolution.stride
        assert layer.convolution.saturates == isinstance(norm.act, nn.ReLU6)
