"""The benchmarks of the published system, at sizes that take a moment."""

from __future__ import annotations

import argparse
import json
import shutil
import sys

import numpy as np
import pytest
import torch

from benchmarks.published_system import language_model, published_branch, published_tables, random_published
from benchmarks.published_system import published_full_size as full_size

from ..conftest import ROOT
from ..tiny_lmm import tiny_config


def test_full_size_is_the_published_one():
    config = full_size.MPlugOwl2Config(**full_size.FULL.settings)
    shapes = random_published.model_shapes(config)
    sizes = {name: random_published.bytes_of(*entry) for name, entry in shapes.items()}
    assert len(shapes) == 894, "as the manifest says"
    assert sum(sizes.values()) == pytest.approx(16.4e9, rel=0.01)
    parts = random_published.shards(shapes, full_size.FULL.shard_bytes)
    assert [name for part in parts for name in part] == list(shapes)
    largest = [sum(sizes[name] for name in part) for part in parts]
    assert max(largest) <= full_size.FULL.shard_bytes and len(parts) < 15


LIGHT = """
from pyiqa.pyiqa_cmd import main
from tests.published_nets import light_branch, quick_patch_features
with light_branch(quick_patch_features):
    main()
"""
"""pyiqa's command without the backbone of the quality branch, which has tests of its own."""


def test_from_a_file_brought_by_hand_to_a_score(tmp_path, monkeypatch):
    """The whole script, as at full size: weights written, imported, and read by pyiqa's own command."""
    assert full_size.PYIQA[1:] == ["-c", "from pyiqa.pyiqa_cmd import main; main()"]
    monkeypatch.setattr(full_size, "PYIQA", [sys.executable, "-c", LIGHT])
    monkeypatch.chdir(ROOT)
    examples = tmp_path / "examples"
    examples.mkdir()
    for name in ("landscape.png", "landscape_blur.png"):
        shutil.copy(full_size.EXAMPLES / name, examples)
    monkeypatch.setattr(full_size, "EXAMPLES", examples)
    size = full_size.Size(tiny_config(hidden=4096), 10_000_000, thin=True)
    (tmp_path / "work").mkdir()
    full_size.main(["--folder", str(tmp_path / "work"), "--out", str(tmp_path), "--threads", "1"], size)
    result = json.loads((tmp_path / "published_full_size.json").read_text())
    assert result["large_model"]["shards"] > 2
    assert result["checkpoint"]["bytes"] < 10_000_000, "thin"
    score = result["score"]["ma_agiqa_owl2"]
    assert score["images"] == 2 and score["until_the_first_score_seconds"] > 0
    for step in (*result["import"].values(), score):
        assert step["peak_memory_mib"] > 50
    assert not list((tmp_path / "work").iterdir()), "what was written is deleted"


@pytest.mark.parametrize("on_gpu", [False, True])
def test_only_one_of_the_scripts_lets_metrics_see_a_gpu(tmp_path, monkeypatch, on_gpu):
    seen = []

    def run(command, environ):
        seen.append(environ.get("CUDA_VISIBLE_DEVICES"))
        return full_size.Run(1.0, 2.0, "", [])

    def scored(metric, images, environ):
        seen.append(environ.get("CUDA_VISIBLE_DEVICES"))
        spread = {"median": 0.123, "low_quartile": 0.1, "high_quartile": 0.2}
        seconds = {"until_the_first_score_seconds": 3.0, "each_further_score_seconds": spread}
        return seconds | {"peak_memory_mib": 2048.0}

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(full_size, "run", run)
    monkeypatch.setattr(full_size, "scored", scored)
    size = full_size.Size(tiny_config(hidden=32), 10_000_000, thin=True)
    full_size.main(["--folder", str(tmp_path), "--out", str(tmp_path), "--threads", "1"], size, on_gpu)
    assert seen == [None if on_gpu else ""] * 3
    name = "published_full_size_on_gpu.json" if on_gpu else "published_full_size.json"
    result = json.loads((tmp_path / name).read_text()) | {"gpu": "NVIDIA X1"}
    table = published_tables.full_size_on_gpu(result)
    assert table.startswith("| full size on NVIDIA X1, random weights | seconds | peak memory, GiB |")
    assert "each further score | 0.123 |" in table


