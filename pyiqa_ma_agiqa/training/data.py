"""Training data: a folder of images and a CSV of their MOS, checked before anything runs."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import InputError
from ..input_checks import read_tensor

PARTS = ("train", "val", "test")
LEAST = {"train": 16, "val": 3, "test": 3}
"""How many images of a part make it of use."""
LISTED = 20
"""Bad rows that an error spells out; the rest it counts."""


@dataclass
class Ratings:
    """Rated images.

    Attributes:
        paths: M image files.
        mos: (M,) float32, on the scale of the CSV.
        part: (M,) "train", "val" or "test".
        everywhere: (M,) whether an image is of the train part by every column of the split table.
        generators: (M,) text; empty where the generator of no image is known.
        deviation: (M,) standard deviation among raters; ones where it is not known.
    """

    paths: list[Path]
    mos: np.ndarray
    part: np.ndarray
    everywhere: np.ndarray
    generators: np.ndarray
    deviation: np.ndarray

    def rows(self, part: str) -> np.ndarray:
        """Row numbers of one part."""
        return np.flatnonzero(self.part == part)

    def only(self, *parts: str) -> Ratings:
        """The images of some parts alone.

        Raises:
            InputError: one has too few images.
        """
        for name in parts:
            if len(self.rows(name)) < LEAST[name]:
                raise InputError(
                    f"{len(self.rows(name))} images in part {name!r}; it needs at least {LEAST[name]}"
                )
        kept = np.isin(self.part, parts)
        paths = [path for path, keep in zip(self.paths, kept, strict=True) if keep]
        others = (self.mos, self.part, self.everywhere, self.generators, self.deviation)
        return Ratings(paths, *(values[kept] for values in others))


@dataclass
class DataConfig:
    """Where images and ratings are; paths are relative to the working directory.

    Attributes:
        deviation_column: of the table: standard deviation among the raters of an image.
        generator_pattern: regular expression; what its first group finds in a name is the generator.
    """

    images: str
    table: str
    mos_column: str = "mos"
    split_table: str | None = None
    split_column: str = "split"
    deviation_column: str | None = None
    generator_pattern: str | None = None

    def __post_init__(self) -> None:
        try:
            groups = re.compile(self.generator_pattern or "()").groups
        except re.error as error:
            raise InputError(f"generator_pattern: not a regular expression ({error})") from None
        if not groups:
            raise InputError("generator_pattern: has no group; put what names the generator in ( )")

    def read(self, test: bool, val: bool = True) -> Ratings:
        """The checked ratings; see `read_ratings`.

        Args:
            test: with the test part.
            val: there must be a val part; otherwise it is read where there is one.
        """
        split_table = Path(self.split_table) if self.split_table else None
        ratings = read_ratings(
            Path(self.images),
            Path(self.table),
            self.mos_column,
            split_table,
            self.split_column,
            deviation_column=self.deviation_column,
            generator_pattern=self.generator_pattern,
        )
        wanted = {"train": True, "val": val or len(ratings.rows("val")) > 0, "test": test}
        try:
            return ratings.only(*(part for part in PARTS if wanted[part]))
        except InputError as error:
            raise InputError(f"{self.table}: {error}") from None


class ImageSource(Protocol):
    """Images by row number, (H, W, 3) uint8 RGB."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> np.ndarray: ...


