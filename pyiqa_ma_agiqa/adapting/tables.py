"""What a person says of images: ratings on a scale of their own, or choices between two."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..training.data import read_csv, refuse, to_number, unreadable

LEAST = 20
"""How many ratings, or choices, say anything."""
LEAST_CHOSEN = 10
"""How many different images choices must be among."""


@dataclass
class Ratings:
    """Ratings of M images.

    Attributes:
        paths: M image files.
        values: (M,), the mean of an image's ratings.
        given: how many ratings there are in all.
    """

    paths: list[Path]
    values: np.ndarray
    given: int


@dataclass
class Choices:
    """Choices between two of M images.

    Attributes:
        paths: M image files.
        pairs: (P, 2), the number of the better image and that of the worse one.
    """

    paths: list[Path]
    pairs: np.ndarray

    @property
    def given(self) -> int:
        """How many choices there are."""
        return len(self.pairs)


def read_table(images: Path, table: Path) -> Ratings | Choices:
    """Read and check a CSV with the columns ``name`` and ``mos``, or ``better`` and ``worse``.

    Args:
        images: folder that the names are relative to.
        table: the CSV. An image may be rated, or a pair be judged, more than once.

    Raises:
        InputError: lists the bad rows by line number and name.
    """
    _, rows = read_csv(table, [])
    header = set(rows[0]) if rows else set()
    choices, ratings = header & {"better", "worse"}, header & {"name", "mos"}
    if choices and ratings:
        raise InputError(
            f"{table}: has columns of ratings and of choices; give name and mos, or better and worse"
        )
    return _read_choices(images, table) if choices else _read_ratings(images, table)


def _read_ratings(images: Path, table: Path) -> Ratings:
    lines, rows = read_csv(table, ["name", "mos"])
    named = _Named(images)
    values, problems = [], []
    for line, row in zip(lines, rows, strict=True):
        value = to_number(row["mos"])
        why = "its MOS is not a number" if not np.isfinite(value) else named.why_not(row["name"])
        if why:
            problems.append(f"line {line}: {row['name']}: {why}")
        values.append(value)
    refuse(table, problems)
    places = np.array([named.place(row["name"]) for row in rows], int)
    return Ratings(named.paths, mean_by_place(np.array(values), places), len(rows))


def _read_choices(images: Path, table: Path) -> Choices:
    lines, rows = read_csv(table, ["better", "worse"])
    named = _Named(images)
    problems = []
    for line, row in zip(lines, rows, strict=True):
        names = row["better"], row["worse"]
        if os.path.normpath(names[0]) == os.path.normpath(names[1]):
            problems.append(f"line {line}: {names[0]}: an image is neither better nor worse than itself")
            continue
        problems += [f"line {line}: {name}: {why}" for name in names if (why := named.why_not(name))]
    refuse(table, problems)
    pairs = [[named.place(row["better"]), named.place(row["worse"])] for row in rows]
    return Choices(named.paths, np.array(pairs, int).reshape(-1, 2))


class _Named:
    """Images by name, numbered as they come; each is read once to see whether it can be."""

    def __init__(self, images: Path) -> None:
        self.images = images
        self.paths: list[Path] = []
        self._places: dict[str, int] = {}
        self._checked: dict[str, str] = {}

    def why_not(self, name: str) -> str:
        """Why the image cannot be read; empty where it can."""
        plain = os.path.normpath(name)
        if plain not in self._checked:
            self._checked[plain] = unreadable(self.images / name)
        return self._checked[plain]

    def place(self, name: str) -> int:
        plain = os.path.normpath(name)
        if plain not in self._places:
            self._places[plain] = len(self.paths)
            self.paths.append(self.images / name)
        return self._places[plain]


def mean_by_place(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The mean of the values (N,) that have the same place (N,), in the order of the places."""
    return np.bincount(places, values) / np.bincount(places)
