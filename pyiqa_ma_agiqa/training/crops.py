"""Random crops for the quality branch: what tells generators apart is destroyed in them, quality is not."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ..compact.preprocessing import branch_size, branch_view
from . import degradations
from .checkpoint import digest, unwritable
from .data import ImageSource
from .degradations import DEGRADATIONS

FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
RESCALED, SCALES = 0.7, (0.6, 1.25)
"""How often a crop is resized, and by how much."""
COMPRESSED, QUALITIES = 0.5, (60, 95)
"""How often a crop is compressed as JPEG, and how well."""
AT_ONCE = 64
"""Images whose crops are held at once."""


def to_tensor(views: list[np.ndarray]) -> torch.Tensor:
    """(H, W, 3) uint8 each, to (N, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float() / 255


def at_branch_size(image: np.ndarray) -> np.ndarray:
    """An (H, W, 3) uint8 image as the branch sees it, in 8 bits."""
    if branch_size(*image.shape[:2]) == image.shape[:2]:
        return image
    view = branch_view(to_tensor([image]))[0].permute(1, 2, 0)
    return np.ascontiguousarray((view * 255).round().to(torch.uint8).numpy())


def random_crop(image: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """A random square of an (H, W, 3) uint8 image: resized, flipped and compressed at random.

    Resizing by one of three filters and compression hide the traces of upsampling by which a network
    knows a generator (the recipe of Wang et al., *CNN-generated images are surprisingly easy to spot*,
    CVPR 2020, turned to the other end).

    Returns:
        (side, side, 3) uint8.
    """
    scale = rng.uniform(*SCALES) if rng.random() < RESCALED else 1.0
    cut = min(round(side / scale), *image.shape[:2])
    top, left = (int(rng.integers(length - cut + 1)) for length in image.shape[:2])
    crop = Image.fromarray(image[top : top + cut, left : left + cut])
    crop = crop.resize((side, side), FILTERS[rng.integers(len(FILTERS))])
    if rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < COMPRESSED:
        buffer = io.BytesIO()
        crop.save(buffer, "JPEG", quality=int(rng.integers(QUALITIES[0], QUALITIES[1] + 1)))
        crop = Image.open(buffer).convert("RGB")
    return np.asarray(crop)


def degraded_pair(view: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """A mild and a strong copy of one kind."""
    degrade = DEGRADATIONS[str(rng.choice(list(DEGRADATIONS)))]
    mild, strong = np.sort(rng.random(2))
    strong = max(strong, min(1.0, mild + 0.25))
    return [degrade(view, float(mild), rng), degrade(view, float(strong), rng)]


class Crop(NamedTuple):
    """What is seen of a crop (C, h, w), and of its two degraded copies (2, C, h, w), if it has any."""

    clean: np.ndarray
    pair: np.ndarray | None


class Crops:
    """A crop of each image for each epoch, as a network that stays as it is sees it, kept in a folder.

    Which crop it is depends on the seed and the image alone. So runs on other parts of the same images
    may share the folder, and an interrupted run goes on with the next image.

    Args:
        see: crops (N, side, side, 3) uint8 to (N, C, h, w).
        folder: where what it says is kept, as float16.
        identity: text that differs wherever what it says may.
        epochs: how many crops an image has.
        side: of the crops, in pixels.
        one_in: so many of an image's crops have one with degraded copies; 0 for none.
        seed: of the crops.
    """

    def __init__(
        self,
        see: Callable[[torch.Tensor], torch.Tensor],
        folder: Path,
        identity: str,
        *,
        epochs: int,
        side: int,
        one_in: int,
        seed: int,
    ) -> None:
        self.see, self.epochs, self.side, self.one_in, self.seed = see, epochs, side, one_in, seed
        code = [Path(name).read_bytes() for name in (__file__, str(degradations.__file__))]
        settings = f"{identity} {epochs} {side} {one_in} {seed}".encode()
        self.folder = folder / digest([settings, *code])[:16]

    def keep(self, images: ImageSource, rows: Sequence[int] | np.ndarray) -> dict[int, Path]:
        """The files of some images by their rows, made if they are not there.

        Raises:
            InputError: an image cannot be read, or the folder cannot be written.
        """
        kept = {}
        with ThreadPoolExecutor(os.cpu_count()) as pool, tqdm(rows, desc="crops", disable=None) as told:
            for first in range(0, len(rows), AT_ONCE):
                some = rows[first : first + AT_ONCE]
                made = pool.map(lambda row: self._cut(images[row]), some)
                for row, (place, crops) in zip(some, made, strict=True):
                    if crops is not None:
                        # NumPy writes numbers that are not in order thirty times as slowly.
                        seen = self.see(torch.from_numpy(crops)).half().contiguous()
                        self._write(place, seen.cpu().numpy())
                    kept[int(row)] = place
                    told.update()
        return kept

    def crop(self, place: Path, epoch: int) -> Crop:
        """What was seen of the crop for an epoch."""
        seen = np.load(place, mmap_mode="r")
        paired = self._paired(place.stem)
        pair = None
        if epoch in paired:
            first = self.epochs + 2 * paired.index(epoch)
            pair = np.array(seen[first : first + 2])
        return Crop(np.array(seen[epoch]), pair)

    def _paired(self, name: str) -> list[int]:
        """The epochs in which an image has degraded copies."""
        if not self.one_in:
            return []
        return [epoch for epoch in range(self.epochs) if (int(name[:8], 16) + epoch) % self.one_in == 0]

    def _cut(self, image: np.ndarray) -> tuple[Path, np.ndarray | None]:
        """The file of an image, and its crops (N, side, side, 3) unless the file is there."""
        name = hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()
        place = self.folder / f"{name}.npy"
        if place.is_file():
            return place, None
        image = at_branch_size(image)
        paired, clean, degraded = self._paired(name), [], []
        for epoch in range(self.epochs):
            rng = np.random.default_rng([self.seed, epoch, int(name[:16], 16)])
            clean.append(random_crop(image, self.side, rng))
            if epoch in paired:
                degraded += degraded_pair(clean[-1], rng)
        return place, np.stack(clean + degraded)

    def _write(self, place: Path, seen: np.ndarray) -> None:
        aside = place.with_name(f".{secrets.token_hex(8)}.npy")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            np.save(aside, seen)
            aside.replace(place)
        except OSError as error:
            with suppress(OSError):
                aside.unlink()
            raise unwritable(place, error) from None
