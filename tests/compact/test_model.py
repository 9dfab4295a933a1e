"""The metric's promises over sizes, channels, batches, precisions and copies."""

from __future__ import annotations

import copy

import numpy as np
import pyiqa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pyiqa_ma_agiqa.compact import arch, preprocessing
from pyiqa_ma_agiqa.compact.arithmetic import floats
from pyiqa_ma_agiqa.compact.familiarity import CLOSES, Familiarity
from pyiqa_ma_agiqa.compact.preprocessing import branch_view, encoder_view

from ..images import batch, picture
from ..passed_by import with_a_short_tower


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 700), (700, 16), (1500, 1100)])
def test_extreme_sizes(short_metric, height, width):
    assert short_metric(batch(1, height, width)).isfinite().all()


def test_batches_larger_than_a_chunk_keep_their_order(short_metric, monkeypatch):
    assert arch.CHUNK == 16
    monkeypatch.setattr(arch, "CHUNK", 2)
    images, at_once = batch(5, 40, 40), []
    handle = short_metric.net.encoder.register_forward_pre_hook(
        lambda _, inputs: at_once.append(len(inputs[0]))
    )
    together = short_metric(images)
    handle.remove()
    assert at_once == [2, 2, 1]
    alone = torch.cat([short_metric(image[None]) for image in images])
    assert alone.unique().numel() == 5
    assert torch.equal(together, alone)


def test_a_second_run_gives_exactly_the_same(short_metric):
    image = batch(1, 200, 300)
    assert torch.equal(short_metric(image), short_metric(image))


def test_gray_is_the_same_as_three_equal_channels(short_metric):
    gray = batch(1, 64, 80, channels=1)
    torch.testing.assert_close(short_metric(gray), short_metric(gray.expand(-1, 3, -1, -1)), rtol=0, atol=0)


def test_path_pillow_and_tensor_agree(short_metric, tmp_path):
    pixels = picture(120, 90)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    scores = [short_metric(str(path)), short_metric(Image.open(path)), short_metric(tensor)]
    assert scores[0] == scores[1] == scores[2]


def test_parts_sum_to_the_score(short_metric):
    images = batch(2, 260, 180)
    parts = short_metric.net(images, return_parts=True)
    assert parts["gate"].shape == parts["shares"].shape == (2, 3)
    assert torch.equal(parts["score"], short_metric(images))
    torch.testing.assert_close(parts["shares"].sum(1, keepdim=True), parts["score"], rtol=0, atol=1e-5)
    torch.testing.assert_close(parts["quality_map"].mean((1, 2)), parts["shares"][:, 2], rtol=0, atol=1e-5)


def seen_by_the_experts(metric, images) -> tuple[torch.Tensor, torch.Tensor]:
    """The tower's summary (N, 6, 4, 768) and mean branch features (N, 1280)."""
    summary, features = metric.net.backbone_passes(encoder_view(images), branch_view(images))
    return summary, features.mean((2, 3))


def test_shares_follow_the_formula(short_metric):
    images = batch(2, 64, 64)
    with torch.no_grad():
        summary, features = seen_by_the_experts(short_metric, images)
        parts, net = short_metric.net(images, return_parts=True), short_metric.net
        late = summary[:, 3:]
        verdicts = [
            net.semantic_expert(late[:, :, :2].flatten(1)),
            net.coherence_expert(late[:, :, 2:].flatten(1)),
            net.quality_expert(torch.cat([features, summary.flatten(1)], 1)),
        ]
        by_hand = parts["gate"] * torch.cat(verdicts, 1) + net.bias / 3
    torch.testing.assert_close(parts["shares"], by_hand, rtol=0, atol=1e-4)
    assert torch.equal(parts["gate"][:, :2], torch.ones(2, 2))


