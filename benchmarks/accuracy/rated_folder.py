"""A folder of rated images: names, MOS, generators and parts from the tables that come with it."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pandas as pd

from pyiqa_ma_agiqa.errors import InputError
from pyiqa_ma_agiqa.registration.agiqa3k import shuffled_split

NAME_COLUMNS = ("name", "image_name", "img_name", "filename", "image")
MOS_COLUMNS = ("mos", "MOS", "mos_quality")
GENERATOR_PATTERN = r"(.+)_\d+\.\w+"
"""Of a file name; its first group is the generator: what stands before the running number."""
ALL = "all"
"""Generator of images whose name tells none."""


def read_table(path: Path) -> pd.DataFrame:
    """A CSV file, or the first sheet of an Excel file.

    Raises:
        InputError: the file is missing or cannot be read.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        if path.suffix.lower() in {".xlsx", ".xls"}:
            with warnings.catch_warnings():  # Excel extensions that openpyxl leaves out are of no use here
                warnings.simplefilter("ignore", UserWarning)
                return pd.read_excel(path)
        return pd.read_csv(path, skiprows=1 if header(path) else 0)
    except ImportError:
        raise InputError(f"{path}: reading Excel files needs openpyxl; pip install openpyxl") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not a readable table ({str(error).splitlines()[0]})") from None


def header(path: Path) -> str:
    """What a first line that begins with # says; empty where there is none."""
    with path.open(encoding="utf-8", errors="replace") as file:
        line = file.readline()
    return line[1:].strip() if line.startswith("#") else ""


def column(table: pd.DataFrame, path: Path, wanted: str | None, usual: tuple[str, ...], option: str) -> str:
    """Name of a column: the one asked for, or the first usual one that is there.

    Raises:
        InputError: there is none.
    """
    found = [name for name in ((wanted,) if wanted else usual) if name in table.columns]
    if not found:
        has = ", ".join(map(str, table.columns))
        raise InputError(f"{path}: no column {wanted or ' or '.join(usual)}; name one of {has} with {option}")
    return found[0]


def generator_of(name: str, pattern: str = GENERATOR_PATTERN) -> str:
    """First group of the pattern at the start of a file name, or `ALL`."""
    match = re.match(pattern, Path(name).name)
    return match[1] if match else ALL


def read_ratings(
    mos: Path,
    name_column: str | None = None,
    mos_column: str | None = None,
    generator_column: str | None = None,
    generator_pattern: str = GENERATOR_PATTERN,
) -> pd.DataFrame:
    """Columns name, mos (finite) and generator.

    Raises:
        InputError: names the file and the column or the row at fault.
    """
    table = read_table(mos)
    names = table[column(table, mos, name_column, NAME_COLUMNS, "--name-column")].astype(str)
    values = table[column(table, mos, mos_column, MOS_COLUMNS, "--mos-column")]
    ratings = pd.DataFrame({"name": names, "mos": pd.to_numeric(values, errors="coerce")})
    for complaint, bad in (
        ("has no number as its MOS", ~ratings["mos"].abs().lt(float("inf"))),
        ("stands there more than once", ratings["name"].duplicated()),
    ):
        if bad.any():
            raise InputError(f"{mos}: {ratings['name'][bad].iloc[0]} {complaint}")
    if generator_column:
        generators = table[column(table, mos, generator_column, (), "--generator-column")].astype(str)
        ratings["generator"] = generators
    else:
        ratings["generator"] = [generator_of(name, generator_pattern) for name in names]
    return ratings


def parts(ratings: pd.DataFrame, split: str, split_column: str | None, mos: Path) -> pd.Series:
    """Part of each rated image.

    Args:
        ratings: see `read_ratings`.
        split: a table with names and parts; or ``seed20``, the shuffle of the paper into 70/10/20;
            or ``every4th``, where each fourth row of the ratings is test and the others are train.
        split_column: column of the table; the last one where it has only one besides the name.
        mos: the file of the ratings, for messages.

    Raises:
        InputError: the table is missing, or does not know an image.
    """
    if split == "seed20":
        return pd.Series(shuffled_split(len(ratings)), ratings.index)
    if split == "every4th":
        return pd.Series(["test" if row % 4 == 3 else "train" for row in range(len(ratings))], ratings.index)
    table, path = read_table(Path(split)), Path(split)
    names = column(table, path, None, NAME_COLUMNS, "--name-column")
    others = tuple(name for name in table.columns if name != names)
    if split_column is None and len(others) != 1:
        raise InputError(f"{path}: say which column is the split with --split-column: {', '.join(others)}")
    chosen = column(table, path, split_column, others, "--split-column")
    known = table.drop_duplicates(names).set_index(table[names].astype(str).drop_duplicates())[chosen]
    found = ratings["name"].map(known)
    if found.isna().any():
        raise InputError(f"{path}: no part for {ratings['name'][found.isna()].iloc[0]}, which {mos} rates")
    return found.astype(str)
