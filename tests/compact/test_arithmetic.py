"""Sums that do not depend on their order, integer products and convolutions, and the steps made of them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pyiqa_ma_agiqa.compact.arch import MAAGIQA
from pyiqa_ma_agiqa.compact.arithmetic import floats, integers, machine
from pyiqa_ma_agiqa.compact.arithmetic.exact import KEPT, exact_linear, exact_mean, exact_sum, rounded
from pyiqa_ma_agiqa.compact.arithmetic.layers import MIDDLE, QuantisedConvolution, QuantisedLinear, quantise

THREADS = (1, 2, 3, 5, 7)
FLOATS = [torch.float32, torch.float64]


@pytest.fixture(params=["as this machine does it", "in floats"])
def path(request, monkeypatch):
    """Both ways of integer products."""
    if request.param == "in floats":
        monkeypatch.setattr(machine, "has_fast_products", lambda device: False)
        monkeypatch.setattr(machine, "has_fast_convolutions", lambda device: False)


@pytest.fixture
def at_each_count_of_threads():
    """What a function gives with several counts of threads."""
    before = torch.get_num_threads()

    def results(function):
        for threads in THREADS:
            torch.set_num_threads(threads)
            yield function()

    yield results
    torch.set_num_threads(before)


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def uneven(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Normal numbers of sizes from 0.001 to 10."""
    values = torch.randn(*shape, generator=seeded(seed), dtype=dtype)
    return values * 10 ** torch.empty(shape, dtype=dtype).uniform_(-3, 1, generator=seeded(seed + 1))


# Sums of floats


@settings(max_examples=40)
@given(
    count=st.integers(1, 700),
    rows=st.integers(1, 5),
    seed=st.integers(0, 999),
    power=st.integers(-20, 20),
    dtype=st.sampled_from(FLOATS),
)
def test_sums_are_close_and_the_same_in_any_order(count, rows, seed, power, dtype):
    values = uneven(rows, count, 3, seed=seed, dtype=dtype) * 10.0**power
    found = exact_sum(values, 1)
    assert found.shape == (rows, 3) and found.dtype == dtype
    for row in range(rows):
        for column in range(3):
            exact = math.fsum(values[row, :, column].tolist())
            largest = values[row, :, column].abs().max().item()
            # Each number is off by half a step at most; the result is rounded twice more.
            bound = largest * count * (count / KEPT[dtype]) + abs(exact) * 4 / KEPT[dtype]
            assert abs(found[row, column].item() - exact) <= bound
    other = torch.randperm(count, generator=seeded(seed))
    assert torch.equal(exact_sum(values[:, other], 1), found)
    assert torch.equal(exact_sum(values[-1:], 1), found[-1:])
    assert torch.equal(exact_sum(values.transpose(1, 2).contiguous(), 2), found)
    assert torch.equal(exact_mean(values, 1), found / count)


def test_sums_over_two_dimensions_and_of_many_numbers(at_each_count_of_threads):
    values = uneven(2, 64, 30, 40)
    shuffled = values.flatten(2)[..., torch.randperm(1200, generator=seeded(2))].reshape(values.shape)
    last = values.contiguous(memory_format=torch.channels_last)
    assert not torch.equal(values.sum((2, 3)), shuffled.sum((2, 3))), "a plain sum would do, too"
    expected = exact_mean(values, (2, 3))
    torch.testing.assert_close(expected.double(), values.double().mean((2, 3)), rtol=0, atol=1e-4)
    for other in (shuffled, last):
        for found in at_each_count_of_threads(lambda other=other: exact_mean(other, (2, 3))):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("count", [3, 197, 5000])
def test_sums_of_large_numbers_of_one_sign(count):
    """They come close to the largest whole number that is kept."""
    values = 1 + torch.rand(40, count, generator=seeded(0)) / 50
    for seed in range(5):
        order = torch.randperm(count, generator=seeded(seed))
        assert torch.equal(exact_sum(values[:, order], 1), exact_sum(values, 1))
        assert torch.equal(exact_sum(values[:, order].double(), 1), exact_sum(values.double(), 1))