def test_a_step_that_fails_is_told(tmp_path):
    with pytest.raises(SystemExit, match=r"(?s)exit status 3.*the reason"):
        full_size.run(
            [full_size.sys.executable, "-c", "import sys; sys.stderr.write('the reason'); sys.exit(3)"], {}
        )


def test_progress_is_found_in_pieces():
    run = full_size.Run(
        9.0, 1.0, "", [(1.0, " 0/3 "), (2.0, "| 1"), (3.0, "/3 ["), (4.0, "13/3 "), (5.0, "3/3")]
    )
    assert [run.reached(count, 3) for count in (0, 1, 3)] == [1.0, 3.0, 5.0]
    with pytest.raises(SystemExit, match="no progress of 2/3"):
        run.reached(2, 3)


@pytest.fixture
def tiny(monkeypatch):
    """The benchmark of the language model with a tiny one."""
    monkeypatch.setattr(language_model, "VOCABULARY", random_published.VOCABULARY)
    monkeypatch.setattr(
        language_model,
        "configuration",
        lambda layers: language_model.MPlugOwl2Config(**tiny_config() | {"num_hidden_layers": layers}),
    )


def test_operations_of_the_language_model(tiny, monkeypatch):
    monkeypatch.setattr(language_model, "FULL", 3)
    counted = language_model.operations()
    four, two, ours = (counted[name] for name in ("four passes", "two passes", language_model.OURS))
    vision = counted["of which vision, in each pass"]
    assert four == 2 * two and 2 * vision < two
    assert vision < ours < two
    assert counted["once for all images, the text before the image"] > 0


def test_times_of_the_language_model(tiny):
    result = language_model.on_cpu(layers=2, float32_layers=1, rounds=2)
    assert result["layers"] == 2 and result["vectors_float32"]["layers"] == 1
    assert result["seconds_an_image"].keys() == {*language_model.PASSES, language_model.OURS}
    assert result["vectors_float32"]["relative_difference"] < 1e-5, "both ways give the same vectors"
    assert 0 < result["vectors_bf16"]["relative_difference"] < 0.1
    assert result["vectors_bf16"]["standard_deviation_of_vectors"] > 0


def test_layers_that_fit_in_memory(monkeypatch):
    assert 20 <= language_model.layers_that_fit() <= 32
    monkeypatch.setattr(language_model, "MEMORY", 8e9)
    assert 5 <= language_model.layers_that_fit() < 20


class Stand(torch.nn.Module):
    """Stands in for a model that takes seconds an image."""

    def __init__(self, number=1):
        super().__init__()
        self.number = number

    def forward(self, images, semantic):
        return images.mean((1, 2, 3))[:, None] + semantic.mean() + self.number


def test_difference_of_the_scores_of_both_branches():
    models = {published_branch.OURS: Stand(1), published_branch.LITERAL: Stand(1.1)}
    difference = published_branch.score_difference(models, 2)
    images, semantic = published_branch.inputs(2, 224)
    wanted = (0.1 / models[published_branch.LITERAL](images, semantic).abs()).max().item()
    assert difference == pytest.approx(wanted, rel=1e-3)


def test_times_of_the_branch_by_batch():
    options = argparse.Namespace(batches=[1, 2], side=32, rounds=3)
    result = published_branch.times({name: Stand() for name in published_branch.BUILD}, options)
    assert result.keys() == {"1", "2"}
    for entry in result.values():
        assert entry["seconds_per_image"].keys() == published_branch.BUILD.keys()
        assert np.isfinite(entry["literal_over_ours"]["median"])


def test_memory_of_the_branch(monkeypatch):
    monkeypatch.setitem(published_branch.BUILD, published_branch.OURS, Stand)
    alone = published_branch.alone(published_branch.OURS, 1, 32)
    assert alone.keys() == {"model_mib", "scoring_mib"}
    taken = {
        published_branch.OURS: {"model_mib": 10.0, "scoring_mib": 20.0},
        published_branch.LITERAL: {"model_mib": 15.0, "scoring_mib": 80.0},
    }
    monkeypatch.setattr(published_branch, "in_own_process", lambda name, count, options: taken[name])
    result = published_branch.memory(argparse.Namespace(batches=[1]))
    assert result["1"]["literal_over_ours"] == {"model_mib": 1.5, "scoring_mib": 4.0}
