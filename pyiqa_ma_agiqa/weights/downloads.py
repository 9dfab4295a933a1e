"""Fetching weights: from an address or from the Hugging Face hub, checked before they count.

What is fetched and how it is checked, the caller says. Files go where pyiqa keeps its weights, those of
Google Drive through gdown; the hub's into the hub's own cache, through huggingface_hub. Nothing
half-written is taken for good: files are fetched under other names, checked, and then renamed, and one
process fetches while others wait.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from ..errors import WeightsError
from .manifest import entry, load_manifest
from .recorded_hashes import admitted, write_record

CONFIG = "config.json"
"""A file that every model of the hub has."""
TIMEOUT = 60
"""Seconds without an answer after which a source counts as out of reach."""
RETRIES = 3


def cache_folder() -> Path:
    """Where pyiqa keeps its weights."""
    folder = getattr(sys.modules.get("pyiqa.utils.download_util"), "DEFAULT_CACHE_DIR", None)
    if folder is not None:
        return Path(folder)
    from torch.hub import get_dir  # pyiqa itself takes seconds to import

    return Path(get_dir()) / "pyiqa"


def out_of_reach(name: str, reason: str | Exception) -> WeightsError:
    """The one error of weights that are neither here nor can be fetched."""
    facts = entry(name)
    why = " ".join(str(reason).split()) or type(reason).__name__
    if isinstance(reason, Exception):  # of a library, and of any length
        why = why[:400].rstrip(".")
    return WeightsError(
        f"{name} ({facts['approximate_size']}) is not here and cannot be fetched from {facts['sources'][0]}: "
        f"{why}. To bring it by hand, fetch it on a machine with a network "
        f"(`pyiqa-ma-agiqa weights fetch {name}`, or {facts['by_hand']}), carry it here and run "
        "`pyiqa-ma-agiqa weights import PATH`. The metric `ma_agiqa` runs without it."
    )


def unwritable(path: Path, error: OSError) -> WeightsError:
    return WeightsError(
        f"{path}: cannot be written ({error.strerror or error}); make room or make the folder writable, or "
        "set TORCH_HOME (pyiqa's weights) or HF_HOME (the hub's) to another one. The metric `ma_agiqa` "
        "runs without it."
    )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone among processes that would write this path; its folder is made if need be.

    Raises:
        WeightsError: the folder cannot be written to.
    """
    lock = FileLock(path.with_name(path.name + ".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise unwritable(path, error) from None
    try:
        yield
    finally:
        lock.release()


def fetch_file(url: str, path: Path, check: Callable[[Path], None], known: str | None) -> None:
    """Fetch a file, going on where an earlier try broke off, check it, and put it in place.

    Args:
        url: of the file, or of its page on Google Drive.
        path: where it goes.
        check, known: as for `recorded_hashes.enforce`.

    Raises:
        WeightsError: out of reach, no room, or what came is not the file.
    """
    import gdown
    import requests

    with locked(path):
        if path.is_file():  # another process was faster
            return
        incoming = path.with_name(path.name + ".incoming")
        try:
            _download(url, incoming)
        except (requests.RequestException, gdown.exceptions.DownloadError) as error:
            raise out_of_reach(path.name, error) from None
        except OSError as error:
            raise unwritable(path, error) from None
        except Exception as error:  # gdown reads web pages, and these change
            raise out_of_reach(path.name, f"unexpected answer ({error!r})") from None
        try:
            digest = admitted(incoming, path, check, known)
        except WeightsError as error:
            incoming.unlink(missing_ok=True)
            raise out_of_reach(path.name, f"what came is not the file ({error})") from None
        put_in_place(incoming, path, digest)


def _download(url: str, incoming: Path) -> None:
    """gdown's download, which goes on with what an earlier one left behind, or else starts anew.

    gdown gives up, now and the next time, on a part that the server does not continue: one that is
    whole already because the process ended before the renaming, or longer than the file has become.
    """
    import gdown
    import requests

    def sizes() -> dict[Path, int]:
        return {part: part.stat().st_size for part in incoming.parent.glob(f"{incoming.name}*.part")}

    def download() -> None:
        gdown.download(url, str(incoming), resume=True, retries=RETRIES, timeout=TIMEOUT, use_cookies=False)

    left = sizes()
    try:
        download()
    except gdown.exceptions.DownloadError as error:
        page = isinstance(error, gdown.exceptions.FileURLRetrievalError)
        if page or isinstance(error.__cause__, requests.RequestException) or not left or sizes() != left:
            raise
        for part in left:
            part.unlink()
        download()


def put_in_place(incoming: Path, path: Path, digest: str) -> None:
    """Rename a checked file, and record its SHA-256.

    Raises:
        WeightsError: the folder cannot be written to.
    """
    try:
        incoming.replace(path)
    except OSError as error:
        raise unwritable(path, error) from None
    # After the new one is in place: a record of another file would condemn the old one.
    with suppress(OSError):  # no room: checked again the next time
        write_record(path, {path.name: digest})


def cached_snapshot(hub_id: str, complete: Callable[[Path], object]) -> Path | None:
    """Folder of a repository in the hub's cache; None where it is not there with all files needed.

    Args:
        hub_id: the repository.
        complete: refuses a folder in which files are missing.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        # One file is asked for: the library would miss files of the repository that are not needed.
        folder = Path(snapshot_download(hub_id, allow_patterns=CONFIG, local_files_only=True))
        complete(folder)
    except (HFValidationError, LocalEntryNotFoundError, WeightsError):
        return None
    return folder


def hub_snapshot(
    hub_id: str, wanted: Callable[[list[str]], list[str]], complete: Callable[[Path], object]
) -> Path:
    """Folder of the files of a repository in the hub's cache, fetched if they are not there.

    Args:
        hub_id: the repository.
        wanted: of the names of its files those that are needed.
        complete: refuses a folder in which files are missing.

    Raises:
        WeightsError: out of reach, no room, or files are missing.
    """
    from huggingface_hub import model_info, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    folder = cached_snapshot(hub_id, complete)
    if folder:
        return folder
    try:
        names = wanted([file.rfilename for file in model_info(hub_id).siblings or []])
        folder = Path(snapshot_download(hub_id, allow_patterns=names))
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError) as error:
        raise _hub_error(hub_id, error) from None
    except OSError as error:
        if error.errno is None or isinstance(error, (ConnectionError, TimeoutError)):
            raise _hub_error(hub_id, error) from None
        raise unwritable(Path(error.filename or hub_id), error) from None
    except Exception as error:  # of the HTTP library that huggingface_hub has at the time
        raise _hub_error(hub_id, error) from None
    complete(folder)
    return folder


def _hub_error(hub_id: str, error: Exception) -> WeightsError:
    for facts in load_manifest()["files"]:
        if facts.get("hub_id") == hub_id:
            return out_of_reach(facts["name"], error)
    reason = " ".join(str(error).split()) or type(error).__name__
    return WeightsError(f"{hub_id}: cannot be fetched from the hub: {reason}; check the id, or give a folder")
