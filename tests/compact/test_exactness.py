"""The score of an image is the same to the last bit, whatever is scored with it and however."""

from __future__ import annotations

import copy
import pickle
from contextlib import nullcontext
from functools import partial

import pyiqa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyiqa_ma_agiqa.compact import arch
from pyiqa_ma_agiqa.compact.arithmetic import floats, integers, machine
from pyiqa_ma_agiqa.compact.preprocessing import branch_view, encoder_view
from pyiqa_ma_agiqa.compact.storage import save_weights

from ..command_runs import ask
from ..images import batch
from ..passed_by import with_a_short_tower
from .older_processor import scores_with

PARTS = {"score", "gate", "shares", "quality_map", "familiarity", "interval"}
LAYOUTS = {
    "rows": lambda images: images,
    "channels last": lambda images: images.contiguous(memory_format=torch.channels_last),
    "columns": lambda images: images.transpose(2, 3).contiguous().transpose(2, 3),
    "every second": lambda images: images.repeat_interleave(2, 3)[..., ::2],
}

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="NO GPU AT HAND: GPU checks not run")


def parts_of(metric, images: torch.Tensor) -> dict[str, torch.Tensor]:
    return metric.net(images, return_parts=True)


def each_alone(metric, images: torch.Tensor) -> dict[str, torch.Tensor]:
    alone = [parts_of(metric, image[None]) for image in images]
    return {name: torch.cat([parts[name] for parts in alone]) for name in PARTS}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(expected) == PARTS
    for name in PARTS:
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], expected[name]), name


@pytest.fixture
def with_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# Batches, threads, memory


@st.composite
def orders(draw) -> list[int]:
    """Numbers of images in the order of a batch; some may be in it twice."""
    return draw(st.lists(st.integers(0, 2), min_size=1, max_size=3))


@settings(max_examples=10)
@given(
    sides=st.tuples(st.integers(16, 700), st.integers(16, 700)),
    channels=st.sampled_from([1, 3]),
    order=orders(),
    chunk=st.sampled_from([1, 2, 3, 16]),
    threads=st.sampled_from([1, 2, 3, 5, 7]),
    layout=st.sampled_from(sorted(LAYOUTS)),
    precision=st.sampled_from([None, torch.bfloat16, torch.float16]),
)
def test_alone_and_in_any_batch(short_metric, sides, channels, order, chunk, threads, layout, precision):
    images = batch(max(order) + 1, *sides, channels)
    alone = {number: parts_of(short_metric, images[number][None]) for number in set(order)}
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arch, "CHUNK", chunk)
        torch.set_num_threads(threads)
        try:
            with torch.autocast("cpu", precision) if precision else nullcontext():
                together = parts_of(short_metric, LAYOUTS[layout](images[order]))
        finally:
            torch.set_num_threads(before)
    assert together["score"].isfinite().all()
    assert together["score"].unique().numel() == len(set(order))
    assert_same(together, {name: torch.cat([alone[number][name] for number in order]) for name in PARTS})


def test_the_whole_tower_too(metric, with_threads):
    images = batch(2, 200, 300)
    alone = each_alone(metric, images)
    for threads, order in ((1, [1, 0, 1]), (7, [0, 1])):
        with_threads(threads)
        assert_same(parts_of(metric, images[order]), {name: alone[name][order] for name in PARTS})


# Precision of products of floats, which is for the whole process

LOWER = [
    'torch.set_float32_matmul_precision("high")',
    'torch.set_float32_matmul_precision("medium")',
    'torch.set_float32_matmul_precision("medium"); torch.backends.cuda.matmul.allow_tf32 = False',
    "torch.backends.cuda.matmul.allow_tf32 = True",
]
DEVICES = ["cpu", pytest.param("cuda", marks=needs_gpu)]
NEWER_SWITCHES = []
if hasattr(torch.backends, "fp32_precision"):
    of_mkldnn = torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv
    NEWER_SWITCHES = [torch.backends, torch.backends.cuda.matmul, *of_mkldnn]
    LOWER += [
        'torch.backends.cuda.matmul.fp32_precision = "tf32"',
        'torch.backends.mkldnn.matmul.fp32_precision = "bf16"',
        'torch.backends.mkldnn.conv.fp32_precision = "bf16"',
        'torch.backends.fp32_precision = "tf32"',
        'torch.backends.fp32_precision = "bf16"',
    ]


@pytest.fixture(params=LOWER)
def lower(request):
    """Lets products of floats cut their factors; whether they do depends on the processor."""
    exec(request.param)
    yield
    torch.set_float32_matmul_precision("highest")
    for switch in NEWER_SWITCHES:
        switch.fp32_precision = "none"


