"""Why a metric failed: on one image, which is a row, or by its device or itself, which ends the run."""

from __future__ import annotations

import re

import torch

from ..errors import PluginError, WeightsError
from ..reason import reason
from .columns import Row

_NO_MEMORY = re.compile(
    r"out of memory|(not enough|n.t allocate) memory|cannot allocate|alloc(ation)?_failed", re.IGNORECASE
)
_OF_DEVICE = re.compile(
    r"\b(CUDA|HIP|XPU)( driver| runtime)? error|device-side assert"
    r"|\b(CUDNN|CUBLAS|CUFFT|CUSOLVER|CUSPARSE|MIOPEN|HIPBLAS|ROCBLAS)_\w*"
    r"(EXEC_FAILED|EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR|NOT_INITIALIZED)",
    re.IGNORECASE,
)


def out_of_memory(error: Exception) -> bool:
    """Whether there was too little memory, of the device or of the machine."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))


def image_failure(error: Exception, device: torch.device) -> Row:
    """What a row says of an image on which the metric failed.

    Args:
        error: what the metric raised.
        device: on which it runs.

    Raises:
        PluginError: it is not this image: the weights, a package that is missing, or the device, which
            would fail on all images that follow.
    """
    if isinstance(error, WeightsError):
        raise error
    if isinstance(error, ImportError):
        raise PluginError(f"the metric needs what is not installed ({reason(error)}); install it") from error
    if not out_of_memory(error):
        _check_device(error, device)
    return {"error": f"the metric failed: {reason(error)}"}


def _check_device(error: Exception, device: torch.device) -> None:
    broken: Exception | None = None
    if isinstance(error, getattr(torch, "AcceleratorError", ())) or _OF_DEVICE.search(str(error)):
        broken = error
    elif device.type != "cpu":
        # What a metric makes of the error of its device may not say so.
        try:
            torch.zeros(1, device=device).item()
        except Exception as found:
            broken = None if out_of_memory(found) else found
    if broken:
        raise PluginError(
            f"--device {device}: the device failed ({reason(broken)}); check it, then repeat the command"
        ) from error
