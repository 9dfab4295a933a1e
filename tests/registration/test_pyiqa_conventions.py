"""What pyiqa's own metric tests ask of each name it lists, asked of ours."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pyiqa
import pytest
import torch

from pyiqa_ma_agiqa.mplug_owl2.encoder import QUANTISED, Owl2Encoder, quantisation
from pyiqa_ma_agiqa.mplug_owl2.loading import load_folder
from pyiqa_ma_agiqa.registration.configs import CONFIGS

from ..images import batch
from ..passed_by import PassedBy
from ..published_nets import light_branch, quick_patch_features

names = pytest.mark.parametrize("name", sorted(CONFIGS))


@pytest.fixture
def create(tiny_owl2):
    """`pyiqa.create_metric`; the published system gets a tiny large model and random experts.

    Its variants differ in the precision of the large model alone, so the quality branch, which takes
    seconds an image, runs for one of them, once, with two of its vision transformer's ten blocks, all alike.
    """

    with ExitStack() as until_the_end:

        def created(name, branch=False, **options):
            if name == "ma_agiqa":
                return pyiqa.create_metric(name, **options)
            if name != "ma_agiqa_owl2" or not branch:
                until_the_end.enter_context(light_branch(quick_patch_features))
            metric = pyiqa.create_metric(name, **tiny_owl2, **options)
            if branch and name == "ma_agiqa_owl2":
                blocks = metric.net.vit.blocks
                for number in {*range(len(blocks))} - {0, 6}:
                    blocks[number] = PassedBy()
            return metric

        yield created


@names
def test_listed_as_no_reference(name):
    assert name in pyiqa.list_models()
    assert name in pyiqa.list_models(metric_mode="NR")
    assert name not in pyiqa.list_models(metric_mode="FR")
    assert name in pyiqa.list_models(filter="ma_*")


@names
def test_forward_on_a_batch(name, create):
    metric = create(name, branch=True, device="cpu")
    assert metric.metric_mode == "NR"
    assert metric.lower_better is False
    low, high = (float(bound.strip(" ~")) for bound in metric.score_range.split(","))
    scores = metric(batch(2, 224, 224))
    assert scores.shape == (2, 1)
    assert np.isfinite(scores.numpy()).all()
    assert not scores.requires_grad
    if name == "ma_agiqa":  # the others have random weights here
        assert low - 1 < scores.min() and scores.max() < high + 1


@names
def test_gradient_backward(name, create):
    metric = create(name, as_loss=True, device="cpu")
    images = batch(1, 224, 224).requires_grad_()
    score = metric(images)
    assert score.dim() == 0
    score.backward()
    assert torch.isnan(images.grad).sum() == 0
    assert images.grad.abs().sum() > 0


@names
@pytest.mark.skipif(not torch.cuda.is_available(), reason="NO GPU AT HAND: CPU/GPU consistency not checked")
def test_cpu_gpu_consistency(name, create):
    waves, noise = batch(2, 224, 224), torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    images = torch.cat([waves, 1 - waves, 0.2 * waves[:1], noise])
    on_cpu = create(name, device="cpu")(images)
    on_gpu = create(name, device="cuda")(images)
    # The large model keeps 8 bits of a number on a CPU (bf16), 11 on a GPU (fp16): with random weights up to
    # a fifth of how far images differ. One in 200 weights quantised otherwise would be four fifths.
    allowed = 1e-3 if name == "ma_agiqa" else 0.4 * (on_cpu.max() - on_cpu.min()).item()
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=0, atol=allowed)


@pytest.mark.parametrize("precision", QUANTISED)
def test_a_cpu_quantises_the_weights_as_a_gpu(tiny_owl2, precision):
    """From the fp16 of the files, although it computes in bf16."""

    def integers(model: torch.nn.Module) -> list[torch.Tensor]:
        return [weight.data for weight in model.parameters() if not weight.is_floating_point()]

    folder = tiny_owl2["semantic_encoder"]
    encoder = Owl2Encoder(folder, precision, device="cpu")
    encoder.prepare(torch.device("cpu"))
    options = {"quantization_config": quantisation(precision, torch.float16)}
    wanted = integers(load_folder(folder, torch.float16, device_map={"": "cpu"}, **options))
    found = integers(encoder._model)
    assert len(found) == len(wanted) > 20
    assert all(map(torch.equal, found, wanted))
    floats = [tensor.dtype for tensor in encoder._model.parameters() if tensor.is_floating_point()]
    assert set(floats) == {torch.bfloat16}


@names
def test_gray_images(name, create):
    metric = create(name, device="cpu")
    assert metric(batch(2, 96, 128, channels=1)).isfinite().all()