def test_nothing_sums_up_to_nothing():
    assert torch.equal(exact_sum(torch.zeros(2, 5), 1), torch.zeros(2))
    one = torch.zeros(3, 9)
    one[1, 4] = 1e-20
    assert exact_sum(one, 1).tolist() == pytest.approx([0, 1e-20, 0], rel=1e-6)


def test_deviation_is_that_of_the_values_in_any_order():
    values = uneven(2, 197, 40)
    found = integers.deviation(values, integers.mean(values, 1), 1)
    torch.testing.assert_close(found, values.double().std(1).float(), rtol=1e-4, atol=0)
    torch.testing.assert_close(floats.deviation(values, floats.mean(values, 1), 1), values.std(1))
    other = values[:, torch.randperm(197, generator=seeded(3))]
    assert torch.equal(integers.deviation(other, integers.mean(other, 1), 1), found)
    assert integers.deviation(torch.ones(1, 5, 2), torch.ones(1, 2), 1).tolist() == [[0, 0]]


def test_whole_multiples():
    values = uneven(4, 50, 6)
    values[2, :, 3] = 0
    for dim, kept in ((1, (4, 1, 6)), (-1, (4, 50, 1)), ((-2, -1), (4, 1, 1))):
        whole, step = rounded(values, 127, dim)
        assert step.shape == kept and whole.shape == values.shape
        assert torch.equal(whole, whole.round()) and whole.abs().max() == 127
        error = (whole * step - values).abs()
        assert (error <= step * 0.501).all()
    assert (rounded(values, 127, 1)[0][2, :, 3] == 0).all()
    assert (rounded(values, 127, -1)[0].abs().amax(-1) == 127).all(), "each row has a step of its own"


def test_linear_maps_of_floats():
    values, weight, bias = uneven(7, 9, 1537), uneven(5, 1537, seed=5), uneven(5, seed=8)
    found = exact_linear(values, weight, bias)
    assert found.dtype == torch.float64 and found.shape == (7, 9, 5)
    exact = F.linear(values.double(), weight.double(), bias.double())
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-9)
    assert torch.equal(exact_linear(values[3:4], weight, bias), found[3:4])
    order = torch.randperm(1537, generator=seeded(4))
    assert torch.equal(exact_linear(values[..., order], weight[:, order], bias), found)
    torch.testing.assert_close(exact_linear(values.double(), weight), exact - bias, rtol=1e-9, atol=1e-9)


# Integer products


@pytest.mark.parametrize("shape", [(1, 64, 8), (3, 768, 40), (197, 768, 2304), (5, 1024, 9), (33, 3072, 72)])
def test_products_of_integers(path, shape):
    rows, length, outputs = shape
    whole = torch.randint(-128, 128, (rows, length), generator=seeded(0))
    weight = torch.randint(-128, 128, (outputs, length), generator=seeded(1))
    found = machine.integer_product(whole.float(), weight.to(torch.int8))
    assert found.dtype == torch.float32
    assert torch.equal(found, (whole @ weight.t()).float())


@pytest.mark.parametrize("extremes", [(-128, -128), (-128, 127), (127, -128), (127, 127)])
@pytest.mark.parametrize("length", [64, 1024, 3072])
def test_products_of_the_largest_integers(path, extremes, length):
    left, right = extremes
    whole, weight = torch.full((17, length), left), torch.full((24, length), right)
    whole[0, 0] = weight[0, 1] = 0
    found = machine.integer_product(whole.float(), weight.to(torch.int8))
    assert torch.equal(found, (whole @ weight.t()).float())


def test_products_beyond_what_floats_hold(path):
    """Sums of 3072 large products of one sign pass 2^24 on their way, and are rounded at the end alone."""
    whole = torch.randint(101, 128, (64, 3072), generator=seeded(0))
    weight = torch.randint(101, 128, (32, 3072), generator=seeded(1))
    found = machine.integer_product(whole.float(), weight.to(torch.int8))
    assert torch.equal(found, (whole @ weight.t()).float())


