"""What fails on an image is a row; what fails on every image ends the run, and loses nothing."""

from __future__ import annotations

import csv
import gc
import weakref
from pathlib import Path

import pytest
import torch
from pyiqa.default_model_configs import DEFAULT_CONFIGS

from pyiqa_ma_agiqa.command.main import main
from pyiqa_ma_agiqa.comparing.score_sets import _scorer
from pyiqa_ma_agiqa.errors import InputError, PluginError, WeightsError
from pyiqa_ma_agiqa.mplug_owl2.encoder import Owl2Encoder
from pyiqa_ma_agiqa.scoring import scorer as scoring
from pyiqa_ma_agiqa.scoring.failures import image_failure
from pyiqa_ma_agiqa.scoring.inputs.decoding import Decoded
from pyiqa_ma_agiqa.scoring.inputs.limits import Limits
from pyiqa_ma_agiqa.scoring.scorer import Batches, Job, Scorer, own_device

from ..command_runs import make_images, rows_in
from ..published_nets import light_branch, quick_patch_features
from ..tiny_lmm import save_tiny_lmm, without_one_tensor

SCORE = ["score", "images", "--metric", "entropy", "--device", "cpu", "--out", "x.csv"]
EXPLAIN = ["explain", "images/00000.png", "images/00001.png", "--device", "cpu", "--out", "out"]
ASSERT = "CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later"
CPU = torch.device("cpu")
NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
OF_DEVICE = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    torch.AcceleratorError("unspecified launch failure"),
    RuntimeError(ASSERT),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("HIP error: unspecified launch failure"),
    ValueError("wrapped: device-side assert triggered"),
]
OF_IMAGE = [
    NO_MEMORY,
    MemoryError(),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if ..."),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    AssertionError("too small"),
    InputError("sides under 16"),
]


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / "images", 6)


def failing(monkeypatch, owner, name, error, after=0):
    """Have a method fail, from some call on; returns the list of its calls."""
    whole, calls = getattr(owner, name), []

    def method(*args, **kwargs):
        calls.append(args)
        if len(calls) > after:
            raise error
        return whole(*args, **kwargs)

    monkeypatch.setattr(owner, name, method)
    return calls


def the_error(capsys):
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return said


@pytest.mark.parametrize("error", OF_DEVICE, ids=str)
def test_errors_of_the_device(error):
    with pytest.raises(PluginError, match=r"--device cpu: the device failed \("):
        image_failure(error, CPU)


@pytest.mark.parametrize("error", OF_IMAGE, ids=repr)
def test_errors_of_an_image(error):
    assert image_failure(error, CPU)["error"].startswith("the metric failed: ")


def test_a_device_that_is_gone_is_found_out_whatever_the_error_says():
    """The device meta computes nothing, as one that has failed."""
    with pytest.raises(PluginError, match=r"--device meta: the device failed \("):
        image_failure(ValueError("the metric could not do it"), torch.device("meta"))
    assert image_failure(NO_MEMORY, torch.device("meta"))


def test_a_device_that_computes_nothing_is_refused():
    with pytest.raises(InputError, match=r"--device meta: .*; give one that this machine has"):
        own_device("meta")


@pytest.mark.parametrize("batch", ["1", "3"])
@pytest.mark.parametrize("step", ["_parts", "views"])
def test_a_device_that_dies_ends_the_run_and_the_same_command_goes_on(
    images, monkeypatch, capsys, step, batch
):
    words = [*SCORE, "--batch-size", batch]
    assert main([*words[:-3], "whole.csv", *words[-2:]]) == 0
    with monkeypatch.context() as sick:
        failing(sick, Scorer, step, RuntimeError(ASSERT), after=1 if step == "_parts" else 4)
        assert main(words) == 2
    said = the_error(capsys)
    assert "--device cpu: the device failed (CUDA error: device-side assert triggered); check it" in said
    done = rows_in(Path("x.csv.journal"))
    assert 0 < done < 6 and not Path("x.csv").exists()
    assert main(words) == 0
    assert f"going on: {done} of 6" in capsys.readouterr().err
    assert Path("x.csv").read_bytes() == Path("whole.csv").read_bytes()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (WeightsError("w.bin: damaged"), "error: w.bin: damaged"),
        (ImportError("No module named 'x'"), "needs what is not installed (No module named 'x')"),
    ],
)
def test_what_no_image_can_help_ends_the_run(images, monkeypatch, capsys, error, message):
    calls = failing(monkeypatch, Scorer, "_parts", error)
    assert main(SCORE) == 2
    assert message in the_error(capsys) and len(calls) == 1


def test_too_little_memory_for_a_batch_is_no_failure(images, monkeypatch):
    """The images are scored one by one, when nothing of the batch is in memory any more."""
    parts, kept = Scorer._parts, []

    def small(self, stacked):
        gc.disable()  # freed at once, not when Python comes to it
        assert not any(batch() is not None for batch in kept)
        if len(stacked[0]) > 1:
            kept.append(weakref.ref(stacked[0]))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return parts(self, stacked)

    monkeypatch.setattr(Scorer, "_parts", small)
    try:
        assert main([*SCORE, "--batch-size", "3"]) == 0
    finally:
        gc.enable()
    assert len(kept) == 2


