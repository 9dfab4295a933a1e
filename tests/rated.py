"""Small folders of rated images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from .images import picture


def write_images(folder: Path, names: list[str]) -> list[float]:
    """Pictures that get noisier down the list, and a MOS for each that falls, not quite evenly."""
    for number, name in enumerate(names):
        noise = 4 * number * np.random.default_rng(number).standard_normal((64, 64, 3))
        pixels = np.clip(picture(64, 64, number) + noise, 0, 255).astype(np.uint8)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return [round(4 - 3 * place / len(names) + 0.3 * (place % 3), 3) for place in range(len(names))]


def rated_folder(folder: Path, count: int = 40) -> Path:
    """A folder like AGIQA-3K's: images/, data.csv, splits.csv; two generators, ten train images."""
    names = [f"{('one_normal', 'two_lowstep')[number % 2]}_{number:03}.png" for number in range(count)]
    mos = write_images(folder / "images", names)
    parts = ["train" if number < 10 else "test" for number in range(count)]
    pd.DataFrame({"name": names, "prompt": "p", "mos_quality": mos}).to_csv(folder / "data.csv", index=False)
    splits = pd.DataFrame({"name": names, "official": parts, "other": "train"})
    splits.to_csv(folder / "splits.csv", index=False)
    return folder
