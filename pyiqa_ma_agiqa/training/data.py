"""Training data: a folder of images and a CSV of their MOS, checked before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from ..errors import InputError
from ..preprocessing import branch_size

PARTS = ("train", "val", "test")


@dataclass
class Ratings:
    """Rated images.

    Attributes:
        paths: M image files.
        mos: (M,) float32, on the scale of the CSV.
        part: (M,) "train", "val" or "test".
    """

    paths: list[Path]
    mos: np.ndarray
    part: np.ndarray

    def rows(self, part: str) -> np.ndarray:
        """Row numbers of one part."""
        return np.flatnonzero(self.part == part)


@dataclass
class DataConfig:
    """Where images and ratings are; paths are relative to the working directory."""

    images: str
    table: str
    mos_column: str = "mos"
    split_table: str | None = None
    split_column: str = "split"

    def read(self) -> Ratings:
        """The checked ratings; see `read_ratings`."""
        split_table = Path(self.split_table) if self.split_table else None
        return read_ratings(
            Path(self.images), Path(self.table), self.mos_column, split_table, self.split_column
        )


class ImageSource(Protocol):
    """Images by row number, (H, W, 3) uint8 RGB."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> np.ndarray: ...


class Images:
    """Images by row number, decoded when asked for: (H, W, 3) uint8 RGB at the quality branch's size."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> np.ndarray:
        with Image.open(self.paths[row]) as file:
            pixels = np.asarray(file.convert("RGB"))
        height, width = branch_size(*pixels.shape[:2])
        if (height, width) == pixels.shape[:2]:
            return pixels
        shrinking = height < pixels.shape[0]
        return cv2.resize(
            pixels, (width, height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC
        )


def read_ratings(
    images: Path,
    table: Path,
    mos_column: str = "mos",
    split_table: Path | None = None,
    split_column: str = "split",
    seed: int = 20,
) -> Ratings:
    """Read and check a CSV with the columns ``name``, ``mos`` and, if there is one, ``split``.

    Args:
        images: folder that the names are relative to.
        table: the CSV.
        mos_column: its column of scores, higher is better.
        split_table: another CSV with ``name`` and the split, if it is not in the table.
        split_column: values train, val, test. Without one: 70/10/20 by the seed.

    Raises:
        InputError: lists the bad rows by line number and name.
    """
    if not Path(table).is_file():
        raise InputError(f"{table}: no such CSV file")
    frame = pd.read_csv(table)
    for column in ("name", mos_column):
        if column not in frame:
            raise InputError(f"{table}: no column {column!r}; it has {', '.join(frame.columns)}")
    if split_table is not None:
        frame = frame.merge(
            pd.read_csv(split_table)[["name", split_column]], on="name", how="left", validate="1:1"
        )
    frame["mos"] = pd.to_numeric(frame[mos_column], errors="coerce")
    paths = [images / str(name) for name in frame["name"]]
    problems = [
        f"line {line}: {name}: {why}"
        for line, (name, why) in enumerate(
            zip(frame["name"], _complaints(frame, paths, split_column), strict=True), 2
        )
        if why
    ]
    if problems:
        listed = "\n  ".join(problems[:20]) + (
            "" if len(problems) <= 20 else f"\n  and {len(problems) - 20} more"
        )
        raise InputError(f"{table}: {len(problems)} bad rows; correct or remove them:\n  {listed}")
    if split_column in frame:
        part = frame[split_column].to_numpy(str)
    else:
        order = np.random.default_rng(seed).permutation(len(frame))
        part = np.empty(len(frame), dtype="<U5")
        for name, rows in zip(
            PARTS, np.split(order, [int(0.7 * len(frame)), int(0.8 * len(frame))]), strict=True
        ):
            part[rows] = name
    ratings = Ratings(paths, frame["mos"].to_numpy(np.float32), part)
    for name, least in (("train", 16), ("val", 3)):
        if len(ratings.rows(name)) < least:
            raise InputError(
                f"{table}: {len(ratings.rows(name))} rows in part {name!r}; training needs at least {least}"
            )
    return ratings


def _complaints(frame: pd.DataFrame, paths: list[Path], split_column: str) -> list[str]:
    """What is wrong with each row; empty where nothing is."""
    twice = frame["name"].duplicated(keep=False)
    complaints = []
    for row, path in enumerate(paths):
        why = ""
        if not np.isfinite(frame["mos"][row]):
            why = "its MOS is not a number"
        elif twice[row]:
            why = "the name stands there more than once"
        elif split_column in frame and frame[split_column][row] not in PARTS:
            why = f"its split {frame[split_column][row]!r} is none of {', '.join(PARTS)}"
        else:
            why = _unreadable(path)
        complaints.append(why)
    return complaints


def _unreadable(path: Path) -> str:
    if not path.is_file():
        return "no such image"
    try:
        with Image.open(path) as file:
            file.draft("RGB", (64, 64))
            file.load()
    except Exception as error:
        return f"not a readable image ({error})"
    return ""
