"""Where things lie: a path of this machine, or a URL of a store; and URLs as text without secrets."""

from __future__ import annotations

import os
import re

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_IN_TEXT = re.compile(r"[a-z][a-z0-9+.-]+://[^\s'\"<>]+", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/@]*@")
_WEB = re.compile(r"https?://", re.IGNORECASE)
_QUERY = re.compile(r"\?[^/?]*=[^/]*\Z")
_SECRET = re.compile(
    r"(AWS|AZURE|GOOGLE|GCP|HF|HUGGING)\w*(SECRET|TOKEN|PASSWORD|KEY|KEY_ID|CONNECTION_STRING)"
)
"""Environment variables that hold what the drivers of stores take for a credential."""
LEAST = 8
"""Shorter values of such variables are no secrets, and would be found in any text."""


def is_url(place: str) -> bool:
    return bool(_URL.match(place))


def absolute(place: str) -> str:
    """The place as it is called in every folder."""
    return place if is_url(place) else os.path.abspath(place)


def joined(folder: str, name: str) -> str:
    """The place of a name in a folder; a name that is a place from the root stays one."""
    if is_url(folder) and not is_url(name):
        return f"{folder.rstrip('/')}/{name}"
    return name if is_url(name) else os.path.join(folder, name)


def parent(place: str) -> str:
    """The folder that a place is in."""
    return without_secrets(place).rpartition("/")[0] if is_url(place) else os.path.dirname(place)


def without_secrets(text: str) -> str:
    """Text, such as a URL or an error's, without what a URL or the environment may hold of credentials.

    Of URLs the name of a user with its password is left out, and the query, which signs a URL.
    """
    text = _IN_TEXT.sub(lambda match: _shown(match[0]), text)
    for name in filter(_SECRET.fullmatch, os.environ):  # to read all values would take longer than all else
        value = os.environ.get(name, "")
        if len(value) >= LEAST:
            text = text.replace(value, "***")
    return text


def _shown(url: str) -> str:
    user = _USER.search(url)
    if user and (_WEB.match(url) or ":" in user[0]):  # in abfs://CONTAINER@ACCOUNT it is no user
        url = url[: user.start()] + url[user.end() :]
    return url.partition("?")[0] if _WEB.match(url) else _QUERY.sub("", url)
