"""Semantic vectors from a folder in the published layout: precisions, devices, batches, memory, errors."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from benchmarks.published_system.random_published import write_model
from pyiqa_ma_agiqa import InputError, WeightsError
from pyiqa_ma_agiqa.mplug_owl2 import MPlugOwl2Model, Owl2Encoder, loading
from pyiqa_ma_agiqa.mplug_owl2.encoder import CHUNK
from pyiqa_ma_agiqa.mplug_owl2.processing import ProcessorSettings, prepare_images
from pyiqa_ma_agiqa.mplug_owl2.prompts import PROMPTS, load_tokenizer, tokenise

from ..command_runs import ask
from ..images import batch
from ..tiny_lmm import save_tiny_lmm, tiny_config
from .processes import tell_memory_of_loading

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="NO GPU AT HAND: GPU checks not run")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_lmm(tmp_path_factory.mktemp("lmm") / "tiny")


@pytest.fixture(scope="module")
def encoder(folder):
    return Owl2Encoder(folder, "fp32", device="cpu")


def distance(vectors: torch.Tensor, wanted: torch.Tensor) -> float:
    """Relative, of the largest of the rows."""
    return ((vectors - wanted).norm(dim=-1) / wanted.norm(dim=-1)).max().item()


def test_vectors_are_those_of_plain_passes(encoder, folder):
    images = batch(2, 90, 130)
    model = MPlugOwl2Model.from_pretrained(folder, dtype=torch.float32)
    values = prepare_images(images, ProcessorSettings.from_folder(folder))
    tokenizer = load_tokenizer(folder)
    content, coherence = (
        model(values, torch.tensor(tokenise(prompt, tokenizer))).detach() for prompt in PROMPTS
    )
    vectors = encoder(images)
    assert vectors.shape == (2, 2, 64)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors, torch.stack([content, coherence], dim=1), rtol=0, atol=1e-5)
    assert "semantic content" in PROMPTS[0]
    assert "coherence" in PROMPTS[1]
    assert distance(content, coherence) > 0.01
    assert distance(vectors[:1], vectors[1:]) > 0.01


def test_batches_larger_than_a_chunk_are_their_images(encoder):
    images = batch(CHUNK + 1, 40, 50)
    alone = torch.cat([encoder(image[None]) for image in images])
    torch.testing.assert_close(encoder(images), alone, rtol=0, atol=1e-5)


def test_gradients_reach_the_pixels_and_no_weight(encoder):
    with torch.inference_mode():
        fresh = copy.deepcopy(encoder)
        fresh(batch(1, 64, 64))
    x = batch(2, 64, 80).requires_grad_()
    fresh(x).square().sum().backward()
    assert (x.grad.abs().amax((1, 2, 3)) > 0).all()
    assert not any(parameter.requires_grad for parameter in fresh._model.parameters())


PRECISIONS = {"fp32": 1e-5, "fp16": 2e-3, "bf16": 0.02, None: 0.02, "8bit": 0.05, "4bit": 0.4}
"""How far each may be from float32 on the tiny model, whose weights are random: 4 bits are hard on it."""


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_precisions_on_a_cpu(encoder, folder, dtype):
    if dtype in ("8bit", "4bit"):
        pytest.importorskip("bitsandbytes", reason="NO BITSANDBYTES AT HAND: 8 and 4 bits not checked")
    images = batch(3, 64, 80)
    other = Owl2Encoder(folder, dtype, device="cpu")
    wanted, vectors = encoder(images), other(images)
    assert other.precision == (dtype or "bf16")
    assert distance(vectors, wanted) < PRECISIONS[dtype]
    if dtype != "fp32":
        assert distance(vectors, wanted) > 1e-6
    vision, language = other._model.model.vision_model, other._model.model.layers
    assert {str(p.dtype) for p in vision.parameters()} <= {"torch.float32", "torch.float16", "torch.bfloat16"}
    stored = {str(module.weight.dtype) for module in language.modules() if hasattr(module, "in_features")}
    kinds = {"8bit": "torch.int8", "4bit": "torch.uint8", "fp32": "torch.float32", "fp16": "torch.float16"}
    assert stored == {kinds.get(other.dtype, "torch.bfloat16")}


@pytest.mark.parametrize(("dtype", "likeness"), [("8bit", 0.98), ("4bit", 0.95)])
def test_gradients_of_quantised_models_are_like_the_others(encoder, folder, dtype, likeness):
    pytest.importorskip("bitsandbytes", reason="NO BITSANDBYTES AT HAND: 8 and 4 bits not checked")
    x = batch(1, 64, 80).requires_grad_()
    quantised = Owl2Encoder(folder, dtype, device="cpu")
    gradients = []
    for model in (encoder, quantised):
        with torch.no_grad():
            vectors = model(x)
        torch.testing.assert_close(model(x).detach(), vectors, rtol=0, atol=0.05)
        gradients.append(torch.autograd.grad(model(x).square().sum(), x)[0].flatten())
    cosine = torch.cosine_similarity(*gradients, dim=0).item()
    assert cosine > likeness, cosine


@pytest.mark.parametrize("dtype", ["8bit", "4bit"])
def test_from_pretrained_quantises_as_transformers_does(folder, dtype):
    pytest.importorskip("bitsandbytes", reason="NO BITSANDBYTES AT HAND: 8 and 4 bits not checked")
    from transformers import BitsAndBytesConfig

    model = MPlugOwl2Model.from_pretrained(
        folder,
        dtype=torch.bfloat16,
        quantization_config=BitsAndBytesConfig(load_in_8bit=dtype == "8bit", load_in_4bit=dtype == "4bit"),
    )
    with torch.no_grad():
        assert model.encode(torch.rand(1, 3, 56, 56), [[1, 5, -200, 6]]).isfinite().all()


def test_a_cpu_warns_of_the_time(folder, caplog):
    with caplog.at_level(logging.WARNING, logger="pyiqa"):
        Owl2Encoder(folder, device="cpu")(batch(1, 32, 32))
    assert "CPU" in caplog.text


@needs_gpu
def test_the_model_follows_the_pixels(folder, encoder):
    images = batch(2, 64, 80)
    moving = Owl2Encoder(folder, "fp32")
    on_gpu = moving(images.cuda())
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), encoder(images), rtol=0, atol=1e-3)
    torch.testing.assert_close(moving(images), encoder(images), rtol=0, atol=1e-5)
    default = Owl2Encoder(folder)
    assert distance(default(images.cuda()).cpu(), encoder(images)) < 0.01
    assert default.precision == "fp16"
    default(images)
    assert default.precision == "bf16"


@pytest.mark.parametrize("dtype", ["8bit", "4bit"])
def test_what_is_quantised_is_another_model_on_another_device(folder, dtype):
    """What is not quantised is in bf16 on a CPU and in fp16 on a GPU; what is cannot be moved."""
    encoder = Owl2Encoder(folder, dtype)
    identities = set()
    for device in ("cpu", "cuda:0"):
        encoder.device = torch.device(device)
        identities.add(encoder.identity)
    assert len(identities) == 2
    loaded = []
    encoder._load = lambda: loaded.append(encoder.device.type) or torch.nn.Linear(1, 1)
    for device in ("cpu", "cpu", "cuda:0", "cuda:0", "cpu"):
        encoder.prepare(torch.device(device))
    assert loaded == ["cpu", "cuda", "cpu"]


def test_threads_share_one_model(folder, monkeypatch):
    encoder, loaded = Owl2Encoder(folder, "fp32", device="cpu"), []
    by_itself = loading.load_folder
    monkeypatch.setattr(loading, "load_folder", lambda *a, **k: loaded.append(1) or by_itself(*a, **k))
    images = batch(4, 40, 50)
    with ThreadPoolExecutor(4) as pool:
        vectors = torch.cat(list(pool.map(encoder, images.split(1))))
    assert len(loaded) == 1
    torch.testing.assert_close(vectors, encoder(images), rtol=0, atol=1e-5)


def test_another_dtype_is_refused(folder):
    with pytest.raises(InputError, match="int3"):
        Owl2Encoder(folder, "int3")


def test_copies_and_pickles_go_without_the_weights(encoder):
    wanted = encoder(batch(1, 40, 40))
    content = pickle.dumps(encoder)
    assert len(content) < 20_000
    for other in (pickle.loads(content), copy.deepcopy(encoder)):
        assert other._model is None
        assert other.identity == encoder.identity
        assert torch.equal(other(batch(1, 40, 40)), wanted)


# Identity ------------------------------------------------------------------------------------------


def identity(folder: Path, dtype: str | None = "fp32") -> str:
    return Owl2Encoder(folder, dtype, device="cpu").identity


def test_identity_differs_wherever_the_vectors_may(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "copy")  # with the times of the files
    first = identity(copied)
    assert first == identity(copied)
    assert first == identity(folder)
    seen = {first, identity(copied, "fp16"), identity(copied, "8bit"), identity(copied, None)}
    assert identity(copied, None) == identity(copied, "bf16")
    os.utime(copied / "pytorch_model-1-of-3.bin", ns=(1, 1))
    seen.add(identity(copied))
    settings = json.loads((copied / "preprocessor_config.json").read_text())
    settings["image_mean"] = [0.5, 0.5, 0.5]
    (copied / "preprocessor_config.json").write_text(json.dumps(settings))
    seen.add(identity(copied))
    (copied / "config.json").write_text((copied / "config.json").read_text().replace("1e-05", "1e-06"))
    seen.add(identity(copied))
    assert len(seen) == 7


def test_identity_of_a_snapshot_of_the_hub_is_its_revision(folder, tmp_path):
    revision = "0123456789abcdef" * 2 + "01234567"
    snapshot = shutil.copytree(folder, tmp_path / "models--x" / "snapshots" / revision)
    first = identity(snapshot)
    assert revision in first
    os.utime(snapshot / "pytorch_model-1-of-3.bin", ns=(1, 1))
    assert identity(snapshot) == first
    assert identity(folder) != first


# Vectors that cannot be used ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "cure"),
    [("fp16", 'too large for fp16: take dtype="fp32"; else'), ("fp32", "; check its weights")],
)
def test_vectors_that_are_not_finite_are_one_error(folder, dtype, cure, monkeypatch):
    encoder = Owl2Encoder(folder, dtype, device="cpu")
    real = MPlugOwl2Model.encode

    def overflowing(self, pixels, prompts):
        vectors = real(self, pixels, prompts)
        vectors[1, 0, 5] = torch.inf
        return vectors

    monkeypatch.setattr(MPlugOwl2Model, "encode", overflowing)
    with pytest.raises(InputError, match="NaN or infinite for 1 of 3 images") as error:
        encoder(batch(3, 32, 32))
    assert str(error.value).startswith(f"{folder}: ") and cure in str(error.value)


# Folders that cannot be used -----------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edited(**changes):
    def edit(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("config.json", Path.unlink, r"config\.json: no such file"),
        ("config.json", cut, r"config\.json: not a configuration"),
        ("config.json", edited(model_type="llama"), r"config\.json: is of model_type 'llama'"),
        ("config.json", edited(vocab_size="many"), r"config\.json: not a configuration"),
        ("config.json", edited(vocab_size=40), r"the tokenizer gives token"),
        ("config.json", edited(num_hidden_layers=4), r"missing model\.layers\.3\."),
        ("tokenizer.model", Path.unlink, r"tokenizer\.model: no such file"),
        ("preprocessor_config.json", Path.unlink, r"preprocessor_config\.json: not readable"),
        ("preprocessor_config.json", edited(size=448, crop_size=448), r"of side 448, but the model reads 56"),
        ("pytorch_model.bin.index.json", Path.unlink, r"neither model\.safetensors nor pytorch_model\.bin"),
        ("pytorch_model.bin.index.json", cut, r"index\.json: not an index"),
        ("pytorch_model-2-of-3.bin", Path.unlink, r"2-of-3\.bin: no such file"),
        ("pytorch_model-2-of-3.bin", cut, r"2-of-3\.bin: not a readable weights file"),
        ("pytorch_model-2-of-3.bin", lambda path: path.write_text("<html>"), r"2-of-3\.bin: not a readable"),
    ],
)
def test_the_file_at_fault_is_named(folder, tmp_path, name, change, said):
    copied = shutil.copytree(folder, tmp_path / "copy")
    change(copied / name)
    with pytest.raises(WeightsError, match=said) as error:
        Owl2Encoder(copied, "fp32", device="cpu")(batch(1, 32, 32))
    assert str(copied) in str(error.value)


def test_a_pickle_that_runs_code_is_not_run(folder, tmp_path):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    copied = shutil.copytree(folder, tmp_path / "copy")
    torch.save({"model.norm.weight": Malicious()}, copied / "pytorch_model-2-of-3.bin")
    with pytest.raises(WeightsError, match=r"2-of-3\.bin"):
        Owl2Encoder(copied, "fp32", device="cpu")(batch(1, 32, 32))
    assert not (tmp_path / "harm").exists()


def test_read_in_their_order_tensors_take_one_opening_of_each_file(folder, monkeypatch):
    stored = loading.stored_tensors(folder, torch.float32)
    opened, by_itself = [], loading._open_bin
    monkeypatch.setattr(loading, "_open_bin", lambda path: opened.append(path) or by_itself(path))
    for tensor in stored.values():
        assert tensor[...].shape == tensor.shape
    assert len(opened) == len(set(opened)) == 3 < len(stored)


# Memory --------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="NO /proc AT HAND: memory not measured")
def test_loading_holds_the_weights_once(folder, tmp_path):
    changes = {"num_hidden_layers": 8, "intermediate_size": 1536, "head_dim": 64}
    large = tmp_path / "large"
    write_model(large, tiny_config(hidden=1024) | changes, shard_bytes=40_000_000)
    assert len(list(large.glob("*.bin"))) > 2
    status, (ratio, size) = ask(tell_memory_of_loading, large, folder)
    assert status == 0
    assert size > 8e7
    assert 0.9 < ratio < 1.3, ratio


def test_the_tiny_folder_is_as_the_published_one(folder):
    index = json.loads((folder / "pytorch_model.bin.index.json").read_text())["weight_map"]
    assert {"lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"} < set(index)
    assert len(set(index.values())) == 3
    assert re.fullmatch(r"pytorch_model-\d-of-3\.bin", index["lm_head.weight"])
    assert json.loads((folder / "config.json").read_text()) == tiny_config()


def test_a_folder_is_checked_to_the_last_value(folder, tmp_path):
    from pyiqa_ma_agiqa.mplug_owl2 import MPlugOwl2Config
    from pyiqa_ma_agiqa.mplug_owl2.checking import check_folder

    config = MPlugOwl2Config(**tiny_config())
    check_folder(folder, config)
    broken = shutil.copytree(folder, tmp_path / "broken")
    shard = sorted(broken.glob("*.bin"))[0]
    state = torch.load(shard, weights_only=True)
    state["model.norm.weight" if "model.norm.weight" in state else next(iter(state))].view(-1)[3] = torch.nan
    torch.save(state, shard)
    with pytest.raises(WeightsError, match="has values that are not finite"):
        check_folder(broken, config)
    with pytest.raises(WeightsError, match="has shape"):
        check_folder(folder, MPlugOwl2Config(**tiny_config(hidden=128)))