def test_linear_maps_in_integers(path):
    layer = QuantisedLinear(768, 24)
    matrix, bias = uneven(24, 768), uneven(24, seed=4)
    layer.set(matrix, bias)
    values = uneven(2, 5, 768, seed=9)
    whole, step = rounded(values, 127, -1)
    exact = (whole.long() @ layer.weight.long().t()).double() * step.double() * layer.scale.double() + bias
    torch.testing.assert_close(integers.linear(layer, values).double(), exact, rtol=1e-6, atol=1e-6)
    near = F.linear(values, matrix, bias)
    assert (integers.linear(layer, values) - near).norm() < 0.05 * near.norm()
    torch.testing.assert_close(floats.linear(layer, values), F.linear(values, layer.matrix(), bias))
    assert torch.equal(integers.linear(layer, values[1:]), integers.linear(layer, values)[1:])

    levels = torch.randint(0, 256, (2, 5, 768), generator=seeded(3)).float()
    exact = ((levels.long() - MIDDLE) @ layer.weight.long().t()).float() * layer.scale + bias
    assert torch.equal(integers.linear_of_levels(layer, levels), exact)
    torch.testing.assert_close(floats.linear_of_levels(layer, levels), exact, rtol=1e-4, atol=1e-3)


# Convolutions

LAYERS = {
    "stem": (3, 32, 3, 2, 1),
    "pointwise": (40, 240, 1, 1, 1),
    "deep pointwise": (1152, 320, 1, 1, 1),
    "depthwise": (96, 96, 3, 1, 96),
    "depthwise, half": (96, 96, 3, 2, 96),
    "wide depthwise": (144, 144, 5, 1, 144),
    "wide depthwise, half": (144, 144, 5, 2, 144),
}
"""Inputs, outputs, side, stride, groups."""


