"""Which products of integers this machine does quickly; the one place that calls PyTorch's own for them.

PyTorch has fast products of 8-bit integers for some machines, under names that are not public. Where
they are missing, slow or not exact, the same integers are multiplied as floats, which hold every whole
number up to 2^24. Both ways give the same integers.
"""

from __future__ import annotations

import functools

import torch
from torch.nn import functional as F

FEW = 16
"""`torch._int_mm` refuses so few rows on a GPU."""
EXACT_LENGTH = 1024
"""Products of this many integers of 8 bits sum up to less than 2^24."""
LARGEST_KEPT = 2**25 - 2**16
"""Bytes of the largest block that glibc learns from, less what it needs itself."""


def cuts_floats(device: torch.device) -> bool:
    """Whether the process lets products of floats cut their factors to 11 bits (TF32) or 8 (bfloat16)."""
    backend = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    try:
        # The older getter fails once this switch, of PyTorch 2.9, is used.
        return backend.matmul.fp32_precision not in ("none", "ieee")
    except AttributeError:
        return torch.get_float32_matmul_precision() != "highest"


def whole_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Product of whole numbers of up to 16 and 10 bits, held as floats, whose sums stay below 2^24.

    Exact whatever precision the process allows. Its switches stay as they are: they are for all threads.
    """
    if not cuts_floats(left.device):
        return left @ right
    if left.device.type == "cpu":
        return (left.double() @ right.double()).float()
    # Most GPUs are slow at float64; halves of 8 bits and the right side fit TF32.
    high = (left / 256).round_().mul_(256)
    return (high @ right).add_((left - high) @ right)


@functools.cache
def keep_freed_memory() -> None:
    """Have the C library keep what a score has freed for the next step, instead of giving it back at once.

    Else the system hands out the same memory anew, page by page, at nearly every step: up to a third of a
    score's time on Linux. Its library (glibc) learns from the largest block that is freed, up to 32 MiB, how
    much to keep; this one is never written to. Elsewhere it does nothing.
    """
    torch.empty(LARGEST_KEPT, dtype=torch.uint8)


@functools.cache
def has_fast_products(device: torch.device) -> bool:
    """Whether `torch._int_mm` is to be used: it must be there, exact and not a slow stand-in."""
    if device.type == "cpu" and not _multiplies_bytes():
        return False
    return device.type in ("cpu", "cuda") and _is_exact_product(device)


@functools.cache
def has_fast_convolutions(device: torch.device) -> bool:
    """Whether oneDNN's convolutions of unsigned by signed bytes are to be used: on CPUs alone."""
    return device.type == "cpu" and _multiplies_bytes() and _is_exact_convolution()


@functools.cache
def gains_by_packing(device: torch.device) -> bool:
    """Whether products gain by weights that are packed: by much where the processor has AMX."""
    if not has_fast_products(device) or device.type != "cpu":
        return False
    return processor_has("amx_int8") and _is_exact_packed_product()


def gains_by_pieces(device: torch.device) -> bool:
    """Whether rows that pass a chain of steps together should be few enough for the processor's caches.

    Where floats multiply, each piece would make floats of the whole weight anew.
    """
    return device.type == "cpu" and has_fast_products(device)


def _multiplies_bytes() -> bool:
    """Whether the processor has instructions for it (VNNI); without them oneDNN saturates, or is slow."""
    return processor_has("avx512_vnni", "avx_vnni", "amx_int8")


def processor_has(*names: str) -> bool:
    """Whether the processor has one of some sets of instructions, by PyTorch's names."""
    try:
        capabilities = torch.cpu.get_capabilities()
    except (AttributeError, RuntimeError):
        return False
    return any(capabilities.get(name) for name in names)


def _is_exact_product(device: torch.device) -> bool:
    # The largest integers, which sums of 16 bits cannot hold.
    left = torch.full((32, 64), 127, dtype=torch.int8, device=device)
    right = torch.full((64, 64), -128, dtype=torch.int8, device=device)
    try:
        return bool((torch._int_mm(left, right.t()) == -127 * 128 * 64).all())
    except (AttributeError, RuntimeError):
        return False


