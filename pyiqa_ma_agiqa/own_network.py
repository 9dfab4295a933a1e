"""How a network of ours is told, also inside what others wrap around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module")
"""Where wrappers keep the network: torch.compile; the parallel ones and averages; FSDP."""


class OwnReading:
    """Base of the networks whose metrics read images and weights by this package.

    Attributes:
        check_input_range: whether values must lie in [0, 1].
        load_weights: takes the path of a weights file.
    """

    check_input_range: bool
    load_weights: Callable[[Any], None]

    def prepare(self) -> None:
        """Load what would be loaded at the first image; nothing unless a network says else."""


def own_network(model: Any) -> Any:
    """The network of ours inside a metric, without what wraps it, or None."""
    net = getattr(model, "net", None)
    while isinstance(net, nn.Module) and not isinstance(net, OwnReading):
        net = next((net._modules[name] for name in WRAPPERS if name in net._modules), None)
    return net if isinstance(net, OwnReading) else None