def test_the_gate_closes_on_strangers(metric):
    """Half open at the 95th percentile of known images; u by the formula of the posterior variance."""
    net, images = metric.net, torch.cat([batch(1, 96, 96), torch.rand(1, 3, 96, 96)])
    summary, _ = seen_by_the_experts(metric, images)
    of = net.familiarity
    z = ((summary.flatten(1) - of.centre) * of.scale).double()
    along = z @ of.axes.matrix().double().t()
    strangeness = 1 - (along.square() * of.kept).sum(1) / z.square().sum(1)
    spread = (of.known[75] - of.known[25]).double()
    parts = net(images, return_parts=True)
    expected = torch.sigmoid((of.known[95] - strangeness) / (0.5 * spread))
    torch.testing.assert_close(parts["gate"][:, 2].double(), expected, rtol=0, atol=1e-3)
    rank = (of.known[None] > strangeness[:, None]).double().mean(1)
    torch.testing.assert_close(parts["familiarity"][:, 0].double(), rank, rtol=0, atol=0.011)
    width = parts["interval"][:, 1] - parts["interval"][:, 0]
    base, growth = of.width.double()
    by_hand = 2 * base * torch.exp(growth * (strangeness - of.known[50]) / spread)
    torch.testing.assert_close(width.double(), by_hand, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(parts["interval"].mean(1), parts["score"][:, 0], rtol=0, atol=1e-5)


@given(levels=st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_what_is_stranger_is_less_familiar_has_a_lower_gate_and_a_wider_interval(levels):
    of = Familiarity(8)
    of.known.copy_(torch.linspace(0.3, 0.8, 101))
    of.width.copy_(torch.tensor([0.6, 0.5]))
    strangeness = torch.tensor(sorted(levels)).double()[:, None]
    found = of.likeness(strangeness), of.gate(strangeness), -of.half_width(strangeness)
    for values in found:
        assert (values.diff(dim=0) <= 1e-12).all()
    assert ((found[0] >= 0) & (found[0] <= 1)).all()
    assert of.likeness(torch.tensor([[0.55]]).double()).item() == pytest.approx(0.5, abs=1e-6)


def test_the_map_answers_to_a_local_change(metric):
    image = batch(1, 512, 512)
    spoiled = image.clone()
    spoiled[:, :, 352:, 352:] = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(1))
    change = (
        metric.net(spoiled, return_parts=True)["quality_map"]
        - metric.net(image, return_parts=True)["quality_map"]
    )
    near, far = change[0, 12:, 12:], change[0, :6, :6]  # the tower's part is the same everywhere
    assert near.std() > 2 * far.std()
    assert far.std() > 0


@pytest.fixture(scope="module")
def loss() -> torch.nn.Module:
    return pyiqa.create_metric("ma_agiqa", as_loss=True, device="cpu")


def test_as_loss_gives_finite_gradients(loss):
    for net, size in ((loss, (64, 96)), (with_a_short_tower(loss), (512, 512))):
        image = batch(1, *size).requires_grad_()
        net(image).backward()
        assert image.grad.isfinite().all()
        assert image.grad.abs().sum() > 0


def test_gradient_is_the_slope_of_the_loss(loss, monkeypatch):
    """Central differences of the networks without rounding, whose slopes they are: float64, small views.

    One direction lies along what the encoder's view adds to the gradient, square to what the branch's view
    adds, the other the other way round: of each slope nothing is left without its view.
    """
    monkeypatch.setattr(preprocessing, "ENCODER_SIDE", 112)
    monkeypatch.setattr(preprocessing, "BRANCH_SIDES", (160, 1024))
    image = 0.1 + 0.8 * batch(1, 48, 64)  # off the ends of the range, where slopes have two sides
    loss, step = with_a_short_tower(loss), 1e-4
    loss.net.familiarity.known[CLOSES] = 1.0  # the gate is half open or more, and lets the branch through
    smooth_net = copy.deepcopy(loss.net).double()
    with torch.no_grad():
        smooth_net.bias -= loss(image)  # scores end as float32, which has more digits near zero

    def smooth(images: torch.Tensor) -> float:
        views = encoder_view(images).double(), branch_view(images).double()
        summary, features = smooth_net.backbone_passes(*views, floats)
        return smooth_net.judge(summary, floats.mean(features, (2, 3)), floats).score.item()

    variable, of_encoder = image.clone().requires_grad_(), image.clone().requires_grad_()
    loss(variable).backward()
    loss.net.parts_of_views(encoder_view(of_encoder), branch_view(image), False)["score"].sum().backward()
    added = [of_encoder.grad.double(), (variable.grad - of_encoder.grad).double()]
    for own, other in (added, reversed(added)):
        direction = own - (own * other).sum() / other.square().sum() * other
        direction /= direction.abs().max()
        with torch.no_grad():
            rise = smooth(image + step * direction) - smooth(image - step * direction)
        slope = (variable.grad * direction).sum().item()
        assert slope == pytest.approx(rise / (2 * step), rel=0.03)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(short_metric, dtype):
    images = torch.rand(1, 3, 224, 300, generator=torch.Generator().manual_seed(0))
    expected = short_metric(images)
    with torch.autocast("cpu", dtype):
        got = short_metric(images)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)


def test_train_and_eval_do_not_change_the_batch_statistics(short_metric):
    net = copy.deepcopy(short_metric.net)
    before = {name: value.clone() for name, value in net.named_buffers()}
    net.train()
    net(batch(2, 64, 64))
    assert all(torch.equal(value, before[name]) for name, value in net.named_buffers())


def test_weights_go_round_through_a_file(metric, tmp_path):
    from pyiqa_ma_agiqa.compact.storage import save_weights

    path = tmp_path / "weights.safetensors"
    save_weights(metric.net, path)
    image = batch(1, 90, 90)
    expected = metric(image)
    again = pyiqa.create_metric("ma_agiqa", device="cpu", pretrained_model_path=str(path))
    assert torch.equal(again(image), expected)
    other = pyiqa.create_metric("ma_agiqa", device="cpu", pretrained=False)
    assert (other(image) - expected).abs() > 1e-3
    other.load_weights(str(path))
    assert torch.equal(other(image), expected)


def test_random_weights_need_no_file(monkeypatch):
    def refuse() -> None:
        raise AssertionError("pretrained=False must not look for weights")

    monkeypatch.setattr(arch, "shipped_weights", refuse)
    assert arch.MAAGIQA(pretrained=False)(batch(1, 32, 32)).isfinite().all()


def test_scores_lie_on_the_mos_scale(metric):
    scores = np.array([metric(batch(1, size, size)).item() for size in (64, 300, 512)])
    assert ((scores > -1) & (scores < 6)).all()
