"""Patterns of inputs to places: braces as WebDataset has them, and globs, of paths and of URLs."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from braceexpand import braceexpand

from ...errors import InputError
from ...places import is_url, without_secrets
from . import storage


def expanded(text: str) -> Iterator[str]:
    """The places that an input stands for, in order; a place that is there is meant as it is.

    Raises:
        InputError: a glob that matches nothing.
    """
    if is_url(text) or not os.path.lexists(text):
        try:
            for place in braceexpand(text, escape=False):
                yield from _globbed(place)
            return
        except ValueError:  # braces that are not closed
            pass
    yield from _globbed(text)


def is_pattern(text: str) -> bool:
    """Whether an input may stand for several places."""
    if not is_url(text):
        return not os.path.lexists(text) and ("{" in text or glob.has_magic(text))
    return "{" in text or _is_glob(text)


def _is_glob(url: str) -> bool:
    return glob.has_magic(url) and not url.lower().startswith(("http://", "https://"))


def _globbed(place: str) -> Iterator[str]:
    if is_url(place):
        yield from _listed(place) if _is_glob(place) else [place]
    # A name with brackets in it that exists is meant as it is.
    elif glob.has_magic(place) and not os.path.lexists(place):
        yield from _matches(place)
    else:
        yield place


def _listed(pattern: str) -> list[str]:
    try:
        found = storage.matches(pattern)
    except OSError as error:
        why = f"cannot be listed ({error.strerror}); check the URL and its credentials"
        raise InputError(f"{without_secrets(pattern)}: {why}") from None
    if not found:
        raise InputError(f"{without_secrets(pattern)}: matches nothing; check the pattern, and quote it")
    return found


def _matches(pattern: str) -> list[str]:
    parts = Path(pattern).parts
    fixed = list(takewhile(lambda part: not glob.has_magic(part), parts))
    # Unlike glob.glob, this one follows no links in "**", which could lead in circles.
    found = Path(*fixed).glob(str(Path(*parts[len(fixed) :])))
    matches = sorted(map(str, found), key=os.fsencode)
    if not matches:
        raise InputError(f"{pattern}: matches nothing; check the pattern, and quote it")
    return matches
