"""What the frozen tower says of images, on disk, so that it reads none twice."""

from __future__ import annotations

import copy
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ..compact import preprocessing, semantic
from ..compact.arithmetic import exact, integers, layers, machine
from ..compact.preprocessing import encoder_view
from ..compact.semantic import SUMMARY, SemanticEncoder
from ..published.semantic_cache import SemanticCache
from .checkpoint import digest, state_digest
from .crops import to_tensor
from .data import ImageSource
from .device import DEVICE

AT_ONCE = 16
"""Images that are read at once; those of them in a row that have one size pass the tower together."""


class Summaries:
    """Summaries of images by a frozen tower, kept in a folder.

    They are kept by the pixels of the image and by all that makes a summary of them: the tower's weights,
    the code of its view and of its steps, and mirroring. So none is taken for that of another
    image or tower, and an interrupted run goes on with the next image.

    Args:
        encoder: the tower.
        folder: where they are kept.
    """

    def __init__(self, encoder: SemanticEncoder, folder: Path) -> None:
        modules = (preprocessing, semantic, integers, layers, exact, machine)
        sources = (Path(str(module.__file__)).read_bytes() for module in modules)
        identity = f"{state_digest(encoder)} {digest(sources)}"
        own = copy.deepcopy(encoder).eval().to(DEVICE)
        self._cache = SemanticCache(folder, _Tower(own, identity))

    @torch.inference_mode()
    def __call__(self, images: ImageSource, rows: np.ndarray) -> np.ndarray:
        """Summaries (len(rows), 6, 4, 768) of some images."""
        found = [torch.empty(0, *SUMMARY)]
        with ThreadPoolExecutor(os.cpu_count()) as pool, tqdm(rows, desc="tower", disable=None) as told:
            for first in range(0, len(rows), AT_ONCE):
                views = pool.map(images.__getitem__, rows[first : first + AT_ONCE])
                for _, alike in groupby(views, lambda view: view.shape):
                    pixels = to_tensor(list(alike)).to(DEVICE)
                    found.append(self._cache(pixels).cpu().reshape(-1, *SUMMARY))
                    told.update(len(pixels))
        return torch.cat(found).numpy()


class _Tower:
    """The tower as `SemanticCache` knows an encoder: (N, 2, n) for each image, whatever that stands for."""

    def __init__(self, encoder: SemanticEncoder, identity: str) -> None:
        self.encoder, self.identity = encoder, identity
        self.device = torch.device("cpu")

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.encoder(encoder_view(pixels)).reshape(len(pixels), 2, -1)
