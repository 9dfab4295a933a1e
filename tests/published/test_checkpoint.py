"""The published checkpoint: what is taken, what is refused and how it says so."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from pyiqa_ma_agiqa.errors import WeightsError
from pyiqa_ma_agiqa.published import checkpoint
from pyiqa_ma_agiqa.published.arch import MAAGIQAOwl2
from pyiqa_ma_agiqa.published.checkpoint import (
    check_official_file,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)

from ..published_nets import GOLDEN, constant, light_branch, quick_patch_features

OFFICIAL, USED = checkpoint.official_layout(), checkpoint.used_layout()
SMALL = 20_000


@pytest.fixture(autouse=True)
def short_layout(request, monkeypatch):
    """A layout without the large tensors, so that no check takes a second; `whole_layout` undoes it."""
    if "whole_layout" in request.fixturenames:
        return
    for name, layout in (("official_layout", OFFICIAL), ("used_layout", USED)):
        short = {key: entry for key, entry in layout.items() if torch.Size(entry[0]).numel() < SMALL}
        monkeypatch.setattr(checkpoint, name, lambda short=short: short)


@pytest.fixture
def whole_layout():
    pass


@pytest.fixture
def light_model(whole_layout):
    """The network without its backbone, with random weights."""
    with light_branch(quick_patch_features):
        yield MAAGIQAOwl2(pretrained=False)


INDEX = "swintransformer1.layers.0.blocks.0.attn.relative_position_index"
MASK = "swintransformer2.layers.1.blocks.1.attn_mask"


def thin_state(dtype: torch.dtype = torch.float32, unused: bool = True) -> dict:
    """A state_dict of the published layout that takes next to no space: most tensors repeat one value."""
    state = {}
    for name, (shape, _) in (checkpoint.official_layout() if unused else checkpoint.used_layout()).items():
        fixed = constant(name)
        if fixed is None:
            state[name] = torch.full((), 0.5, dtype=dtype).expand(shape)
        else:
            state[name] = fixed if fixed.dtype == torch.int64 else fixed.to(dtype)
    return state


@pytest.fixture
def file(tmp_path):
    """Writes a state_dict and gives its path."""

    def write(state, name="weights.pth", **options):
        torch.save(state, tmp_path / name, **options)
        return tmp_path / name

    return write


def refusal(call, path) -> str:
    """The message of the error, which must name the file."""
    with pytest.raises(WeightsError) as error:
        call(path)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)


def test_layout_is_the_published_one():
    golden = json.loads((GOLDEN / "agiqa3k_state_dict.json").read_text())
    assert len(golden) == 362
    for name, (shape, dtype) in golden.items():
        assert OFFICIAL[name] == (tuple(shape), "int64" if dtype == "int64" else "float")
    assert OFFICIAL.keys() == golden.keys()


def test_the_network_has_exactly_the_tensors_that_count():
    with torch.device("meta"):
        net = MAAGIQAOwl2(pretrained=False)
    shapes = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    assert shapes == {name: shape for name, (shape, _) in USED.items()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_any_precision_is_read_as_float32(file, dtype):
    state = read_checkpoint(file(thin_state(dtype)))
    assert state.keys() == checkpoint.used_layout().keys()
    for name, tensor in state.items():
        assert tensor.dtype == (torch.int64 if name.endswith("index") else torch.float32)
        assert tensor.is_contiguous()
        assert tensor.flatten()[0] == (constant(name).flatten()[0] if constant(name) is not None else 0.5)


def test_what_was_read_needs_the_file_no_longer(file):
    path = file(thin_state(unused=False))
    state = read_checkpoint(path)
    path.write_bytes(b"")
    assert state["output_fc.bias"].item() == 0.5


def test_files_of_old_pytorch_are_read(file):
    path = file(thin_state(), _use_new_zipfile_serialization=False)
    assert read_checkpoint(path).keys() == checkpoint.used_layout().keys()


def spoilt(change):
    state = thin_state(unused=False)
    change(state)
    return state


CHANGES = {
    "missing gating.bias": lambda state: state.pop("gating.bias"),
    "unexpected vit.blocks.12.norm1.bias": lambda state: state.update(
        {"vit.blocks.12.norm1.bias": torch.zeros(768)}
    ),
    "unexpected module.gating.bias": lambda state: state.update(
        {"module.gating.bias": state.pop("gating.bias")}
    ),
    r"gating.bias has shape \(4,\), not \(3,\)": lambda state: state.update({"gating.bias": torch.zeros(4)}),
    "gating.bias has values that are not finite": lambda state: state.update(
        {"gating.bias": torch.tensor([0.0, torch.nan, 1.0])}
    ),
    "gating.bias is torch.int64, not float": lambda state: state.update(
        {"gating.bias": torch.zeros(3, dtype=torch.int64)}
    ),
    f"{INDEX} is torch.float32, not int64": lambda state: state.update({INDEX: state[INDEX].float()}),
    f"{INDEX} is not that of windows": lambda state: state.update({INDEX: state[INDEX].T.clone()}),
    f"{MASK} is not that of windows": lambda state: state.update({MASK: torch.zeros(49, 16, 16)}),
    "gating.bias is not a dense tensor": lambda state: state.update({"gating.bias": 3.0}),
    "unexpected epoch": lambda state: state.update({"epoch": 30}),
}


@pytest.mark.parametrize("message", CHANGES)
def test_whatever_does_not_fit_is_refused(file, message):
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(file(spoilt(CHANGES[message])))


def test_one_error_lists_the_first_problems_and_counts_the_rest(file):
    def change(state):
        for name in [name for name in state if name.startswith("tablock")]:
            del state[name]
        state["gating.bias"] = torch.zeros(5)

    message = refusal(read_checkpoint, file(spoilt(change)))
    assert message.count("missing tablock") == 8
    assert message.endswith("; and 5 more")  # 12 vectors of the attention blocks and the gate's bias


def test_unused_tensors_may_be_anything(file):
    state = thin_state(unused=False) | {"quality.0.weight": torch.full((2,), torch.nan), "vit.norm.bias": "?"}
    assert read_checkpoint(file(state)).keys() == checkpoint.used_layout().keys()


def test_a_wrapped_state_dict_is_refused(file):
    assert "unexpected state_dict" in refusal(read_checkpoint, file({"state_dict": thin_state()}))
    assert "holds a list" in refusal(read_checkpoint, file([thin_state()]))


@pytest.mark.parametrize("call", [read_checkpoint, check_official_file])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_hold_no_tensors(tmp_path, call, suffix):
    path = tmp_path / f"weights{suffix}"
    assert "no such weights file" in refusal(call, path)
    for content in (b"", b"<!DOCTYPE html><title>Quota exceeded</title>", b"\x80\x04}.", bytes(4096)):
        path.write_bytes(content)
        message = refusal(call, path)
        assert "not a readable checkpoint" in message or "missing" in message
        assert "\n" not in message


@pytest.mark.parametrize("call", [read_checkpoint, check_official_file])
def test_a_folder_is_refused(tmp_path, call):
    assert "is a folder" in refusal(call, tmp_path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_cut_off_is_refused(file, share):
    path = file(thin_state())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "damaged, cut off" in refusal(read_checkpoint, path)


def test_a_safetensors_file_cut_off_is_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"gating.bias": torch.zeros(3)}, path)
    path.write_bytes(path.read_bytes()[:-4])
    assert "damaged, cut off" in refusal(read_checkpoint, path)


class Intruder:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_no_code_of_a_file_is_run(tmp_path, file):
    trace = tmp_path / "trace"
    paths = [file({"gating.bias": Intruder(trace)}), tmp_path / "plain.pth"]
    paths[1].write_bytes(pickle.dumps({"gating.bias": Intruder(trace)}))
    for path in paths:
        assert "not a readable checkpoint" in refusal(read_checkpoint, path)
        assert not trace.exists()


def test_a_refused_file_leaves_the_model_as_it_was(light_model, file):
    before = light_model.gating.bias.clone()
    with pytest.raises(WeightsError):
        light_model.load_weights(file({"gating.bias": before + 1}))
    assert torch.equal(light_model.gating.bias, before)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_go_round_through_a_file(light_model, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    save_checkpoint(light_model, path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode  # others may read it, too
    state = read_checkpoint(path)
    for name, tensor in light_model.state_dict().items():
        assert torch.equal(state[name], tensor), name


def test_loading_into_a_model_with_weights(light_model, published_checkpoint):
    parameter = light_model.gating.weight
    load_checkpoint(light_model, published_checkpoint)
    assert light_model.gating.weight is parameter
    state = torch.load(published_checkpoint, weights_only=True)
    for name, tensor in light_model.state_dict().items():
        assert torch.equal(state[name], tensor), name


def test_a_whole_file_is_read_and_passes(whole_layout, published_checkpoint):
    check_official_file(published_checkpoint)
    net = MAAGIQAOwl2(pretrained_model_path=published_checkpoint, semantic_encoder=None)
    state = torch.load(published_checkpoint, weights_only=True)
    assert net.state_dict().keys() == USED.keys()
    for name, tensor in net.state_dict().items():
        assert torch.equal(state[name], tensor), name


def test_a_default_device_is_not_that_of_a_file(whole_layout, published_checkpoint):
    with torch.device("meta"):
        check_official_file(published_checkpoint)


def test_the_official_file_passes(file):
    check_official_file(file(thin_state()))


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("missing vit.head.bias", lambda state: state.pop("vit.head.bias")),
        ("unexpected more", lambda state: state.update(more=torch.zeros(1))),
        (
            "quality.0.bias has values",
            lambda state: state.update({"quality.0.bias": torch.full((128,), torch.inf)}),
        ),
        ("quality.0.bias has shape", lambda state: state.update({"quality.0.bias": torch.zeros(127)})),
        (f"{INDEX} is not that", lambda state: state.update({INDEX: torch.zeros_like(state[INDEX])})),
    ],
)
def test_what_is_not_the_official_file_is_refused(file, message, change):
    state = thin_state()
    change(state)
    assert message in refusal(check_official_file, file(state))
