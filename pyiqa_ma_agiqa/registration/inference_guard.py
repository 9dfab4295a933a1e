"""Our own reading and checks in pyiqa's `InferenceModel`, for our metrics alone.

pyiqa reads files, checks tensors and unpickles weights before a metric's network sees
anything. Its reader turns a 16-bit grey image white (a wrong score), its errors do not name
the broken file, and an empty batch fails inside torch. The network cannot help that, so three
methods of `InferenceModel` are replaced, as soon as pyiqa has defined it, by ones that ask first
whose metric this is: ours takes `input_checks.py`, any other the original method, with the
arguments untouched.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

from ..errors import WeightsError
from ..input_checks import check_tensor, read_tensor
from ..own_network import own_network
from ..uncompiled import uncompiled

GUARDED = "_pyiqa_ma_agiqa_guarded"


def guard(inference_model: type, names: Collection[str]) -> None:
    """Replace the three methods. Safe to repeat.

    Args:
        inference_model: pyiqa's class `InferenceModel`.
        names: metrics that are ours whatever their network has been turned into. Any other is ours
            if its network is an `OwnReading`, wrapped or not.
    """
    for name, replacement in REPLACEMENTS.items():
        original = inference_model.__dict__.get(name)
        if original is not None and not hasattr(original, GUARDED):
            setattr(inference_model, name, _dispatch(original, replacement, names))


def _dispatch(original: Callable, replacement: Callable, names: Collection[str]) -> Callable:
    replacement = uncompiled(replacement)  # the reading of an image cannot be traced

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        ours = getattr(self, "metric_name", None) in names or own_network(self) is not None
        return (replacement if ours else original)(self, *args, **kwargs)

    setattr(method, GUARDED, True)
    return method


def _to_batched_tensor(self: Any, img: Any) -> Any:
    return read_tensor(img)


def _is_valid_input(self: Any, x: Any) -> None:
    # pyiqa checks no range for losses, or where the user turned it off: the network follows.
    network = own_network(self)
    if network is not None:
        network.check_input_range = self.check_input_range
    check_tensor(x, check_range=self.check_input_range)


def _load_weights(self: Any, weights_path: Any, weight_keys: str = "params") -> None:
    network = own_network(self)
    if network is None:
        raise WeightsError(
            f"{weights_path}: a network that was turned into a {type(self.net).__name__} takes no weights; "
            "load them before"
        )
    network.load_weights(weights_path)


REPLACEMENTS: dict[str, Callable] = {
    "_to_batched_tensor": _to_batched_tensor,
    "is_valid_input": _is_valid_input,
    "load_weights": _load_weights,
}