def precisions() -> list[str]:
    """All that can be read of the switches; the older getters fail where newer ones were used."""
    getters = [
        torch.get_float32_matmul_precision,
        lambda: torch.backends.cuda.matmul.allow_tf32,
        lambda: torch.backends.cudnn.allow_tf32,
        *(partial(getattr, switch, "fp32_precision") for switch in NEWER_SWITCHES),
    ]
    found = []
    for getter in getters:
        try:
            found.append(str(getter()))
        except RuntimeError as error:
            found.append(str(error))
    return found


@pytest.fixture(scope="module", params=DEVICES)
def scored(request, short_metric):
    """The metric on a device, an image, and its score before any switch is used."""
    metric, image = copy.deepcopy(short_metric).to(request.param), batch(1, 97, 251).to(request.param)
    return metric, image, parts_of(metric, image)


def test_lower_precision_of_products_of_floats_changes_no_score(scored, lower, monkeypatch):
    (metric, image, expected), before = scored, precisions()
    assert_same(parts_of(metric, image), expected)
    monkeypatch.setattr(machine, "has_fast_products", lambda device: False)
    monkeypatch.setattr(machine, "has_fast_convolutions", lambda device: False)
    assert_same(parts_of(metric, image), expected)
    assert precisions() == before


@pytest.mark.parametrize("device", DEVICES)
def test_products_of_whole_numbers_keep_all_digits(lower, device):
    generator = torch.Generator().manual_seed(0)
    rows, keys = torch.randint(-511, 512, (2, 3, 290, 64), generator=generator).double()
    shares = (torch.randn(3, 290, 290, generator=generator).double().mul(3).softmax(-1) * 2**15).round()
    values = torch.randint(-255, 256, (3, 290, 64), generator=generator).double()
    for left, right in ((rows, keys.transpose(1, 2)), (shares, values)):
        found = machine.whole_product(left.float().to(device), right.float().to(device))
        assert found.dtype == torch.float32
        assert torch.equal(found.double().cpu(), left @ right)


# Machines

MISSING = [("has_fast_products",), ("has_fast_convolutions",), ("has_fast_products", "has_fast_convolutions")]


@pytest.fixture(scope="module")
def scored_here(short_metric):
    """Images of several sizes, and their scores on this machine."""
    images = [batch(1, *sides) for sides in ((16, 17), (511, 509), (33, 700))] + [batch(2, 97, 251)]
    return [(pair, parts_of(short_metric, pair)) for pair in images]


@pytest.mark.parametrize("missing", MISSING, ids=" and ".join)
def test_without_fast_integers_the_score_is_the_same(short_metric, scored_here, monkeypatch, missing):
    for name in missing:
        monkeypatch.setattr(machine, name, lambda device: False)
    for images, expected in scored_here:
        assert_same(parts_of(short_metric, images), expected)


def test_without_fast_integers_the_whole_tower_says_the_same(metric, monkeypatch):
    images = batch(1, 301, 233)
    expected = parts_of(metric, images)
    monkeypatch.setattr(machine, "has_fast_products", lambda device: False)
    monkeypatch.setattr(machine, "has_fast_convolutions", lambda device: False)
    assert_same(parts_of(metric, images), expected)


@pytest.mark.parametrize(
    ("variables", "tolerance"),
    [({"ONEDNN_MAX_CPU_ISA": "AVX2"}, 1e-3), ({"ATEN_CPU_CAPABILITY": "default"}, 0.05)],
    ids=["narrow products", "other floats"],
)
def test_an_older_processor(short_metric, variables, tolerance):
    """Its products are exact or not chosen; exponentials and normalisation may have other last digits."""
    status, found = ask(scores_with, variables)
    assert status == 0
    print(f"fast products, fast convolutions: {found['fast']}")
    capability = torch.backends.cpu.get_cpu_capability()
    assert found["capability"] == ("DEFAULT" if "ATEN_CPU_CAPABILITY" in variables else capability)
    assert not found["fast"][0] or "ONEDNN_MAX_CPU_ISA" not in variables, "AVX2 has no products of bytes"
    assert found["scores"] == found["alone"]
    here = short_metric(batch(2, 301, 233)).flatten().tolist()
    assert found["scores"] == pytest.approx(here, abs=tolerance)


# Gradients


@pytest.fixture(scope="module")
def loss() -> torch.nn.Module:
    return with_a_short_tower(pyiqa.create_metric("ma_agiqa", as_loss=True, device="cpu"))


