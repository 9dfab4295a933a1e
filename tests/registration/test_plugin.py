"""The metric inside pyiqa: found by itself, and nothing else of pyiqa changed."""

from __future__ import annotations

import configparser
import copy
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from pyiqa.default_model_configs import DEFAULT_CONFIGS
from pyiqa.models.inference_model import InferenceModel
from pyiqa.utils.registry import ARCH_REGISTRY
from torch import nn
from torch.optim.swa_utils import AveragedModel

import pyiqa_ma_agiqa
from pyiqa_ma_agiqa import InputError, WeightsError
from pyiqa_ma_agiqa.compact.arch import MAAGIQA
from pyiqa_ma_agiqa.input_checks import check_tensor
from pyiqa_ma_agiqa.own_network import OwnReading
from pyiqa_ma_agiqa.published.arch import MAAGIQAOwl2
from pyiqa_ma_agiqa.registration import _startup
from pyiqa_ma_agiqa.registration.configs import ARCHITECTURES, CONFIGS
from pyiqa_ma_agiqa.registration.inference_guard import REPLACEMENTS, guard
from pyiqa_ma_agiqa_entry import PLACES

from ..conftest import ROOT
from ..passed_by import with_a_short_tower

MOST_MODULES = 80
DEEP = (np.arange(32 * 32).reshape(32, 32) * 16).astype(np.uint16)


def fresh(code, *arguments, **variables):
    """What a fresh process prints that imports from the checkout."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_listed_on_the_command_line(monkeypatch, capsys):
    from pyiqa.pyiqa_cmd import main

    monkeypatch.setattr(sys, "argv", ["pyiqa", "-ls"])
    main()
    assert "'ma_agiqa'" in capsys.readouterr().out


def test_entries_have_the_keys_and_types_of_pyiqas():
    theirs = DEFAULT_CONFIGS["musiq"]
    for config in CONFIGS.values():
        assert config.keys() == theirs.keys() | {"lower_better"}
        assert all(type(config[key]) is type(theirs[key]) for key in theirs)


def test_created_by_pyiqa(untrained_metric):
    assert type(untrained_metric) is InferenceModel
    assert type(untrained_metric.net) is MAAGIQA
    assert untrained_metric.metric_mode == "NR"
    assert untrained_metric.lower_better is False
    assert untrained_metric.score_range == "~0, ~5"
    assert ARCH_REGISTRY.get("MAAGIQA") is MAAGIQA is pyiqa_ma_agiqa.MAAGIQA


def test_the_entry_point_names_the_same_places():
    assert {place.rpartition(":")[2]: place for place in PLACES.values()} == ARCHITECTURES
    assert set(PLACES) < set(CONFIGS)


def test_version_is_that_of_the_distribution():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert pyiqa_ma_agiqa.__version__ == setup["metadata"]["version"]


def test_names_of_the_module():
    assert set(pyiqa_ma_agiqa.__all__) <= set(dir(pyiqa_ma_agiqa))
    assert all(hasattr(pyiqa_ma_agiqa, name) for name in pyiqa_ma_agiqa.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pyiqa_ma_agiqa.nothing


def test_import_is_light():
    """Counted in modules, which no load of the machine changes."""
    code = "import sys; before = set(sys.modules); import pyiqa_ma_agiqa; print(*set(sys.modules) - before)"
    imported = fresh(code).split()
    assert {name.split(".")[0] for name in imported} <= {"pyiqa_ma_agiqa", *sys.stdlib_module_names}
    assert "pyiqa_ma_agiqa" in imported and len(imported) < MOST_MODULES


# Scores and errors of metrics of pyiqa, as text, and which of pyiqa's modules it imported.
OTHERS = """
import io, json, sys, warnings, numpy, pyiqa, torch
from PIL import Image
from pyiqa.models.inference_model import InferenceModel
from pyiqa_ma_agiqa.registration.inference_guard import REPLACEMENTS
image = Image.fromarray(numpy.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=numpy.uint8))
deep = Image.fromarray(numpy.linspace(0, 65535, 4096).reshape(64, 64).astype(numpy.uint16))
buffer = io.BytesIO(); image.save(buffer, "PNG"); content = buffer.getvalue()
batch = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
inputs = [image, deep, content, batch, batch[:, :1]]
inputs += [batch * 255, batch[0], batch[:0], content[:3000], "no.png", 7]
metrics = [pyiqa.create_metric(name, device="cpu") for name in ("piqe", "psnr")]
def outcome(call, *args):
    try:
        return str(call(*args))
    except Exception as error:
        return type(error).__name__ + str(error).split(" at 0x")[0]
