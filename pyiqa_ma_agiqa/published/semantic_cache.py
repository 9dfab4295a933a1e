"""Semantic vectors on disk, so that no image is read by the large model twice."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from ..errors import InputError

logger = logging.getLogger("pyiqa")


class Encoder(Protocol):
    """What makes semantic vectors (N, 2, width) of images (N, 3, H, W) in [0, 1], on their device."""

    device: torch.device

    @property
    def identity(self) -> str:
        """Text that differs wherever the vectors may: model revision, prompts, precision."""
        ...

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor: ...


class SemanticCache:
    """A folder of semantic vectors, one file an image.

    A file is named by the SHA-256 of the image's pixels (8 bits) and size, inside a folder named by
    that of the encoder's identity. It holds the SHA-256 of the vectors, then the vectors as
    little-endian float32. Files are written aside and renamed, so several processes may share the
    folder, and get the permissions that the umask gives, so several people may, too. A file that is
    damaged is computed again; vectors that are not finite are never kept.

    Args:
        folder: created if need be.
        encoder: makes the vectors that are not there.

    Raises:
        InputError: the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike, encoder: Encoder) -> None:
        self.folder = Path(folder).expanduser()
        self.encoder = encoder
        self._warned = False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"semantic_cache={self.folder}: cannot be made ({error.strerror}); "
                "give a folder that you may write to"
            ) from None

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Semantic vectors (N, 2, width), float32, of images (N, 3, H, W) in [0, 1].

        Images of one batch whose pixels are the same are encoded once. Kept vectors have no gradient, so
        where one is asked for nothing is kept.
        """
        if pixels.requires_grad:
            return self.encoder(pixels)
        self.encoder.device = pixels.device
        places = [self._place(image) for image in pixels]
        found = {place: vectors for place in places if (vectors := _read(place)) is not None}
        missing = [place for place in dict.fromkeys(places) if place not in found]
        if missing:
            rows = [places.index(place) for place in missing]
            for place, encoded in zip(missing, self.encoder(pixels[rows]).float().cpu(), strict=True):
                found[place] = encoded.numpy()
                self._write(place, found[place])
        return torch.from_numpy(np.stack([found[place] for place in places])).to(pixels.device)

    def _place(self, image: torch.Tensor) -> Path:
        levels = (image.detach() * 255).round().clamp(0, 255).to(torch.uint8).cpu()
        digest = hashlib.sha256(f"{tuple(levels.shape)}".encode())
        digest.update(levels.contiguous().numpy().tobytes())
        name = digest.hexdigest()
        family = hashlib.sha256(self.encoder.identity.encode()).hexdigest()[:16]
        return self.folder / family / name[:2] / name

    def _write(self, place: Path, vectors: np.ndarray) -> None:
        if not np.isfinite(vectors).all():
            return
        content = np.ascontiguousarray(vectors, "<f4").tobytes()
        # Not tempfile's: its files are for their owner alone.
        aside = place.with_name(f"{place.name}.{secrets.token_hex(8)}.part")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(hashlib.sha256(content).digest() + content)
            os.replace(aside, place)
        except OSError as error:  # the vectors are good all the same
            with suppress(OSError):
                aside.unlink()
            if not self._warned:
                logger.warning("semantic_cache=%s: cannot be written (%s)", self.folder, error.strerror)
                self._warned = True


def _read(place: Path) -> np.ndarray | None:
    try:
        content = place.read_bytes()
    except OSError:
        return None
    digest, vectors = content[:32], content[32:]
    if len(vectors) == 0 or len(vectors) % 8 or hashlib.sha256(vectors).digest() != digest:
        return None
    found = np.frombuffer(vectors, "<f4").astype(np.float32).reshape(2, -1)
    return found if np.isfinite(found).all() else None
