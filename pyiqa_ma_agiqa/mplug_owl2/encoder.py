"""Semantic vectors of images, by the mPLUG-Owl2 in a folder."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import InputError, WeightsError
from .processing import FILE as PROCESSOR
from .processing import ProcessorSettings, prepare_images

if TYPE_CHECKING:
    from .config import MPlugOwl2Config
    from .model import MPlugOwl2Model

logger = logging.getLogger("pyiqa")

FLOATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
QUANTISED = ("8bit", "4bit")
PRECISIONS = (*FLOATS, *QUANTISED)
CHUNK = 8
"""Images that are encoded at once; bounds the memory of large batches."""
UNQUANTISED = ["model.vision_model", "model.visual_abstractor"]
"""Parts that 8 and 4 bits leave in half precision: 5 % of the weights, and all that sees the pixels.

pyiqa's Q-Align quantises them with the rest.
"""


class Owl2Encoder:
    """mPLUG-Owl2 that reads an image with MA-AGIQA's two prompts.

    Nothing is read from the folder before the first image comes, or `prepare` is called.

    Args:
        source: folder with `config.json`, weights, `tokenizer.model` and `preprocessor_config.json`.
        dtype: "fp32", "bf16", "fp16", "8bit" or "4bit" (the last two through bitsandbytes); by
            default fp16 on a GPU and bf16 on a CPU.

        device: where images will come from; by default the GPU if there is one.

    Attributes:
        device: where images come from; each call sets it. `precision` and `identity` depend on it,
            so set it first where they are asked before the first call.

    Raises:
        InputError: another dtype.

    Reference: MA-AGIQA, section 3.2; pixels and prompts as its released code makes them.
    """

    def __init__(
        self,
        source: str | os.PathLike,
        dtype: str | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        if dtype not in (None, *PRECISIONS):
            raise InputError(f"dtype {dtype!r} is not one of {', '.join(PRECISIONS)}")
        self.source = Path(source).expanduser()
        self.dtype = dtype
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._model: MPlugOwl2Model | None = None
        self._loaded_as = ""
        self._lock = threading.Lock()

    @property
    def precision(self) -> str:
        """One of `PRECISIONS`, for images on `device`."""
        return self.dtype or ("bf16" if self.device.type == "cpu" else "fp16")

    @property
    def identity(self) -> str:
        """Text that differs wherever the vectors may: weights, prompts, preprocessing, precision."""
        return f"{self._sources} {self._computed_as}"

    @property
    def _half(self) -> torch.dtype:
        """What is not quantised beside 8 and 4 bits, and what they are multiplied in."""
        return torch.bfloat16 if self.device.type == "cpu" else torch.float16

    @property
    def _computed_as(self) -> str:
        """The precision, and of a quantised model that of the rest."""
        return f"{self.precision} in {self._half}" if self.precision in QUANTISED else self.precision

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Semantic vectors of images.

        Args:
            pixels: (N, 3, H, W) in [0, 1].

        Returns:
            (N, 2, hidden_size) float32 on the device of the pixels: semantic content, coherence.

        Raises:
            WeightsError: a file of the folder is missing, unreadable or does not fit.
            InputError: vectors that are not finite.
        """
        with self._lock:  # threads share the model, which moves to the device of the pixels
            self.device = pixels.device
            model = self._ready()
            with _quiet_bitsandbytes():
                chunks = [
                    model.encode(prepare_images(chunk, self.processor), self.prompts).to(pixels.device)
                    for chunk in pixels.split(CHUNK)
                ]
            vectors = torch.cat(chunks)
            self._check_finite(vectors)
        return vectors

    def prepare(self, device: torch.device) -> None:
        """Read the model now, for images on this device.

        Raises:
            WeightsError: a file of the folder is missing, unreadable or does not fit.
        """
        with self._lock:
            self.device = device
            self._ready()

    @cached_property
    def processor(self) -> ProcessorSettings:
        """What the folder says of preprocessing."""
        return ProcessorSettings.from_folder(self.source)

    @cached_property
    def prompts(self) -> list[list[int]]:
        """Token ids of both prompts: semantic content, coherence."""
        from .prompts import PROMPTS, load_tokenizer, tokenise

        tokenizer = load_tokenizer(self.source)
        return [tokenise(prompt, tokenizer) for prompt in PROMPTS]

    @cached_property
    def _sources(self) -> str:
        from .loading import fingerprint
        from .prompts import PROMPTS

        revision = re.search(r"/snapshots/([0-9a-f]{40})/?$", self.source.absolute().as_posix())
        name = revision.group(1) if revision else fingerprint(self.source)
        return json.dumps({"model": name, "prompts": PROMPTS, "processor": repr(self.processor)})

    def _ready(self) -> MPlugOwl2Model:
        can_move = self.precision in FLOATS
        wanted = self._computed_as if can_move else f"{self._computed_as} on {self.device}"
        if self._model is None or self._loaded_as != wanted:
            self._model = None  # frees the old one before the new one comes
            self._model = self._load()
            self._loaded_as = wanted
        if can_move and self._model.device != self.device:
            self._model.to(self.device)  # type: ignore[arg-type]
        return self._model

    def _load(self) -> MPlugOwl2Model:
        from .loading import load_folder, read_config

        self._check_parts(read_config(self.source))
        precision, half, options = self.precision, self._half, {}
        dtype = FLOATS.get(precision, torch.float16)
        if precision in QUANTISED:
            options["quantization_config"] = quantisation(precision, half)
        if self.device.type == "cpu":
            logger.warning(
                "mPLUG-Owl2 (%s) on a CPU takes seconds to minutes an image, on a GPU a fraction of a second",
                precision,
            )
        # Weights made in inference mode could not serve a later call that differentiates.
        with torch.inference_mode(False):
            model = load_folder(self.source, dtype, device_map={"": self.device}, **options)
            if precision in QUANTISED:
                # Not before: of weights in bf16, one in 200 is rounded to other 4 bits than on a GPU.
                for tensor in (*model.parameters(), *model.buffers()):
                    if tensor.dtype == torch.float16:
                        tensor.data = tensor.data.to(half)
        return model.requires_grad_(False)

    def _check_finite(self, vectors: torch.Tensor) -> None:
        wrong = (~vectors.detach().isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
        if wrong:
            cure = "check its weights with `pyiqa-ma-agiqa weights verify`"
            if self.precision != "fp32":
                cure = f'values may be too large for {self.precision}: take dtype="fp32"; else {cure}'
            raise InputError(
                f"{self.source}: the large model gives semantic vectors that are NaN or infinite for "
                f"{len(wrong)} of {len(vectors)} images; {cure}"
            )

    def _check_parts(self, config: MPlugOwl2Config) -> None:
        side, largest = config.visual_model.image_size, max(map(max, self.prompts))
        if self.processor.side != side:
            raise WeightsError(
                f"{self.source / PROCESSOR}: makes images of side {self.processor.side}, "
                f"but the model reads {side}; fetch the model again"
            )
        if largest >= config.vocab_size:
            raise WeightsError(
                f"{self.source}: the tokenizer gives token {largest}, but the model has "
                f"{config.vocab_size}; fetch the model again"
            )

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles go without the weights, which the folder has."""
        return {name: value for name, value in self.__dict__.items() if name != "_lock"} | {"_model": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock()}


@contextmanager
def _quiet_bitsandbytes() -> Iterator[None]:
    """Without what bitsandbytes says again at every matrix: that bf16 becomes fp16 on the way to 8 bits."""
    talker = logging.getLogger("bitsandbytes.autograd._functions")

    def wanted(record: logging.LogRecord) -> bool:
        return "inputs will be cast" not in record.getMessage()

    talker.addFilter(wanted)
    try:
        yield
    finally:
        talker.removeFilter(wanted)


def quantisation(precision: str, half: torch.dtype) -> Any:
    """transformers' settings for "8bit" or "4bit", with this dtype for what stays as it is."""
    from transformers import BitsAndBytesConfig

    skipped = {"llm_int8_skip_modules": UNQUANTISED}
    if precision == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, **skipped)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=half, **skipped
    )
