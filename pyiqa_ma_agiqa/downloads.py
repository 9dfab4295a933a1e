"""Weights of the published system: found in the caches, or fetched, checked and kept.

The checkpoint lies where pyiqa keeps its weights; it comes from Google Drive through gdown. The
large model lies in the cache of the Hugging Face hub, and comes from there through huggingface_hub,
unless a folder was imported. Nothing half-written is taken for good: files are fetched under other
names, checked, and then renamed, and one process fetches while others wait.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

from filelock import FileLock

from .errors import WeightsError
from .manifest import entry
from .recorded_hashes import changed, read_record, record_of, sha256, write_record

logger = logging.getLogger("pyiqa")

CHECKPOINT = "ma_agiqa_owl2_agiqa3k.pt"
LANGUAGE_MODEL = "mplug-owl2-llama2-7b"
"""Names of the two entries of the manifest, and of the file and the folder in pyiqa's cache."""
CONFIG = "config.json"
SMALL_FILES = [CONFIG, "preprocessor_config.json", "tokenizer.model"]
SAFETENSORS, PICKLED = "model*.safetensors", "pytorch_model*.bin"
LANGUAGE_MODEL_FILES = [*SMALL_FILES, "*.index.json", PICKLED, SAFETENSORS]
TIMEOUT = 60
"""Seconds without an answer after which a source counts as out of reach."""
RETRIES = 3


def cache_folder() -> Path:
    """Where pyiqa keeps its weights."""
    from pyiqa.utils.download_util import DEFAULT_CACHE_DIR

    return Path(DEFAULT_CACHE_DIR)


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


def check_checkpoint(path: Path) -> None:
    """Refuse a file that is not the published checkpoint in names, shapes, types, or finite values.

    PyTorch's files carry a checksum of each tensor, so a flipped bit is seen, too.

    Raises:
        WeightsError: says what is wrong.
    """
    from .published.checkpoint import check_official_file

    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as file:
                damaged = file.testzip()
        except (OSError, zipfile.BadZipFile) as error:
            damaged = str(error)
        if damaged:
            raise WeightsError(f"{path}: damaged ({damaged}); fetch it again")
    check_official_file(path)


def check_language_model(folder: Path) -> None:
    """See `mplug_owl2.checking.check_folder`; the architecture is that of the folder's configuration."""
    from .mplug_owl2.checking import check_folder
    from .mplug_owl2.loading import read_config

    check_folder(folder, read_config(folder))


def official_checkpoint() -> Path:
    """The authors' checkpoint, fetched if it is not here.

    No SHA-256 of it is published: the first good file's is recorded beside it and enforced from then on.

    Raises:
        WeightsError: out of reach, damaged, not the file it should be, or not the one it was.
    """
    facts = entry(CHECKPOINT)
    path = cache_folder() / CHECKPOINT
    if not path.is_file():
        fetch_file(facts["url"], path, check_checkpoint, facts["sha256"])
    else:
        enforce(path, check_checkpoint, facts["sha256"])
    return path


def enforce(path: Path, check: Callable[[Path], None], known: str | None) -> None:
    """Refuse a file that is not the one whose SHA-256 is known or was recorded; if none was, record it.

    Args:
        path: the file.
        check: refuses a file of wrong structure; asked where no SHA-256 is known.
        known: the SHA-256, where the manifest has it.

    Raises:
        WeightsError: the file has changed, or its structure is wrong.
    """

    def checked(path: Path) -> None:
        try:
            check(path)
        except WeightsError as error:
            raise WeightsError(f"{error}. Delete that file, and it is fetched anew") from None

    digest = admitted(path, path, checked, known)
    if not record_of(path).is_file():
        with suppress(OSError):  # a folder that may only be read: checked again the next time
            write_record(path, {path.name: digest})


def admitted(file: Path, path: Path, check: Callable[[Path], None], known: str | None) -> str:
    """SHA-256 of a file that is what should lie at `path`.

    Raises:
        WeightsError: it is not.
    """
    digest = sha256(file)
    expected = known or read_record(path).get(path.name)
    if expected is None:
        check(file)
    elif digest != expected:
        raise changed(file, expected, None if known else record_of(path))
    return digest


