"""mPLUG-Owl2 as an encoder: its layout, its numbers, its short cuts, its loading."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from pyiqa_ma_agiqa import InputError, WeightsError
from pyiqa_ma_agiqa.mplug_owl2 import MPlugOwl2Config, MPlugOwl2Model
from pyiqa_ma_agiqa.mplug_owl2.language import Multiway
from pyiqa_ma_agiqa.mplug_owl2.loading import load_folder
from pyiqa_ma_agiqa.mplug_owl2.prompts import PROMPTS

from ..command_runs import ask
from ..golden import recipe
from ..tiny_lmm import SIDE, UNUSED, published_state, save_tiny_lmm, tiny_config
from .processes import tell_of_an_ordinary_llama

GOLDEN = Path(__file__).parent.parent / "golden"
PUBLIC = json.loads((GOLDEN / "lmm_public.json").read_text())
SLOT = -200
IMAGE_TOKENS = 9


def close(actual: torch.Tensor, wanted: object, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(wanted), rtol=0, atol=tolerance)


def pixels(count: int, seed: int = 0) -> torch.Tensor:
    values = np.random.RandomState(seed).standard_normal((count, 3, SIDE, SIDE))
    return torch.from_numpy(values).float()


@pytest.fixture(scope="module")
def model():
    """The tiny model of the golden file, weights by its recipe."""
    model = MPlugOwl2Model(MPlugOwl2Config(**PUBLIC["config"])).eval().requires_grad_(False)
    state = model.state_dict()
    model.load_state_dict({name: torch.from_numpy(recipe.fill(name, v.shape)) for name, v in state.items()})
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_lmm(tmp_path_factory.mktemp("lmm") / "tiny")


@pytest.mark.parametrize("case", PUBLIC["cases"], ids=lambda case: f"seed {case['seed']}")
def test_golden(model, case):
    images, ids = pixels(case["n_images"], case["seed"]), torch.tensor(case["input_ids"])
    tower = model.model.vision_model(images)
    assert list(tower.shape) == case["vision_shape"]
    close(tower.mean((1, 2)), case["vision_mean"])
    tokens = model.image_tokens(images)
    assert list(tokens.shape) == case["visual_tokens_shape"]
    close(tokens.mean((1, 2)), case["visual_tokens_mean"])
    close(tokens[:, -1, :8], case["visual_last_token"])
    hidden = model.hidden_states(images, ids)
    assert list(hidden.shape) == case["hidden_shape"]
    close(hidden[:, 0], case["first_token"])
    close(hidden[:, -1], case["last_token"])
    close(model(images, ids), case["semantic"])
    close(model(images, ids.expand(len(images), -1)), case["semantic"])
    close(model.encode(images, [case["input_ids"]])[:, 0], case["semantic"])


def test_prompts_are_those_of_the_paper():
    assert (PUBLIC["prompts"]["semantic_content"], PUBLIC["prompts"]["coherence"]) == PROMPTS


def test_layout_of_the_7b_model():
    layout = json.loads((GOLDEN / "lmm_full_layout.json").read_text())
    for name in ("lm_head.weight", "model.layers.*.self_attn.rotary_emb.inv_freq"):
        del layout[name]
    with torch.device("meta"):
        state = MPlugOwl2Model(MPlugOwl2Config(model_type="mplug_owl2")).state_dict()
    kinds = {name: re.sub(r"layers\.\d+\.", "layers.*.", name) for name in state}
    assert {kinds[name]: list(tensor.shape) for name, tensor in state.items()} == {
        kind: entry["shape"] for kind, entry in layout.items()
    }
    assert Counter(kinds.values()) == {kind: entry["count"] for kind, entry in layout.items()}


def test_the_published_configuration_with_all_its_keys(tmp_path):
    config = MPlugOwl2Config(**tiny_config())
    assert config.visual_model.tokens == 17
    assert config.rope_parameters["rope_theta"] == 10000
    assert config.image_aspect_ratio == UNUSED["image_aspect_ratio"]
    config.save_pretrained(tmp_path)
    again = MPlugOwl2Config.from_pretrained(tmp_path)
    assert again.visual_model == config.visual_model
    assert again.visual_abstractor == config.visual_abstractor


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("visual_model", "hidden_act", "gelu"),
        ("visual_model", "use_post_layernorm", False),
        ("visual_model", "image_size", 70),
        ("visual_model", "num_attention_heads", 5),
        ("visual_abstractor", "add_v2t_pos_emb", True),
        ("visual_abstractor", "encoder_hidden_size", 32),
        ("visual_abstractor", "num_attention_heads", 7),
    ],
)
def test_settings_without_code_are_refused(part, key, value):
    config = tiny_config()
    config["visual_config"] = copy.deepcopy(config["visual_config"])
    config["visual_config"][part][key] = value
    with pytest.raises(WeightsError, match=f"{key}|attention heads"):
        MPlugOwl2Model(MPlugOwl2Config(**config))


# The short cut -------------------------------------------------------------------------------------

texts = st.lists(st.integers(0, 159), max_size=12)


@settings(max_examples=30)
@given(
    prompts=st.lists(st.tuples(st.integers(0, 159), texts, texts), min_size=1, max_size=3),
    count=st.integers(1, 3),
)
def test_encode_is_the_plain_way_for_any_prompts(model, prompts, count):
    images = pixels(count, seed=5)
    ids = [[first, *before, SLOT, *after] for first, before, after in prompts]
    plain = torch.stack([model(images, torch.tensor(prompt)) for prompt in ids], dim=1)
    fast = model.encode(images, ids)
    assert fast.dtype == torch.float32
    close(fast, plain)
    close(torch.cat([model.encode(image[None], ids) for image in images]), fast, 1e-5)


def test_rows_may_have_their_slots_at_different_places(model):
    images = pixels(3)
    ids = torch.tensor([[1, 5, SLOT, 7, 8], [1, SLOT, 5, 7, 8], [1, 9, SLOT, 7, 8]])
    alone = [model(image[None], row) for image, row in zip(images, ids, strict=True)]
    close(model(images, ids), torch.cat(alone), 1e-5)
    close(model(images[:1], torch.tensor([SLOT, 3])), model(images[:1], torch.tensor([[SLOT, 3]])), 0)


def test_text_before_the_image_is_read_once(model):
    model = copy.deepcopy(model)
    ids = [[1, 5, 6, SLOT, 7], [1, 9, SLOT, 7]]
    rows = []
    model.model.embed_tokens.register_forward_hook(
        lambda module, inputs, output: rows.append(inputs[0].shape)
    )
    first = model.encode(pixels(1), ids)
    assert rows == [(2, 3), (2, 1)]
    assert torch.equal(model.encode(pixels(1), ids), first)
    assert rows == [(2, 3), (2, 1), (2, 1)]


def test_no_token_passes_the_weights_of_the_other_kind(model):
    model = copy.deepcopy(model)
    seen: Counter = Counter()
    for module in model.modules():
        if isinstance(module, Multiway):
            for kind, part in zip(("text", "image"), module.multiway, strict=True):
                part.register_forward_hook(
                    lambda module, inputs, output, kind=kind: seen.update({kind: inputs[0][..., 0].numel()})
                )
    switches = sum(isinstance(module, Multiway) for module in model.modules())
    ids = [[1, 5, 6, SLOT, 7, 8], [1, 9, 4, SLOT, 7, 8]]
    model(pixels(2), torch.tensor(ids))
    assert seen == {"text": switches * 2 * 5, "image": switches * 2 * IMAGE_TOKENS}
    seen.clear()
    model.encode(pixels(2), ids)
    assert seen == {"text": switches * (2 * 3 + 4 * 2), "image": switches * 4 * IMAGE_TOKENS}


@pytest.mark.parametrize("how", ["in place", "load", "assign", "dtype there and back", "data"])
def test_kept_text_follows_the_weights(model, how):
    model, ids = copy.deepcopy(model), [[1, 5, 6, SLOT, 7]]
    before = model.encode(pixels(1), ids)
    norm = model.model.norm.weight
    with torch.no_grad():
        if how == "in place":
            norm.mul_(2)
        elif how == "dtype there and back":
            model.bfloat16().float()
        elif how == "data":
            norm.data = 2 * norm.data
        else:
            state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            state["model.norm.weight"] *= 2
            model.load_state_dict(state, assign=how == "assign")
    after = model.encode(pixels(1), ids)
    assert not torch.allclose(before, after, rtol=0, atol=1e-3)
    close(after[:, 0], model(pixels(1), torch.tensor(ids[0])))


def test_positions_stay_exact_in_half_precision(model):
    half = copy.deepcopy(model).bfloat16()
    frequencies = half.model.rotary_emb.inv_freq
    assert torch.equal(frequencies, model.model.rotary_emb.inv_freq)
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize("earlier", ["nothing", "no_grad", "inference_mode"])
def test_gradients_reach_the_pixels(model, earlier):
    model, ids = copy.deepcopy(model), [[1, 5, 6, SLOT, 7], [1, 9, SLOT, 7]]
    if earlier != "nothing":
        with getattr(torch, earlier)():
            model.encode(pixels(1), ids)
    gradients = []
    for way in (
        lambda x: model.encode(x, ids),
        lambda x: torch.stack([model(x, torch.tensor(prompt)) for prompt in ids], dim=1),
    ):
        x = pixels(2).requires_grad_()
        way(x).square().sum().backward()
        assert x.grad.abs().amax((1, 2, 3)).min() > 1e-3
        gradients.append(x.grad)
    close(gradients[0], gradients[1], 1e-3 * gradients[1].abs().max().item())


def test_autocast_changes_nothing(model):
    ids = [[1, 5, 6, SLOT, 7]]
    plain = model.encode(pixels(1), ids)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(copy.deepcopy(model).encode(pixels(1), ids), plain)


@pytest.mark.parametrize(
    ("images", "ids", "said"),
    [
        ((1, 3, SIDE, SIDE), [1, 2], "0 image slots"),
        ((1, 3, SIDE, SIDE), [1, SLOT, SLOT], "2 image slots"),
        ((1, 3, SIDE, SIDE), [1, SLOT, 160], "token id 160"),
        ((1, 3, SIDE, SIDE), [1, SLOT, -1], "token id -1"),
        ((1, 3, SIDE, 70), [1, SLOT], rf"give \(N, 3, {SIDE}, {SIDE}\)"),
        ((0, 3, SIDE, SIDE), [1, SLOT], "pixel_values of shape"),
        ((2, 3, SIDE, SIDE), [[1, SLOT]] * 3, "do not go with 2 images"),
    ],
)
def test_bad_input_is_named(model, images, ids, said):
    with pytest.raises(InputError, match=said):
        model(torch.zeros(images), torch.tensor(ids))
    if not isinstance(ids[0], list):
        with pytest.raises(InputError, match=said):
            model.encode(torch.zeros(images), [ids])


@pytest.mark.parametrize("prompts", [[], [[SLOT, 4]]])
def test_encode_needs_text_before_the_image(model, prompts):
    with pytest.raises(InputError, match="text before"):
        model.encode(pixels(1), prompts)


# Loading -------------------------------------------------------------------------------------------


def vectors(model: MPlugOwl2Model) -> torch.Tensor:
    with torch.no_grad():
        return model.encode(pixels(2, seed=3), [[1, 5, 6, SLOT, 7], [1, 9, SLOT, 7]])


def test_state_of_a_published_file_loads_strictly(model):
    other = MPlugOwl2Model(MPlugOwl2Config(**PUBLIC["config"]))
    other.load_state_dict(published_state(model, torch.float32))
    assert torch.equal(vectors(other.eval()), vectors(model))


def test_from_pretrained_reads_shards_and_safetensors_alike(folder, tmp_path):
    model = MPlugOwl2Model.from_pretrained(folder, dtype=torch.float32)
    assert not model.training
    wanted = vectors(model)
    assert wanted.std() > 0.1
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    save_file(published_state(model, torch.float32), tmp_path / "model.safetensors", {"format": "pt"})
    assert torch.equal(vectors(MPlugOwl2Model.from_pretrained(tmp_path, dtype=torch.float32)), wanted)
    assert torch.equal(vectors(load_folder(tmp_path, torch.float32)), wanted)
    assert torch.equal(vectors(load_folder(folder, torch.float32)), wanted)
    model.save_pretrained(tmp_path / "saved", max_shard_size="200KB")
    assert len(list((tmp_path / "saved").glob("*.safetensors"))) > 1
    assert torch.equal(vectors(MPlugOwl2Model.from_pretrained(tmp_path / "saved")), wanted)


def test_dtype_and_device_map(folder, tmp_path):
    wanted = vectors(MPlugOwl2Model.from_pretrained(folder, dtype=torch.float32))
    as_stored = MPlugOwl2Model.from_pretrained(folder)
    assert as_stored.dtype == torch.float16
    half = MPlugOwl2Model.from_pretrained(folder, dtype=torch.bfloat16, device_map="auto")
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert 1e-5 < (vectors(half) - wanted).norm() / wanted.norm() < 0.03
    places = {"model": "cpu", "model.layers.1": "disk", "model.visual_abstractor": "disk"}
    places |= {f"model.{name}": "cpu" for name in ("layers.0", "layers.2", "norm", "embed_tokens")}
    places |= {"model.vision_model": "cpu", "model.rotary_emb": "cpu"}
    del places["model"]
    split = MPlugOwl2Model.from_pretrained(
        folder, dtype=torch.float32, device_map=places, offload_folder=str(tmp_path)
    )
    assert next(split.model.layers[1].parameters()).is_meta
    close(vectors(split), wanted, 1e-6)


def spoil(folder: Path, copied: Path, change) -> Path:
    """A copy of the folder whose tensors the function has changed, in one file."""
    copied.mkdir()
    (copied / "config.json").write_text((folder / "config.json").read_text())
    state: dict[str, torch.Tensor] = {}
    for shard in folder.glob("*.bin"):
        state |= torch.load(shard, weights_only=True)
    change(state)
    torch.save(state, copied / "pytorch_model.bin")
    return copied


def test_names_and_shapes_that_do_not_fit_are_all_named_at_once(folder, tmp_path):
    def change(state):
        del state["model.norm.weight"]
        state["model.extra.weight"] = torch.zeros(2)
        state["model.embed_tokens.weight"] = torch.zeros(7, 64)

    spoiled = spoil(folder, tmp_path / "spoiled", change)
    for load in (MPlugOwl2Model.from_pretrained, lambda path: load_folder(path, torch.float32)):
        with pytest.raises(WeightsError) as error:
            load(spoiled)
        for part in (
            str(spoiled),
            "missing model.norm.weight",
            "unexpected model.extra.weight",
            "model.embed_tokens.weight has shape (7, 64), not (320, 64)",
        ):
            assert part in str(error.value)


def test_a_folder_without_weights_is_named(folder, tmp_path):
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    for load in (MPlugOwl2Model.from_pretrained, lambda path: load_folder(path, torch.float32)):
        with pytest.raises(WeightsError, match=re.escape(str(tmp_path))):
            load(tmp_path)


# What importing does -------------------------------------------------------------------------------


def test_an_ordinary_llama_is_the_same_beside_it():
    status, (before, after, ours_is_made_of_it) = ask(tell_of_an_ordinary_llama, tiny_config())
    assert status == 0 and ours_is_made_of_it
    assert after == before and len(before[2]) > 10


def test_importing_the_package_imports_no_transformers():
    code = "import sys, pyiqa_ma_agiqa.mplug_owl2; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