def layer_of(kind: str, saturates: bool) -> QuantisedConvolution:
    inputs, outputs, side, stride, groups = LAYERS[kind]
    layer = QuantisedConvolution(inputs, outputs, saturates, side, stride, groups)
    many = inputs // groups * side**2
    matrix = torch.randn(outputs, inputs // groups, side, side, generator=seeded(0)) / math.sqrt(many)
    bias = 200 * torch.randn(outputs, generator=seeded(1)) + 60
    bias[0], bias[1] = 9000, -9000
    layer.set(matrix, bias)
    return layer


def reference(layer: QuantisedConvolution, levels: torch.Tensor, outside: int) -> torch.Tensor:
    """The convolution in float64, where all of its sums are exact."""
    height, width = levels.shape[2:]
    rows, columns = (math.ceil(size / layer.stride) for size in (height, width))
    down = max((rows - 1) * layer.stride + layer.side - height, 0)
    across = max((columns - 1) * layer.stride + layer.side - width, 0)
    pads = (across // 2, across - across // 2, down // 2, down - down // 2)
    padded = F.pad(levels.double(), pads, value=outside)
    sums = F.conv2d(padded, layer.weight.double(), None, layer.stride, 0, 1, layer.groups)
    assert sums.shape[2:] == (rows, columns)
    scale, bias = layer.scale.view(-1, 1, 1), layer.bias.view(-1, 1, 1)
    if layer.saturates:
        return (sums * scale.double() + bias.double()).round().clamp(0, 255)
    return sums.float() * scale + bias


@pytest.mark.parametrize("saturates", [True, False], ids=["levels", "values"])
@pytest.mark.parametrize("kind", LAYERS)
def test_convolutions(path, kind, saturates):
    layer, outside = layer_of(kind, saturates), MIDDLE if kind == "stem" else 0
    for sides in ((9, 14), (1, 7), (16, 5), (2, 3)):
        levels = torch.randint(0, 256, (2, LAYERS[kind][0], *sides), generator=seeded(2)).float()
        held = integers.image_levels(levels / 255)
        assert torch.equal(held.float(), levels)
        found, expected = integers.convolve(layer, held, outside), reference(layer, levels, outside)
        assert torch.equal(found.double(), expected.double())
        if saturates:
            assert (found[:, 0] == 255).all() and (found[:, 1] == 0).all()
            assert ((found[:, 2:] > 0) & (found[:, 2:] < 255)).any()
        smooth = floats.convolve(layer, levels, outside)
        assert (smooth - expected).abs().max() <= (0.501 if saturates else 0.05)


@pytest.mark.parametrize("kind", LAYERS)
def test_convolutions_of_the_largest_levels(path, kind):
    inputs = LAYERS[kind][0]
    for saturates, value in ((True, 0.001), (True, -0.001), (False, 1.0), (False, -1.0)):
        layer = layer_of(kind, saturates)
        matrix = torch.full_like(layer.matrix(), value)
        matrix[:, 500:] = 0  # more would be refused
        layer.set(matrix, torch.full_like(layer.bias, 100))
        levels = torch.full((1, inputs, 6, 7), 255.0)
        found = integers.convolve(layer, integers.image_levels(levels / 255))
        assert torch.equal(found.double(), reference(layer, levels, 0).double())


@pytest.mark.parametrize("groups", [1, 64])
def test_halves_are_rounded_to_even_levels(path, groups):
    side = 1 if groups == 1 else 3
    layer = QuantisedConvolution(64, 64, True, side, groups=groups)
    layer.weight = torch.zeros_like(layer.weight)
    for channel in range(64):
        layer.weight[channel, channel if groups == 1 else 0, side // 2, side // 2] = 1
    layer.scale, layer.bias = torch.full((64,), 0.5), torch.zeros(64)
    levels = torch.arange(256.0).repeat(64).reshape(1, 64, 16, 16)
    expected = torch.tensor([round(level / 2) for level in range(256)]).repeat(64)
    assert torch.equal(integers.convolve(layer, integers.image_levels(levels / 255)).flatten(), expected)


def test_levels_of_values(path):
    values, factor = uneven(2, 6, 5, 7) * 20, torch.tensor([16.0, 1, 0.5, 100, 3, 0.01])
    found = integers.levels(values, factor)
    scaled = (values * factor.view(-1, 1, 1)).round() + 128
    assert torch.equal(found.float(), scaled.clamp(0, 255)) and (scaled < 0).any() and (scaled > 255).any()
    torch.testing.assert_close(floats.levels(values, factor), values * factor.view(-1, 1, 1) + 128)
    step = torch.arange(1.0, 7)
    assert torch.equal(integers.features(found, step), found.float() * step.view(-1, 1, 1))


def test_sums_that_could_be_too_large_are_refused():
    layer = QuantisedConvolution(1024, 2, False)
    with pytest.raises(ValueError, match=r"could pass 2\^24"):
        layer.set(torch.ones(2, 1024, 1, 1), torch.zeros(2))


def test_quantised_matrices():
    matrix = uneven(6, 5, 3, 3)
    matrix[2] = 0
    whole, scale = quantise(matrix)
    assert whole.dtype == torch.int8 and whole.shape == matrix.shape and scale.shape == (6,)
    assert (whole.flatten(1).abs().amax(1)[[0, 1, 3, 4, 5]] == 127).all() and (whole[2] == 0).all()
    assert ((whole.float() * scale.view(-1, 1, 1, 1) - matrix).abs() <= scale.view(-1, 1, 1, 1) * 0.501).all()


def odd_part(number: float) -> int:
    """What is left of a float without its powers of two: how many digits it has."""
    numerator = number.as_integer_ratio()[0]
    return numerator // (numerator & -numerator) if numerator else 0


def test_the_shipped_convolutions_sum_exactly():
    """No sum of theirs passes 2^24 of its last digit, so every way to add them up gives the same."""
    convolutions = [m for m in MAAGIQA().branch.modules() if isinstance(m, QuantisedConvolution)]
    assert len(convolutions) == 49
    for layer in convolutions:
        sums = (255 * layer.weight.double().abs().flatten(1).sum(1)).tolist()
        for reach, scale, bias in zip(sums, layer.scale.tolist(), layer.bias.tolist(), strict=True):
            digits = odd_part(scale) if layer.saturates else 1
            many = bias / scale if layer.saturates else 0.0
            assert many == int(many), "the bias is a whole multiple of the scale"
            assert (reach + abs(many)) * digits < 2**24


# Steps that stay float


def test_attention_is_that_of_floats(at_each_count_of_threads):
    query_key_value = torch.randn(3, 50, 3, 12, 64, generator=seeded(0))
    query_key_value[1] *= 5
    found = integers.attend(query_key_value)
    expected = floats.attend(query_key_value)
    assert found.shape == expected.shape == (3, 50, 768)
    for image, size in ((0, 0.01), (1, 0.05), (2, 0.01)):
        assert (found[image] - expected[image]).norm() < size * expected[image].norm()
    for other in at_each_count_of_threads(lambda: integers.attend(query_key_value[[2, 1]])):
        assert torch.equal(other, found[[2, 1]])


def test_attention_adds_up_all_probabilities():
    """Equal keys: the mean of the values."""
    query_key_value = torch.randn(1, 197, 3, 12, 64, generator=seeded(0))
    query_key_value[:, :, 1] = 1
    mean = query_key_value[:, :, 2].mean(1).flatten(1)
    torch.testing.assert_close(integers.attend(query_key_value)[:, 5], mean, rtol=0, atol=0.01)


def test_silu_is_the_same_at_any_place(at_each_count_of_threads):
    """Also where threads divide what one of them computes as a whole."""
    values = uneven(197, 3072)
    expected = torch.cat([F.silu(row) for row in values.double()]).float().view_as(values)
    first = integers.silu(values.clone())
    torch.testing.assert_close(first, expected, rtol=1e-5, atol=1e-7)
    for start in (0, 1, 150):
        for found in at_each_count_of_threads(lambda start=start: integers.silu(values[start:].clone())):
            assert torch.equal(found, first[start:])
    unaligned = torch.empty(values.numel() + 3)[3:].view_as(values).copy_(values)
    assert torch.equal(integers.silu(unaligned), first)
    assert torch.equal(integers.silu(values[4].clone()), first[4])


@pytest.mark.parametrize("scores", [1, 60, 50**2, 5 * 50**2, 10**6])
def test_attention_is_the_same_in_any_blocks(monkeypatch, scores):
    query_key_value = torch.randn(2, 50, 3, 12, 64, generator=seeded(0))
    expected = integers.attend(query_key_value)
    monkeypatch.setattr(integers, "SCORES", scores)
    assert torch.equal(integers.attend(query_key_value), expected)


@pytest.mark.parametrize("rows", [1, 3, 7, 1000])
def test_rows_in_pieces(path, monkeypatch, rows):
    first, second, seen = uneven(2, 11, 4), uneven(2, 11, 4, seed=5), []

    def steps(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        seen.append(len(one))
        return (one * other).sum(-1, keepdim=True)

    monkeypatch.setattr(integers, "ROWS", rows)
    found = integers.in_pieces(steps, first, second)
    assert torch.equal(found, (first * second).sum(-1, keepdim=True))
    assert sum(seen) == 22
    if not machine.gains_by_pieces(first.device) or rows == 1000:
        assert seen == [22]
    elif torch.get_num_threads() == rows == 1:
        assert seen == [1] * 22


def test_sums_of_attention_stay_exact():
    width, tokens = 64, 1000
    assert width * integers.QUERY_KEY**2 < 2**24
    # Probabilities sum up to 1; each may be rounded up by a half.
    assert (integers.PROBABILITY + tokens / 2) * integers.VALUE < 2**24
