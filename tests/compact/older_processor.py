"""Scores as on an older processor, in a process of their own, which imports this file alone of the tests."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection

import torch

from pyiqa_ma_agiqa import MAAGIQA
from pyiqa_ma_agiqa.compact.arithmetic import machine

from ..images import batch
from ..passed_by import with_a_short_tower


def scores_with(told: Connection, variables: dict[str, str]) -> None:
    """Tell the scores of two images, together and alone, with variables that hide what the processor has."""
    os.environ.update(variables)  # nothing has been computed yet, so none of them has been read
    torch.set_num_threads(1)
    net, cpu = with_a_short_tower(MAAGIQA()), torch.device("cpu")
    images = batch(2, 301, 233)
    with torch.no_grad():
        scores = net(images).flatten().tolist()
        alone = [net(image[None]).item() for image in images]
    fast = [machine.has_fast_products(cpu), machine.has_fast_convolutions(cpu)]
    capability = torch.backends.cpu.get_cpu_capability()
    told.send({"scores": scores, "alone": alone, "fast": fast, "capability": capability})