class Images:
    """Images by row number, read when asked for as the metric reads them, in 8 bits: (H, W, 3) RGB."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> np.ndarray:
        try:
            pixels = read_tensor(self.paths[row])[0].numpy()
        except InputError as error:
            raise InputError(f"{error}; then repeat the command, which goes on where it was") from None
        # In NumPy: images are read in threads, of which PyTorch would give each a team of its own.
        return np.ascontiguousarray(np.rint(pixels * 255).astype(np.uint8).transpose(1, 2, 0))


def read_ratings(
    images: Path,
    table: Path,
    mos_column: str = "mos",
    split_table: Path | None = None,
    split_column: str = "split",
    seed: int = 20,
    deviation_column: str | None = None,
    generator_pattern: str | None = None,
) -> Ratings:
    """Read and check a CSV with the columns ``name``, ``mos`` and, if there is one, ``split``.

    Args:
        images: folder that the names are relative to.
        table: the CSV.
        mos_column: its column of scores, higher is better.
        split_table: another CSV with ``name`` and the split, if it is not in the table.
        split_column: values train, val, test. Without one: 70/10/20 by the seed.
        deviation_column, generator_pattern: see `DataConfig`.

    Raises:
        InputError: lists the bad rows by line number and name.
    """
    lines, rows = read_csv(table, ["name", mos_column, *([deviation_column] if deviation_column else [])])
    names = [row["name"] for row in rows]
    paths = [images / name for name in names]
    parts = [row[split_column] for row in rows] if rows and split_column in rows[0] else None
    if split_table is not None:
        parts, everywhere = _split(names, split_table, split_column)
    mos = [to_number(row[mos_column]) for row in rows]
    deviation = [to_number(row[deviation_column]) if deviation_column else 1.0 for row in rows]
    generators = [_generator(name, generator_pattern) for name in names]
    times = Counter(map(os.path.normpath, names))
    problems = []
    for number, name in enumerate(names):
        if not np.isfinite(mos[number]):
            why = "its MOS is not a number"
        elif not 0 <= deviation[number] < float("inf"):
            why = f"its {deviation_column} is not a number, or below 0"
        elif generators[number] is None:
            why = f"the generator_pattern {generator_pattern!r} finds nothing in it"
        elif times[os.path.normpath(name)] > 1:
            why = "the name stands there more than once"
        elif parts is not None and parts[number] not in PARTS:
            why = f"its split {parts[number]!r} is none of {', '.join(PARTS)}"
        else:
            why = unreadable(paths[number])
        if why:
            problems.append(f"line {lines[number]}: {name}: {why}")
    refuse(table, problems)
    part = np.array(parts or _drawn(len(names), seed))
    ratings = Ratings(
        paths,
        np.array(mos, np.float32),
        part,
        np.array(everywhere) if split_table is not None else part == "train",
        np.array(generators),
        np.array(deviation, np.float32),
    )
    for name in ("train", "val"):
        of_part = ratings.mos[ratings.rows(name)]
        if name == "val" and len(of_part) == 0:
            continue  # whether it is needed is for `DataConfig.read` to say
        if len(of_part) < LEAST[name]:
            raise InputError(
                f"{table}: {len(of_part)} rows in part {name!r}; training needs at least {LEAST[name]}"
            )
        if np.ptp(of_part) == 0:
            raise InputError(f"{table}: all MOS of part {name!r} are the same; nothing can be learned of it")
    return ratings


def refuse(table: Path, problems: list[str]) -> None:
    """Refuse a table with bad rows, if there are any.

    Raises:
        InputError: lists them.
    """
    if problems:
        more = f"\n  and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        listed = "\n  ".join(problems[:LISTED])
        raise InputError(f"{table}: {len(problems)} bad rows; correct or remove them:\n  {listed}{more}")


def read_csv(path: Path, columns: list[str]) -> tuple[list[int], list[dict[str, str]]]:
    """Line numbers and rows, as text, of a CSV that has the columns.

    Raises:
        InputError: it is not there, no text, or lacks one.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # with or without a byte order mark
            reader = csv.DictReader(file, restval="")
            numbered = [(reader.line_num, row) for row in reader]
            header = list(reader.fieldnames or [])
    except FileNotFoundError:
        raise InputError(f"{path}: no such CSV file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; save it as CSV in UTF-8") from None
    except (OSError, csv.Error) as error:
        raise InputError(f"{path}: not a readable CSV file ({error})") from None
    for column in columns:
        if column not in header:
            cure = "; separate columns by commas" if any(set(name) & set(";\t") for name in header) else ""
            raise InputError(f"{path}: no column {column!r}; it has {', '.join(header)}{cure}")
    return [line for line, _ in numbered], [row for _, row in numbered]


def _split(names: list[str], table: Path, column: str) -> tuple[list[str], list[bool]]:
    """The part of each name by another table, and whether it is "train" in all columns of parts.

    The part is empty for a name that the table does not have.
    """
    _, rows = read_csv(table, ["name", column])
    twice = [name for name, times in Counter(row["name"] for row in rows).items() if times > 1]
    if twice:
        raise InputError(f"{table}: {twice[0]} stands there more than once; remove one of the rows")
    row_of = {row["name"]: row for row in rows}
    found = [row_of.get(name, {column: ""}) for name in names]
    everywhere = [all(value == "train" for value in row.values() if value in PARTS) for row in found]
    parts = [row[column] for row in found]
    if "train" in parts and not any(everywhere):
        raise InputError(
            f"{table}: no image is of the train part in every column of parts, and those that are tell how "
            f"to round the networks; leave only the column {column!r}"
        )
    return parts, [part == "train" and train for part, train in zip(parts, everywhere, strict=True)]


def _generator(name: str, pattern: str | None) -> str | None:
    if pattern is None:
        return ""
    found = re.search(pattern, name)
    return found.group(1) if found else None


def _drawn(count: int, seed: int) -> list[str]:
    """A part for each row: 70 / 10 / 20 % by the seed, of few rows as many for val as it needs."""
    parts = [""] * count
    val = int(0.7 * count)
    test = max(int(0.8 * count), val + LEAST["val"])
    for place, row in enumerate(np.random.default_rng(seed).permutation(count)):
        parts[row] = "train" if place < val else "val" if place < test else "test"
    return parts


def to_number(text: str) -> float:
    """The number that a cell holds; NaN where it holds none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def unreadable(path: Path) -> str:
    """Why a file is no image that can be read; empty where it is one."""
    if not os.path.isfile(path):  # unlike a path's own, whatever the name is
        return "no such image"
    try:
        read_tensor(path)
    except InputError as error:
        return f"not a readable image ({str(error).removeprefix(f'{path}: ')})"
    return ""