def outcomes():
    reference = [batch]
    found = [outcome(m, i, *reference[: m.metric_mode == "FR"]) for m in metrics for i in inputs]
    return found + [outcome(m.load_weights, "no.pth") for m in metrics]
guarded = {name: getattr(InferenceModel, name) for name in REPLACEMENTS}
[setattr(InferenceModel, name, method.__wrapped__) for name, method in guarded.items()]
before = outcomes()
[setattr(InferenceModel, name, method) for name, method in guarded.items()]
ours = pyiqa.create_metric("ma_agiqa", pretrained=False, device="cpu")
after = outcomes()
modules = [m for m in sys.modules if m.startswith("pyiqa.archs.") and m.endswith("_arch")]
sys.__stdout__.write("\\n" + json.dumps([before, after, modules, type(ours.net).__name__]))
"""


# The same of a pickled metric: its first error, then its score.
UNPICKLE = """
import json, pickle, sys
metric = pickle.load(open(sys.argv[1], "rb"))
try:
    metric("no.png")
except Exception as error:
    told = f"{type(error).__name__} {error}"
sys.__stdout__.write("\\n" + json.dumps([told, metric(sys.argv[2]).item()]) + "\\n")
"""


@pytest.fixture(scope="module")
def deep_path(tmp_path_factory):
    """A 16-bit grey image, which pyiqa's own reader turns white."""
    path = tmp_path_factory.mktemp("deep") / "deep.png"
    Image.fromarray(DEEP).save(path)
    return str(path)


@pytest.fixture(scope="module")
def in_fresh_process(untrained_metric, deep_path, tmp_path_factory):
    """Of each content of PYIQA_MA_AGIQA_DISABLE, what a process says; it unpickles before anything else."""
    path = tmp_path_factory.mktemp("pickled") / "metric"
    path.write_bytes(pickle.dumps(with_a_short_tower(untrained_metric)))

    def said(code, disabled):
        printed = fresh(code, str(path), deep_path, PYIQA_MA_AGIQA_DISABLE=disabled)
        return [json.loads(line) for line in printed.splitlines() if line.startswith("[")]

    return {"": said(UNPICKLE + OTHERS, ""), "1": said(UNPICKLE, "1")}


@pytest.mark.parametrize("disabled", ["", "1"])
def test_unpickled_in_a_fresh_process(untrained_metric, deep_path, in_fresh_process, disabled):
    error, score = in_fresh_process[disabled][0]
    assert error == "InputError no.png: no such file; check the path"
    assert score == pytest.approx(with_a_short_tower(untrained_metric)(deep_path).item(), abs=1e-5)


@pytest.fixture
def others(in_fresh_process):
    return in_fresh_process[""][1]


def test_other_metrics_behave_as_before(others):
    before, after, *_ = others
    assert before == after
    assert len(set(before)) > 8, "scores and errors should differ among inputs"
    assert not any("InputError" in outcome for outcome in after)


def test_creation_does_not_import_all_architectures(others):
    assert set(others[2]) == {"pyiqa.archs.piqe_arch", "pyiqa.archs.psnr_arch"}