def smooth(net, images: torch.Tensor) -> torch.Tensor:
    """The score of the networks without rounding."""
    passes = net.backbone_passes(encoder_view(images), branch_view(images), floats)
    summary, features = passes
    return net.judge(summary, floats.mean(features, (2, 3)), floats).score


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_a_loss_is_the_score_and_slopes_as_its_networks_in_floats(loss, short_metric, precision):
    images = batch(1, 48, 64)
    variable, other = images.clone().requires_grad_(), images.clone().requires_grad_()
    with torch.autocast("cpu", precision) if precision else nullcontext():
        parts = parts_of(loss, variable)
        value = loss(variable)
    assert_same(parts, parts_of(short_metric, images))
    assert value.item() == short_metric(images).mean().item()
    value.backward()
    smooth(loss.net, other).mean().backward()
    torch.testing.assert_close(variable.grad, other.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("sides", [(512, 512), (304, 304), (64, 64)])
def test_pixels_beyond_white_and_black_are_white_and_black(loss, short_metric, sides):
    """A loss may get them; views of the first size are the branch's own, of the second the tower's."""
    images = batch(1, *sides)
    images = images * 1.2 - 0.1
    assert images.min() < 0 and images.max() > 1
    for levels in (integers.image_levels, integers.pixels):
        assert torch.equal(levels(images), levels(images.clamp(0, 1)))
    assert loss(images).item() == pytest.approx(short_metric(images.clamp(0, 1)).item(), abs=0.02)
    variable = images.requires_grad_()
    loss(variable).backward()
    assert variable.grad.isfinite().all() and variable.grad.abs().sum() > 0


def test_every_part_has_a_gradient(loss):
    image = batch(1, 48, 64).requires_grad_()
    for name, part in parts_of(loss, image).items():
        (slope,) = torch.autograd.grad(part.square().sum(), image, retain_graph=True)
        assert slope.isfinite().all() and slope.abs().sum() > 0, name


def test_a_loss_only_computes_a_gradient_that_is_asked_for(loss, short_metric, monkeypatch):
    def refuse(*_):
        raise AssertionError("the steps of a gradient were run")

    image = batch(1, 48, 64)
    variable = image.clone().requires_grad_()
    for name in ("image_levels", "pixels", "convolve", "linear", "dense"):
        monkeypatch.setattr(floats, name, refuse)
    expected = short_metric(image)
    assert torch.equal(parts_of(loss, image)["score"], expected)
    with torch.no_grad():
        assert torch.equal(parts_of(loss, variable)["score"], expected)
    assert torch.equal(short_metric(variable), expected), "pyiqa asks a metric for no gradient"
    with pytest.raises(AssertionError, match="steps of a gradient"):
        loss(variable)


# Copies and other weights


def test_copies_and_pickles(short_metric):
    images = batch(2, 100, 120)
    short_metric = copy.deepcopy(short_metric)
    fresh = len(pickle.dumps(short_metric))
    expected = parts_of(short_metric, images)
    data = pickle.dumps(short_metric)
    assert len(data) == fresh, "what the processor packed is not in it"
    for other in (copy.deepcopy(short_metric), pickle.loads(data)):
        assert_same(parts_of(other, images), expected)
    assert_same(parts_of(short_metric, images), expected)


def random_metric() -> torch.nn.Module:
    torch.manual_seed(3)
    return with_a_short_tower(pyiqa.create_metric("ma_agiqa", device="cpu", pretrained=False))


@pytest.mark.parametrize("made_in", [nullcontext, torch.no_grad, torch.inference_mode])
def test_other_weights_after_a_score(short_metric, tmp_path, made_in):
    """Nothing of the weights before is left, wherever the metric was made and loaded."""
    images = batch(1, 64, 80)
    expected = parts_of(short_metric, images)
    path = tmp_path / "weights.safetensors"
    save_weights(short_metric.net, path)
    with made_in():
        metric = random_metric()
        assert (parts_of(metric, images)["score"] - expected["score"]).abs() > 1e-3
        metric.load_weights(str(path))
        assert_same(parts_of(metric, images), expected)


def test_a_state_goes_round(short_metric):
    images = batch(1, 64, 80)
    expected = parts_of(short_metric, images)
    metric = random_metric()
    before = parts_of(metric, images)
    state, own = short_metric.state_dict(), copy.deepcopy(metric.state_dict())
    metric.load_state_dict(state)
    assert_same(parts_of(metric, images), expected)
    metric.load_state_dict(own)
    assert_same(parts_of(metric, images), before)
    metric.load_state_dict(state, assign=True)
    assert_same(parts_of(metric, images), expected)


def test_one_changed_weight_of_a_convolution_is_seen(short_metric):
    metric, images = copy.deepcopy(short_metric), batch(1, 64, 80)
    before = parts_of(metric, images)
    with torch.no_grad():
        metric.net.branch.project.weight.neg_()
    after = parts_of(metric, images)
    assert not torch.equal(after["score"], before["score"])
    assert_same(parts_of(copy.deepcopy(metric), images), after)


def test_a_move_of_dtype_and_back(short_metric):
    images = batch(1, 64, 80)
    expected = parts_of(short_metric, images)
    moved = copy.deepcopy(short_metric)
    parts_of(moved, images)
    moved.to(torch.float64).to(torch.float32)
    assert_same(parts_of(moved, images), expected)
    weights = [value for value in moved.state_dict().values() if value.dtype == torch.int8]
    assert len(weights) == len([v for v in short_metric.state_dict().values() if v.dtype == torch.int8]) > 50