def test_an_image_that_does_not_fit_is_a_row(images, monkeypatch, capsys):
    failing(monkeypatch, Scorer, "_parts", NO_MEMORY, after=5)
    assert main(SCORE) == 1
    with open("x.csv", newline="") as file:
        errors = [row["error"] for row in csv.DictReader(file)]
    assert errors == [""] * 5 + ["the metric failed: CUDA out of memory. Tried to allocate 2 GiB"]


def test_an_image_that_does_not_fit_beside_those_that_wait_is_scored_after_them():
    job = Job("entropy", "cpu", 4, False, Limits(10**6, 10**6), 1)
    scorer = Scorer(job)
    batches = Batches(scorer, job)
    views = scorer.views

    def views_beside(pixels):
        if batches.waiting and len(pixels[0, 0]) == 64:
            raise NO_MEMORY
        return views(pixels)

    scorer.views = views_beside
    rows = []
    for number, side in enumerate((32, 32, 64)):
        rows += batches.add(number, Decoded(torch.rand(1, 3, side, side), side, side))
    assert [number for number, _ in rows] == [0, 1]
    rows += batches.rest()
    assert [(number, row["error"]) for number, row in rows] == [(0, ""), (1, ""), (2, "")]


# Weights


@pytest.fixture
def bad_weights(tmp_path, monkeypatch):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(b"junk" * 100)
    monkeypatch.setattr("pyiqa_ma_agiqa.compact.arch.shipped_weights", lambda: path)
    _scorer.cache_clear()
    return path


@pytest.mark.parametrize(
    "words",
    [["score", "images", "--device", "cpu", "--out", "x.csv"], EXPLAIN, ["compare", "images", "images"]],
    ids=lambda words: words[0],
)
def test_damaged_weights_are_one_error(images, bad_weights, capsys, words):
    assert main(words) == 2
    assert f"{bad_weights}: not a readable safetensors file" in the_error(capsys)
    assert not list(Path().glob("x.csv")) and not list(Path().glob("out/*"))


def test_compare_ends_when_its_metric_does(images, monkeypatch, capsys):
    failing(monkeypatch, Scorer, "_parts", RuntimeError(ASSERT), after=3)
    assert main(["compare", "images", "images"]) == 2
    assert "the device failed" in the_error(capsys)


def test_explain_ends_when_its_metric_does_and_not_when_an_image_does(images, monkeypatch, capsys):
    errors = [RuntimeError("too dark\nfor this"), RuntimeError(ASSERT)]

    def broken(pixels, metric):
        raise errors.pop(0)

    monkeypatch.setattr("pyiqa_ma_agiqa.explaining.explanation.explain", broken)
    assert main([*EXPLAIN[:1], "images/00002.png", *EXPLAIN[1:]]) == 2
    first, second = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert first == "error: images/00002.png: the metric failed: too dark"
    assert "the device failed (CUDA error: device-side assert triggered)" in second


@pytest.fixture
def published(tmp_path, monkeypatch):
    """The folder of the tiny large model of a ma_agiqa_owl2 with random experts."""
    folder = save_tiny_lmm(tmp_path / "lmm", hidden=4096)
    options = DEFAULT_CONFIGS["ma_agiqa_owl2"]["metric_opts"]
    monkeypatch.setitem(options, "pretrained", False)
    monkeypatch.setitem(options, "semantic_encoder", folder)
    with light_branch(quick_patch_features):
        yield folder


OWL2 = {
    "score": ["score", "images", "--device", "cpu", "--out", "x.csv", "--metric", "ma_agiqa_owl2"],
    "explain": [*EXPLAIN, "--metric", "ma_agiqa_owl2"],
}


@pytest.mark.parametrize("words", OWL2.values(), ids=OWL2)
def test_a_large_model_that_cannot_be_loaded_is_one_error(images, published, monkeypatch, capsys, words):
    """Not one for each image, each after loading it again."""
    without_one_tensor(published)
    load = Owl2Encoder._load
    loads = []
    monkeypatch.setattr(Owl2Encoder, "_load", lambda self: loads.append(self) or load(self))
    assert main(words) == 2
    assert str(published) in the_error(capsys)
    assert len(loads) == 1 and not Path("x.csv").exists()


def test_too_little_memory_for_the_large_model_is_one_error(images, published, monkeypatch, capsys):
    loads = failing(monkeypatch, Owl2Encoder, "_load", NO_MEMORY)
    assert main(OWL2["score"]) == 2
    assert "--metric ma_agiqa_owl2: cannot be made (CUDA out of memory. Tried" in the_error(capsys)
    assert len(loads) == 1


def test_the_large_model_is_there_before_the_first_image(published):
    job = Job("ma_agiqa_owl2", "cpu", 1, False, Limits(10**6, 10**6), 1)
    encoder = scoring.Scorer(job).metric.net.semantic_encoder
    assert encoder._model is not None and encoder.device == CPU