def fetch_file(url: str, path: Path, check: Callable[[Path], None], known: str | None) -> None:
    """Fetch a file, going on where an earlier try broke off, check it, and put it in place.

    Args:
        url: of the file, or of its page on Google Drive.
        path: where it goes.
        check, known: as for `enforce`.

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
    """Record the SHA-256 of a checked file and rename it.

    Raises:
        WeightsError: there is no room for the record.
    """
    try:
        write_record(path, {path.name: digest})
        incoming.replace(path)
    except OSError as error:
        raise unwritable(path, error) from None


def import_file(source: Path, path: Path, check: Callable[[Path], None], known: str | None) -> None:
    """Copy a file that was brought by hand into its place, checked as a fetched one.

    Raises:
        WeightsError: it is not the file it should be, or there is no room.
    """
    with locked(path):
        digest = admitted(source, path, check, known)
        incoming = path.with_name(path.name + ".imported")
        try:
            shutil.copyfile(source, incoming)
            if sha256(incoming) != digest:
                raise copy_differs(incoming, source)
            put_in_place(incoming, path, digest)
        except OSError as error:
            raise unwritable(path, error) from None
        finally:
            incoming.unlink(missing_ok=True)


def copy_differs(copy: Path, source: Path) -> WeightsError:
    return WeightsError(f"{copy}: the copy differs from {source}; check the disk, import again")


def language_model(source: str) -> Path:
    """Folder of a large model: a local one, an imported one, or a snapshot of a hub's repository.

    Args:
        source: folder or hub id. What the hub's cache holds is taken without asking the hub again, so
            the model does not change between runs. The published one is checked in full the first time,
            and again when a file is newer than the record of that check.

    Raises:
        WeightsError: no such folder, out of reach, files are missing, damaged or changed.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return complete(folder)
    facts = entry(LANGUAGE_MODEL)
    imported = cache_folder() / LANGUAGE_MODEL
    if source == facts["hub_id"]:
        folder = complete(imported) if imported.is_dir() else hub_snapshot(source)
        enforce_model(folder, imported)
        return folder
    if source.count("/") != 1 or source.startswith((".", "~", "/")):
        raise WeightsError(f"{source}: no such folder; give the folder of an mPLUG-Owl2 model, or its hub id")
    return hub_snapshot(source)


def local_language_model() -> Path | None:
    """Folder of mPLUG-Owl2-7B, imported or in the hub's cache; None where it is not on this machine."""
    imported = cache_folder() / LANGUAGE_MODEL
    return imported if imported.is_dir() else cached_snapshot(entry(LANGUAGE_MODEL)["hub_id"])


def cached_snapshot(hub_id: str) -> Path | None:
    """Folder of a repository in the hub's cache; None where it is not there with all files needed."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        # One file is asked for: the library would miss files of the repository that are not needed.
        return complete(Path(snapshot_download(hub_id, allow_patterns=CONFIG, local_files_only=True)))
    except (LocalEntryNotFoundError, WeightsError):
        return None


def hub_snapshot(hub_id: str) -> Path:
    """Folder of the files of a repository in the hub's cache, fetched if they are not there.

    Raises:
        WeightsError: out of reach, no room, or files are missing.
    """
    from huggingface_hub import model_info, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    folder = cached_snapshot(hub_id)
    if folder:
        return folder
    try:
        names = [file.rfilename for file in model_info(hub_id).siblings or []]
        safetensors = any(fnmatch(name, SAFETENSORS) for name in names)
        folder = Path(
            snapshot_download(
                hub_id,
                allow_patterns=LANGUAGE_MODEL_FILES,
                ignore_patterns="pytorch_model*" if safetensors else None,  # the same once more
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError) as error:
        raise _hub_error(hub_id, error) from None
    except OSError as error:
        if error.errno is None or isinstance(error, (ConnectionError, TimeoutError)):
            raise _hub_error(hub_id, error) from None
        raise unwritable(Path(error.filename or hub_id), error) from None
    except Exception as error:  # of the HTTP library that huggingface_hub has at the time
        raise _hub_error(hub_id, error) from None
    return complete(folder)


def _hub_error(hub_id: str, error: Exception) -> WeightsError:
    if hub_id == entry(LANGUAGE_MODEL)["hub_id"]:
        return out_of_reach(LANGUAGE_MODEL, error)
    reason = " ".join(str(error).split()) or type(error).__name__
    return WeightsError(f"{hub_id}: cannot be fetched from the hub: {reason}; check the id, or give a folder")


def complete(folder: Path) -> Path:
    """The folder, if it has the small files and weights: one file, or all that an index names.

    Raises:
        WeightsError: names what is missing.
    """
    wanted = {*SMALL_FILES}
    for name in ("model.safetensors", "pytorch_model.bin"):  # in the order in which they are loaded
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            break
        if index.is_file():
            try:
                wanted |= set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
                raise WeightsError(f"{index}: not an index of weights ({error!r}); fetch it again") from None
            break
    else:
        wanted.add(index.name)
    missing = sorted(name for name in wanted if not (folder / name).is_file())
    if missing:
        raise WeightsError(f"{folder}: {', '.join(missing)} missing; fetch the model again")
    return folder


def model_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a large model by name."""
    files = sorted({path for pattern in LANGUAGE_MODEL_FILES for path in folder.glob(pattern)})
    return {path.name: sha256(path) for path in files}