class TestGuard:
    class Theirs:
        net = object()

        def _to_batched_tensor(self, *args, **kwargs):
            return args, kwargs

        def load_weights(self, *args, **kwargs):
            return args, kwargs

    def test_passes_arguments_on_untouched(self):
        model = type("Model", (), dict(vars(self.Theirs)))
        guard(model, CONFIGS)
        for name in ("_to_batched_tensor", "load_weights"):
            argument = object()
            args, kwargs = getattr(model(), name)(argument, 2, key=argument)
            assert args[0] is argument and args[1] == 2 and kwargs == {"key": argument}

    def test_is_safe_to_repeat_and_skips_what_is_missing(self):
        model = type("Model", (), dict(vars(self.Theirs)))
        guard(model, CONFIGS)
        once = dict(vars(model))
        guard(model, CONFIGS)
        assert dict(vars(model)) == once
        assert "is_valid_input" not in once

    def test_is_in_place_once(self):
        for name in REPLACEMENTS:
            method = getattr(InferenceModel, name)
            assert not hasattr(method.__wrapped__, "__wrapped__")
            assert method.__wrapped__.__module__ == InferenceModel.__module__

    def test_a_start_up_file_from_before_an_upgrade_is_made_up_for(self, monkeypatch):
        class Before:
            extends_pyiqa = True

        others = [finder for finder in sys.meta_path if not hasattr(finder, "extends_pyiqa")]
        monkeypatch.setattr(sys, "meta_path", [Before, *others])
        for _ in range(2):
            _startup.install()
            assert sys.meta_path == [_startup.Finder, Before, *others]


class Brightness(OwnReading, nn.Module):
    """A network of ours that is quick to compile: the mean of the image."""

    check_input_range = True

    def forward(self, x):
        return check_tensor(x, check_range=self.check_input_range).mean((1, 2, 3))[:, None]

    def load_weights(self, path):
        raise WeightsError(f"{path} came through")


def compiled(net):
    return torch.compile(net, backend="eager")


WRAPPERS = {
    "none": lambda net: net,
    "subclass": lambda net: type("Network", (type(net),), {})(),
    "parallel": nn.DataParallel,
    "compiled": compiled,
    "both": lambda net: compiled(nn.DataParallel(net)),
    "average": AveragedModel,
}


class TestWrapped:
    @staticmethod
    def metric(untrained_metric, wrap, **settings):
        metric = copy.copy(untrained_metric)
        metric._modules = {}
        metric.net = wrap(Brightness())
        for name, value in settings.items():
            setattr(metric, name, value)
        return metric

    @staticmethod
    def assert_reads(metric, deep_path):
        assert metric(deep_path).item() == pytest.approx(DEEP.mean() / 65535, abs=1e-6)
        with pytest.raises(InputError, match="no such file"):
            metric("no.png")

    @pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
    def test_network(self, untrained_metric, deep_path, wrap):
        metric = self.metric(untrained_metric, wrap, metric_name="named by its owner")
        self.assert_reads(metric, deep_path)
        with pytest.raises(WeightsError, match="no file came through"):
            metric.load_weights("no file")

    @pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
    def test_range_of_a_loss(self, untrained_metric, wrap):
        metric = self.metric(untrained_metric, wrap, as_loss=True, check_input_range=False)
        image = torch.full((1, 3, 16, 16), 1.4, requires_grad=True)
        metric(image).backward()
        assert torch.allclose(image.grad, torch.full_like(image, 1 / image.numel()))

    def test_network_turned_into_something_else(self, untrained_metric, deep_path):
        metric = self.metric(untrained_metric, nn.Sequential)
        self.assert_reads(metric, deep_path)
        with pytest.raises(WeightsError, match="turned into a Sequential takes no weights"):
            metric.load_weights("no file")

    def test_metric_compiled_as_a_whole(self, untrained_metric, deep_path):
        self.assert_reads(compiled(self.metric(untrained_metric, WRAPPERS["none"])), deep_path)

    def test_metric_of_a_subclass_and_copies(self, untrained_metric, deep_path):
        metric = self.metric(untrained_metric, nn.DataParallel, metric_name="named by its owner")
        metric.__class__ = type("Metric", (InferenceModel,), {})
        self.assert_reads(metric, deep_path)
        self.assert_reads(copy.deepcopy(metric), deep_path)

    def test_networks_of_others_are_left_alone(self, untrained_metric, deep_path):
        metric = self.metric(untrained_metric, lambda net: nn.DataParallel(nn.Conv2d(3, 1, 1)))
        metric.metric_name = "theirs"
        with pytest.raises(FileNotFoundError):
            metric("no.png")

    def test_our_networks_take_part(self):
        assert issubclass(MAAGIQA, OwnReading) and issubclass(MAAGIQAOwl2, OwnReading)
