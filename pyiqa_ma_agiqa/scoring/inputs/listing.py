"""What to score: folders, globs, tables of paths, tars and parquets of images, as a stream of items.

The order is stable: inputs as given; in a folder its own files by name, then its folders by name; a
glob's matches by name; tables and tars from top to bottom. Names are compared byte by byte.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ...errors import InputError
from ...places import is_url, parent, without_secrets
from ..rows.output import holds_only_parts, shown
from . import storage
from .containers import Containers
from .expanding import expanded
from .items import Item
from .lists import PATH, Lists
from .streams import check_codec, codec, is_tar
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
    return items_at((place for text in inputs for place in expanded(text)), column, stamps)


def items_at(
    places: Iterable[str],
    column: str = PATH,
    stamps: dict[str, str] | None = None,
) -> Iterator[Item]:
    """The same of places that are no patterns."""
    containers = Containers({} if stamps is None else stamps)
    lists = Lists(containers, column)
    for place in places:
        yield from _expand(place, containers, lists)


def _expand(path: str, containers: Containers, lists: Lists) -> Iterator[Item]:
    if is_url(path) and without_secrets(path) != path:
        raise InputError(
            f"{without_secrets(path)}: its URL holds what may be a credential, and would be kept; give "
            "--out a folder, where each shard becomes a parquet, or use the driver's own credentials"
        )
    if not is_url(path) and os.path.isdir(path):
        return _parts(path, lists) if _is_output(path) else _folder(path)
    if path.lower().endswith(SUFFIXES):
        return lists.items(path, parent(path))
    check_codec(path)
    if codec(path):
        raise InputError(
            f"{path}: is a compressed tar, which is read from front to back; give --out a folder, or "
            "unpack it to a .tar"
        )
    if is_tar(path):
        return (item for item in containers.tars.items(path) if not item.container or is_image(item.name))
    if is_url(path) and not is_image(path):
        return _below(path)
    return iter([Item(path)])


def _below(url: str) -> Iterator[Item]:
    """The images of a folder of a store, by name."""
    try:
        found = storage.below(url) if storage.is_folder(url) else [url]
    except OSError as error:
        yield Item(url, problem=f"the folder cannot be read ({error.strerror}); check its permissions")
        return
    yield from (Item(name) for name in found if name == url or is_image(name))


def _is_output(folder: str) -> bool:
    """Whether `score` wrote this folder."""
    try:
        return any(True for _ in os.scandir(folder)) and holds_only_parts(Path(folder))
    except OSError:
        return False


def _parts(folder: str, lists: Lists) -> Iterator[Item]:
    # The folder is the table, and lies in another.
    parent = os.path.normpath(os.path.join(folder, os.pardir))
    for file in shown(Path(folder)):
        yield from lists.items(os.path.join(folder, file.name), "" if parent == os.curdir else parent)


def _by_name(name: str) -> bytes:
    return os.fsencode(name)


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