def _is_exact_convolution() -> bool:
    levels = torch.full((1, 64, 4, 4), 255, dtype=torch.uint8)
    scale, offset = torch.full((64,), 2.0**-16), torch.zeros(64)
    try:
        for groups, side in ((1, 1), (64, 3)):
            weight = torch.full((64, 64 // groups, side, side), -127, dtype=torch.int8)
            packed = pack(weight, groups)
            found = convolve_packed(levels, packed, side, scale, offset, 1, 0, groups, torch.float32)
            if not (found == -255 * 127 * (64 // groups) * side**2 * 2.0**-16).all():
                return False
    except (AttributeError, RuntimeError):
        return False
    return True


def _is_exact_packed_product() -> bool:
    left = torch.full((32, 64), 127.0)
    try:
        found = packed_product(left, pack(torch.full((64, 64), -127, dtype=torch.int8)), 64)
    except (AttributeError, RuntimeError):
        return False
    return bool((found == -127 * 127 * 64).all())


def packed_product(whole: torch.Tensor, packed: torch.Tensor, outputs: int) -> torch.Tensor:
    """`integer_product` with a weight (N, K) of `pack`; N is `outputs`."""
    return _multiply_packed(whole.to(torch.int8), packed, torch.ones(outputs), None, torch.float32)


def _multiply_packed(
    rows: torch.Tensor,
    packed: torch.Tensor,
    scale: torch.Tensor,
    offset: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """scale * integers + offset of rows of bytes, with or without a sign; see `convolve_packed`."""
    no_zero = torch.zeros(len(scale), dtype=torch.int32)
    return torch.ops.onednn.qlinear_pointwise(
        rows, 1.0, 0, packed, scale, no_zero, offset, 1.0, 0, dtype, "none", [], ""
    )


def integer_product(whole: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Product of integers of 8 bits, which every precision of float products keeps.

    Args:
        whole: (M, K) float32 that holds whole numbers from -128 to 127.
        weight: (N, K) int8.

    Returns:
        (M, N) float32: each the exact integer, rounded once where it has more than 24 bits.
    """
    if has_fast_products(whole.device) and (len(whole) > FEW or whole.device.type == "cpu"):
        return torch._int_mm(whole.to(torch.int8), weight.t()).float()
    parts = zip(whole.split(EXACT_LENGTH, 1), weight.split(EXACT_LENGTH, 1), strict=True)
    products = (part @ of_weight.to(part.dtype).t() for part, of_weight in parts)
    first = next(products)
    if whole.shape[1] <= EXACT_LENGTH:
        return first
    total = first.int()
    for other in products:
        total += other.int()
    return first.copy_(total)


def pack(weight: torch.Tensor, groups: int = 1) -> torch.Tensor:
    """A weight (out, in) or (out, in / groups, k, k) int8 as oneDNN wants it."""
    operators = torch.ops.onednn
    if weight.shape[2:] in ((), (1, 1)):
        return operators.qlinear_prepack(weight.flatten(1), None)
    ones = torch.ones(len(weight))
    return operators.qconv_prepack(weight, ones, 1.0, 0, [1, 1], [0, 0], [1, 1], groups, None)


def convolve_packed(
    levels: torch.Tensor,
    packed: torch.Tensor,
    side: int,
    scale: torch.Tensor,
    offset: torch.Tensor | None,
    stride: int,
    padding: int,
    groups: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Convolution of bytes: scale * integers + offset, as uint8 rounded and cut to 0 to 255, or as float32.

    Args:
        levels: (N, in, H, W) uint8, channels last.
        packed: of `pack`.
        side: of the weight that was packed.
        scale, offset: (out,).
        dtype: of the result.
    """
    if side == 1:
        count, _, height, width = levels.shape
        rows = levels.permute(0, 2, 3, 1).reshape(-1, levels.shape[1])
        result = _multiply_packed(rows, packed, scale, offset, dtype)
        return result.view(count, height, width, -1).permute(0, 3, 1, 2)
    no_zero = torch.zeros(len(scale), dtype=torch.int32)
    steps, pads = [stride, stride], [padding, padding]
    return torch.ops.onednn.qconv_pointwise(
        *(levels, 1.0, 0, packed, scale, no_zero, offset, steps, pads, [1, 1], groups),
        *(1.0, 0, dtype, "none", [], ""),
    )


def convolve_floats(
    levels: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    offset: torch.Tensor,
    stride: int,
    padding: int,
    groups: int,
) -> torch.Tensor:
    """scale * integers + offset, as a float32, of levels (N, in, H, W) held as floats; exact like the other.

    Args:
        weight: (out, in / groups, k, k) int8.
        scale, offset: (out,).
    """
    # The scale comes behind: factors of 8 bits alone are exact in every precision of float products.
    matrix = weight.to(levels.dtype)
    if weight.shape[2:] == (1, 1):
        sums = F.linear(levels.permute(0, 2, 3, 1), matrix.flatten(1)).permute(0, 3, 1, 2)
    else:
        sums = F.conv2d(levels, matrix, None, stride, padding, 1, groups)
    return sums.mul_(scale.view(-1, 1, 1)).add_(offset.view(-1, 1, 1))