def import_model(source: Path, check: Callable[[Path], None]) -> Path:
    """Copy the folder of a large model into pyiqa's cache, checked, with its hashes recorded.

    Raises:
        WeightsError: it is not the model it should be, or there is no room.
    """
    complete(source)
    check(source)
    path = cache_folder() / LANGUAGE_MODEL
    with locked(path):
        incoming = path.with_name(path.name + ".imported")
        try:
            shutil.rmtree(incoming, ignore_errors=True)
            incoming.mkdir()
            for pattern in LANGUAGE_MODEL_FILES:
                for file in source.glob(pattern):
                    shutil.copyfile(file, incoming / file.name)
            hashes = model_hashes(incoming)
            if hashes != model_hashes(source):
                raise copy_differs(incoming, source)
            shutil.rmtree(path, ignore_errors=True)
            write_record(path, hashes)
            os.replace(incoming, path)
        except OSError as error:
            raise unwritable(path, error) from None
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
    return path


def enforce_model(folder: Path, record: Path) -> None:
    """`verify_model`, unless that was done and no file is newer than its record.

    Raises:
        WeightsError: names the file at fault.
    """
    noted = record_of(record)
    files = [path for pattern in LANGUAGE_MODEL_FILES for path in folder.glob(pattern)]
    if noted.is_file() and max(path.stat().st_mtime for path in files) <= noted.stat().st_mtime:
        return
    logger.info("%s: every file is checked, once; 16 GB take a minute or more", folder)
    verify_model(folder, record, check_language_model)
    with suppress(OSError):  # a folder that may only be read: checked again the next time
        os.utime(noted)


def verify_model(folder: Path, record: Path, check: Callable[[Path], None]) -> None:
    """Check a large model in full: structure, values, and the SHA-256 of every file.

    Files of the hub's cache that it keeps under their SHA-256 are held against that; all files against
    what was recorded the first time they were found good.

    Args:
        folder: of the model.
        record: path beside which the hashes are recorded.
        check: refuses a folder of wrong structure.

    Raises:
        WeightsError: names the file at fault.
    """
    complete(folder)
    hashes = model_hashes(folder)
    for name, digest in hashes.items():
        blob = (folder / name).resolve()
        if (folder / name).is_symlink() and len(blob.name) == 64 and blob.name != digest:
            raise changed(blob, blob.name)
    recorded = read_record(record)
    for name, digest in recorded.items():
        if hashes.get(name) != digest:
            # In the hub's cache a name is a link, and the file behind it would be linked again.
            raise changed((folder / name).resolve(), digest, record_of(record))
    if not recorded:
        check(folder)
        with suppress(OSError):  # a folder that may only be read: checked again the next time
            record_of(record).parent.mkdir(parents=True, exist_ok=True)
            write_record(record, hashes)
