"""Functions that `torch.compile` leaves as they are."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch

COMPILER = "torch._dynamo"


def uncompiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.compiler.disable`, put off until the compiler is there: importing that takes seconds."""
    disabled: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def as_it_is(*args: Any, **kwargs: Any) -> Any:
        if COMPILER not in sys.modules:
            return function(*args, **kwargs)
        if not disabled:
            disabled.append(torch.compiler.disable(function))
        return disabled[0](*args, **kwargs)

    return as_it_is
