"""What to score: folders, globs, tables of paths, tars and parquets of images, as a stream of items.

The order is stable: inputs as given; in a folder its own files by name, then its folders by name; a
glob's matches by name; tables and tars from top to bottom. Names are compared byte by byte.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path

from ...errors import InputError
from ..rows.output import holds_only_parts
from .containers import Containers
from .items import Item
from .lists import PATH, Lists
from .tables import SUFFIXES

IMAGE_SUFFIXES = frozenset(
    (
        *(".apng", ".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg"),
        *(".jpg", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".tif", ".tiff", ".webp"),
    )
)
"""What counts as an image in a folder or a tar, in small or capital letters."""


def list_items(
    inputs: Sequence[str],
    column: str = PATH,
    stamps: dict[str, str] | None = None,
) -> Iterator[Item]:
    """All images of the inputs, in order; an image may come more than once.

    Args:
        inputs: paths of image files, folders, tables, tars and folders of parquets that `score` wrote, or
            globs of them.
        column: of the tables: paths, or images.
        stamps: takes the stamps of all tables, tars and parquets, by their absolute paths.

    Raises:
        InputError: a glob that matches nothing, or a table or tar that is missing, unreadable or being
            written.
    """
    containers = Containers({} if stamps is None else stamps)
    lists = Lists(containers, column)
    for text in inputs:
        # A name with brackets in it that exists is meant as it is.
        if glob.has_magic(text) and not os.path.lexists(text):
            for path in _matches(text):
                yield from _expand(path, containers, lists)
        else:
            yield from _expand(text, containers, lists)


def _expand(path: str, containers: Containers, lists: Lists) -> Iterator[Item]:
    suffix = os.path.splitext(path)[1].lower()
    if os.path.isdir(path):
        return _parts(path, lists) if _is_output(path) else _folder(path)
    if suffix in SUFFIXES:
        return lists.items(path, os.path.dirname(path))
    if suffix == ".tar":
        return (item for item in containers.tars.items(path) if not item.container or is_image(item.name))
    if path.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        raise InputError(f"{path}: is a compressed tar; unpack it to a .tar")
    return iter([Item(path)])


def _is_output(folder: str) -> bool:
    """Whether `score` wrote this folder."""
    try:
        return any(True for _ in os.scandir(folder)) and holds_only_parts(Path(folder))
    except OSError:
        return False


def _parts(folder: str, lists: Lists) -> Iterator[Item]:
    # The folder is the table, and lies in another.
    parent = os.path.normpath(os.path.join(folder, os.pardir))
    for name in sorted(os.listdir(folder), key=_by_name):
        yield from lists.items(os.path.join(folder, name), "" if parent == os.curdir else parent)


def _by_name(name: str) -> bytes:
    return os.fsencode(name)


def _matches(pattern: str) -> list[str]:
    parts = Path(pattern).parts
    fixed = list(takewhile(lambda part: not glob.has_magic(part), parts))
    # Unlike glob.glob, this one follows no links in "**", which could lead in circles.
    found = Path(*fixed).glob(str(Path(*parts[len(fixed) :])))
    matches = sorted(map(str, found), key=_by_name)
    if not matches:
        raise InputError(f"{pattern}: matches nothing; check the pattern, and quote it")
    return matches


def is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _folder(top: str) -> Iterator[Item]:
    waiting, seen = [top], set()
    while waiting:
        folder = waiting.pop()
        files, folders = [], []
        try:
            facts = os.stat(folder)
            if (facts.st_dev, facts.st_ino) in seen:  # links can lead in circles
                continue
            seen.add((facts.st_dev, facts.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    if _is_folder(entry):
                        folders.append(entry.name)
                    elif is_image(entry.name):
                        files.append(entry.name)
        except OSError as error:
            reason = f"the folder cannot be read ({error.strerror}); check its permissions"
            yield Item(folder, problem=reason)
            continue
        for name in sorted(files, key=_by_name):
            yield Item(os.path.join(folder, name))
        waiting += [os.path.join(folder, name) for name in sorted(folders, key=_by_name, reverse=True)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
