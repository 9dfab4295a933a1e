"""The shipped weights: the manifest's form, the file's hash, and scores that must not drift."""

from __future__ import annotations

import hashlib
import json
import re

import pyiqa
import pytest
import torch
from safetensors import safe_open

from pyiqa_ma_agiqa import WeightsError
from pyiqa_ma_agiqa.compact import shipped
from pyiqa_ma_agiqa.compact.arch import MAAGIQA
from pyiqa_ma_agiqa.registration.configs import CONFIGS
from pyiqa_ma_agiqa.weights.manifest import PACKAGE_WEIGHTS_DIR, load_manifest

from ..conftest import ROOT

FIELDS = {"name": str, "metric_names": list, "sources": list, "licence": str, "origins": list}
SHIPPED = {"bytes": int, "sha256": str, "recipe": dict, "metrics": dict, "example_scores": dict}
UNKNOWN = type(None)
REMOTE = {
    **{"bytes": UNKNOWN, "sha256": UNKNOWN, "sha256_note": str, "approximate_size": str},
    **{"by_hand": str, "layout": str},
}
HUB = {"hub_id": str, "revision": UNKNOWN, "revision_note": str}
WHEEL_LIMIT = 95_000_000


def shipped_entries():
    return [entry for entry in load_manifest()["files"] if entry["bytes"] is not None]


def test_schema():
    manifest = load_manifest()
    assert manifest["version"] == 1
    for entry in manifest["files"]:
        kinds = {name: type(value) for name, value in entry.items()}
        assert kinds in (FIELDS | SHIPPED, FIELDS | REMOTE | {"url": str}, FIELDS | REMOTE | HUB)
        assert all({"what", "licence"} <= set(origin) for origin in entry["origins"])
        assert set(entry["metric_names"]) <= set(CONFIGS)
    assert {name for entry in manifest["files"] for name in entry["metric_names"]} == set(CONFIGS)


@pytest.mark.parametrize("entry", shipped_entries(), ids=lambda entry: entry["name"])
def test_shipped_entries_say_how_they_were_made(entry):
    assert re.fullmatch("[0-9a-f]{64}", entry["sha256"])
    assert {"config", "seed", "trained_at_commit"} <= set(entry["recipe"])
    assert re.fullmatch("[0-9a-f]{40}", entry["recipe"]["trained_at_commit"])


def test_the_manifest_lists_every_shipped_file_with_size_and_hash():
    listed = {entry["name"]: entry for entry in shipped_entries()}
    assert {path.name for path in PACKAGE_WEIGHTS_DIR.glob("*.safetensors")} == set(listed)
    for name, entry in listed.items():
        data = (PACKAGE_WEIGHTS_DIR / name).read_bytes()
        assert len(data) == entry["bytes"]
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]


def test_the_wheel_stays_below_the_limit(wheel):
    assert wheel.stat().st_size <= WHEEL_LIMIT


def test_matrices_are_stored_as_integers():
    with safe_open(shipped.shipped_weights(), framework="pt") as file:
        kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert kinds["encoder.blocks.0.fc1.weight"] == "I8"


@pytest.fixture(scope="module")
def examples():
    return load_manifest()["files"][0]["example_scores"]


def test_example_scores(examples):
    metric = pyiqa.create_metric("ma_agiqa", device="cpu")
    assert len(examples) >= 3
    for name, expected in examples.items():
        assert metric(str(ROOT / name)).item() == pytest.approx(expected, abs=1e-3)


def test_degraded_examples_score_lower(examples):
    clean = examples["examples/landscape.png"]
    assert clean > examples["examples/landscape_blur.png"]
    assert clean > examples["examples/landscape_jpeg.png"]


def test_a_damaged_file_is_refused(monkeypatch, tmp_path):
    data = bytearray((PACKAGE_WEIGHTS_DIR / shipped.NAME).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / shipped.NAME).write_bytes(data)
    monkeypatch.setattr(shipped, "PACKAGE_WEIGHTS_DIR", tmp_path)
    with pytest.raises(WeightsError, match=r"ma_agiqa\.safetensors: damaged"):
        MAAGIQA()
    (tmp_path / shipped.NAME).unlink()
    with pytest.raises(WeightsError, match=r"ma_agiqa\.safetensors.*reinstall"):
        MAAGIQA()


def test_weights_that_do_not_fit_are_named(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file({"something": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match=r"other\.safetensors: does not fit.*missing.*and \d+ more"):
        MAAGIQA(pretrained_model_path=path)
    path.write_bytes(b"PK\x03\x04 a pickle, perhaps")
    with pytest.raises(WeightsError, match=r"other\.safetensors: not a readable safetensors file"):
        MAAGIQA(pretrained_model_path=path)
    with pytest.raises(WeightsError, match="no such weights file"):
        MAAGIQA(pretrained_model_path=tmp_path / "none.safetensors")


def test_the_manifest_is_the_same_text_in_the_wheel(installed):
    code = (
        "import json; from pyiqa_ma_agiqa.weights.manifest import load_manifest; "
        "print(json.dumps(load_manifest()))"
    )
    assert json.loads(installed.run("-c", code).stdout) == load_manifest()
