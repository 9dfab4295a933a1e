"""Stores behind URLs, through fsspec: what an object is, ranges of its bytes, whole objects, and names.

Credentials are the drivers' own matter. What a store fails to do is asked for again, with growing pauses,
as long as that may help; then, and of what will not help, comes an `OSError` without any secret.
"""

from __future__ import annotations

import errno
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

from ...errors import InputError
from ...places import without_secrets
from ...reason import reason
from .read_file import ReadFile

PATIENCE = 120.0
"""Seconds for which a store that fails is asked again."""
SLOW = 60.0
"""Seconds after which an answer that does not come is asked for again."""
LONGEST_PAUSE = 10.0
FIRST_RANGE = 2**18
LARGEST_RANGE = 2**23
"""Bytes that are fetched at once: more and more, as long as an object is read from front to back."""
READERS = 32
"""Threads that fetch ranges beside who reads them."""
TAGS = ("ETag", "etag", "blob_id", "md5Hash", "LastModified", "last_modified", "mtime", "updated")
"""What stores call that by which another content under the same name is known, the best first."""
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError)
FINAL_NUMBERS = {errno.EINVAL, errno.ENOSPC, errno.EROFS, errno.ENAMETOOLONG}
NOT_FOUND = 404
WORTHWHILE = {408, 425, 429}
"""Answers of a server below 500 that may be others later."""
DRIVERS = (
    *("aiohttp", "aiobotocore", "asyncio", "azure", "botocore", "gcsfs", "google", "httpcore", "httpx"),
    *("huggingface_hub", "requests", "s3fs", "urllib3"),
)
"""Packages whose errors, if they are no `OSError`, tell of a store and not of a fault in the code."""

stopping = threading.Event()
"""Set while a run is ended by its user: nobody is patient any longer."""


@contextmanager
def hurried() -> Iterator[None]:
    """Nobody is patient while this lasts."""
    before = stopping.is_set()
    stopping.set()
    try:
        yield
    finally:
        if not before:
            stopping.clear()


_readers = ThreadPoolExecutor(READERS, thread_name_prefix="range")


class Facts(NamedTuple):
    """What a store says of an object: how large it is, and what changes with its content, or nothing."""

    size: int
    tag: str

    @property
    def stamp(self) -> str:
        return f"{self.size}:{self.tag}"


def facts(url: str) -> Facts:
    """What there is.

    Raises:
        OSError: nothing, or it cannot be known.
    """
    found = _patiently(url, "info")
    if found.get("type") == "directory":
        raise IsADirectoryError(errno.EISDIR, "is a folder")
    if not isinstance(found.get("size"), int):
        raise OSError(errno.EINVAL, "the server does not say how large it is")
    return _facts(found)


def _facts(found: dict[str, Any]) -> Facts:
    return Facts(found["size"], next((str(found[name]).strip('"') for name in TAGS if found.get(name)), ""))


def listed(folder: str) -> dict[str, Facts]:
    """What there is right in a folder, by name: nothing where there is none, or where the web lists it.

    Raises:
        OSError: it cannot be listed.
    """
    if folder.lower().startswith(("http://", "https://")):
        return {}
    try:
        found = _patiently(folder, "ls", detail=True)
    except FileNotFoundError:
        return {}
    files = (entry for entry in found if entry.get("type") != "directory")
    return {
        entry["name"].rpartition("/")[2]: _facts(entry)
        for entry in files
        if isinstance(entry.get("size"), int)
    }


def read_range(url: str, start: int, end: int, patience: float | None = None) -> bytes:
    """The bytes from `start` to `end`, both within the object.

    Args:
        url: of the object.
        start, end: of the range.
        patience: seconds for which to ask again where the store fails; `PATIENCE` unless given.

    Raises:
        OSError: they cannot be had.
    """

    def check(content: bytes) -> bytes:
        if len(content) < end - start:
            raise ConnectionError(errno.ECONNRESET, "the answer was cut off")
        if len(content) > end - start:
            raise OSError(errno.EINVAL, "the server hands out no ranges")
        return content

    if end <= start:
        return b""
    return _patiently(url, "cat_file", start=start, end=end, check=check, patience=patience)


