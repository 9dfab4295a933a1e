"""Images of two sides that belong together, by their names."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..names import unescape
from ..scoring.inputs.items import MEMBER
from ..scoring.inputs.listing import IMAGE_SUFFIXES

_IN_TAR = re.compile(rf".*?\.(?:tar|tgz|tzst|tar\.gz|tar\.zst){MEMBER}", re.IGNORECASE | re.DOTALL)


class Matching(NamedTuple):
    """What matches what.

    Attributes:
        pairs: (P, 2) rows of A and of B; empty where they are to be compared as separate sets.
        by: what of the names is the same.
        matched: number of matches, also where they are too few to count.
        without_partner: rows of A, and rows of B, whose name the other side does not have.
        ambiguous: rows of A, and rows of B, whose name one of the sides has more than once.
    """

    pairs: np.ndarray
    by: str
    matched: int
    without_partner: tuple[np.ndarray, np.ndarray]
    ambiguous: tuple[np.ndarray, np.ndarray]


def match_names(a: list[str], b: list[str]) -> Matching:
    """Match the images of two sides.

    Names match if the paths below the folder that all of a side share are the same, or the paths within
    tars, or the names of the files; or any of these without the suffix of an image. Of these the one that
    matches most is taken, the first of equals. A name that a side has twice matches nothing. If less than
    half of the smaller side is matched, the matches count as accidents and there are no pairs.
    """
    best: Matching | None = None
    for by, keys_a, keys_b in _keys(_plain(a), _plain(b)):
        found = _match(by, keys_a, keys_b)
        if best is None or found.matched > best.matched:
            best = found
        if found.matched == min(len(a), len(b)):
            break
    assert best
    if 2 * best.matched >= min(len(a), len(b)):
        return best
    none = np.empty(0, int)
    return best._replace(pairs=best.pairs[:0], without_partner=(none, none), ambiguous=(none, none))


def _plain(paths: list[str]) -> list[str]:
    """Paths in one form: a backslash divides, as on Windows, and "." and "//" are gone."""
    return [posixpath.normpath(unescape(path).replace("\\", "/") if "\\" in path else path) for path in paths]


def _keys(a: list[str], b: list[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    """What of the names is to be the same, and that of both sides."""
    ways: dict[str, Callable[[list[str]], list[str]]] = {"path": _below_the_shared_folder}
    if any(MEMBER in path for side in (a, b) for path in side):
        ways["path in the tar"] = lambda paths: _below_the_shared_folder(
            [_IN_TAR.sub("", path, 1) for path in paths]
        )
    ways["file name"] = lambda paths: [path[path.rfind("/") + 1 :] for path in paths]
    for suffix, form in (("", list), (" without suffix", _without_suffix)):
        for by, way in ways.items():
            yield by + suffix, form(way(a)), form(way(b))


def _below_the_shared_folder(paths: list[str]) -> list[str]:
    # What the first and the last in order share, all share.
    ends = takewhile(lambda letters: letters[0] == letters[1], zip(min(paths), max(paths), strict=False))
    shared = "".join(letter for letter, _ in ends).rfind("/") + 1
    return [path[shared:] for path in paths]


def _without_suffix(paths: list[str]) -> list[str]:
    parts = (path.rpartition(".") for path in paths)
    return [
        root if f".{suffix.lower()}" in IMAGE_SUFFIXES else root + dot + suffix for root, dot, suffix in parts
    ]


def _match(by: str, a: list[str], b: list[str]) -> Matching:
    codes = pd.factorize(np.array([*a, *b], dtype=object))[0]
    code_a, code_b = codes[: len(a)], codes[len(a) :]
    count_a, count_b = (np.bincount(code, minlength=codes.max() + 1) for code in (code_a, code_b))
    once = (count_a == 1) & (count_b == 1)
    row_of = np.empty(len(once), int)
    row_of[code_b] = np.arange(len(b))
    rows = np.flatnonzero(once[code_a])
    pairs = np.stack([rows, row_of[code_a[rows]]], axis=1)
    alone = (np.flatnonzero(count_b[code_a] == 0), np.flatnonzero(count_a[code_b] == 0))
    shared = (count_a > 0) & (count_b > 0) & ~once
    return Matching(
        pairs, by, len(pairs), alone, (np.flatnonzero(shared[code_a]), np.flatnonzero(shared[code_b]))
    )