def write_object(url: str, content: bytes) -> None:
    """Write an object, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    _patiently(url, "pipe_file", content)


def delete_object(url: str) -> None:
    """Delete an object.

    Raises:
        OSError: it cannot be deleted.
    """
    _patiently(url, "rm_file")


def is_folder(url: str) -> bool:
    """Whether objects lie below.

    Raises:
        OSError: it cannot be known.
    """
    return _patiently(url, "isdir")


def matches(pattern: str) -> list[str]:
    """URLs of the objects that a glob matches, by name.

    Raises:
        OSError: they cannot be listed.
    """
    return _named(pattern, _patiently(pattern, "glob"))


def below(folder: str) -> list[str]:
    """URLs of all objects below a folder, by name.

    Raises:
        OSError: they cannot be listed.
    """
    return _named(folder, _patiently(folder, "find"))


def _named(url: str, paths: list[str]) -> list[str]:
    start = url[: url.index("://") + 3]
    return [path if "://" in path else start + path for path in sorted(paths)]


class RangeFile(ReadFile):
    """An object as a file: ranges of it are fetched as they are read, in sequence the next one beforehand.

    Raises:
        OSError: there is no such object.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = without_secrets(url)
        self.facts = facts(url)
        self.range = FIRST_RANGE
        self.held: tuple[int, bytes] = (-1, b"")
        self.coming: tuple[int, int, Future[bytes]] | None = None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.facts.size}[whence]
        self.position = max(base + offset, 0)
        return self.position

    def read(self, size: int | None = -1) -> bytes:
        """As many bytes as asked for, unless the object ends before."""
        rest = max(self.facts.size - self.position, 0)
        missing = rest if size is None or size < 0 else min(size, rest)
        parts = []
        while missing:
            start, content = self._holding(missing)
            part = content[self.position - start :][:missing]
            self.position += len(part)
            missing -= len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _holding(self, wanted: int) -> tuple[int, bytes]:
        start, content = self.held
        if start <= self.position < start + len(content):
            return self.held
        if self.coming and self.coming[0] <= self.position < self.coming[1]:
            start, end, future = self.coming
            self.held = start, future.result()
            self.range = min(2 * self.range, LARGEST_RANGE)
            self._fetch_next(end)
        else:
            in_sequence = self.position == start + len(content)
            self.range = min(2 * self.range, LARGEST_RANGE) if in_sequence else FIRST_RANGE
            start = self.position
            end = min(start + max(self.range, wanted), self.facts.size)
            self._forget()
            self.held = start, read_range(self.url, start, end)
            if in_sequence:
                self._fetch_next(end)
        return self.held

    def _fetch_next(self, start: int) -> None:
        end = min(start + self.range, self.facts.size)
        self.coming = (start, end, _readers.submit(read_range, self.url, start, end)) if end > start else None

    def _forget(self) -> None:
        if self.coming:
            self.coming[2].cancel()
        self.coming = None

    def close(self) -> None:
        self._forget()
        self.held = (0, b"")
        super().close()


def _patiently(
    url: str,
    call: str,
    *given: Any,
    check: Callable[[Any], Any] = lambda found: found,
    patience: float | None = None,
    **named: Any,
) -> Any:
    """What a call of the store gives, however often it has to be made."""
    import tenacity

    patience = PATIENCE if patience is None else patience
    store, path = _store(url)
    if store.async_impl:
        named["timeout"] = SLOW  # which fsspec itself takes for what waits for an answer
    again = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_may_pass),
        wait=tenacity.wait_random_exponential(multiplier=0.25, min=0.05, max=LONGEST_PAUSE),
        stop=tenacity.stop_any(tenacity.stop_after_delay(patience), tenacity.stop_when_event_set(stopping)),
        sleep=tenacity.sleep_using_event(stopping),
        reraise=True,
    )
    try:
        return again(lambda: check(getattr(store, call)(path, *given, **named)))
    except Exception as error:
        raise _without_secrets(error) from None


def _store(url: str) -> tuple[Any, str]:
    """The store of a URL, and the object's name in it.

    Raises:
        InputError: there is no such kind of store, its driver is missing, or it finds no credentials.
    """
    from fsspec.core import url_to_fs

    try:
        store, path = url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise InputError(
            f"{without_secrets(url)}: the driver of this store is not installed ({reason(error)}); "
            "pip install 'pyiqa-ma-agiqa[storage]'"
        ) from None
    except ValueError as error:
        why = f"cannot be opened ({_told(error)}); check the URL, and the credentials of its store's driver"
        raise InputError(f"{without_secrets(url)}: {why}") from None
    return store, path


def _may_pass(error: BaseException) -> bool:
    """Whether what failed may go well later."""
    error = _behind(error)
    if isinstance(error, FINAL) or _is_refused(error):
        return False
    if isinstance(error, OSError):
        return error.errno not in FINAL_NUMBERS
    return type(error).__module__.partition(".")[0] in DRIVERS


def _is_refused(error: BaseException) -> bool:
    """Whether credentials are missing, or a server has answered that it will not hand this out, ever."""
    if "Credential" in type(error).__name__:
        return True
    answers = (getattr(error, name, None) for name in ("status", "status_code", "code"))
    status = next((answer for answer in answers if isinstance(answer, int)), 500)
    return 400 <= status < 500 and status not in WORTHWHILE


def _behind(error: BaseException) -> BaseException:
    """What fsspec calls a file that is not there when a server of the web did not answer."""
    cause = error.__cause__
    web = type(cause).__module__.partition(".")[0] == "aiohttp" or isinstance(cause, TimeoutError)
    missing = getattr(cause, "status", None) == NOT_FOUND
    return cause if cause and web and not missing and isinstance(error, FileNotFoundError) else error


def _without_secrets(error: BaseException) -> Exception:
    error = _behind(error)
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "no such file")
    if isinstance(error, IsADirectoryError):
        return IsADirectoryError(errno.EISDIR, "is a folder")
    kind = PermissionError if isinstance(error, PermissionError) or _is_refused(error) else OSError
    return kind(getattr(error, "errno", None) or errno.EIO, _told(error))


def _told(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or reason(error)
    return without_secrets(text)
