"""Files of the published system: found in the caches, or fetched, checked and kept.

The checkpoint lies where pyiqa keeps its weights. The large model lies in the cache of the Hugging Face
hub, unless a folder was imported, which lies beside the checkpoint.
"""

from __future__ import annotations

import json
import logging
import zipfile
from fnmatch import fnmatch
from pathlib import Path

from ..errors import WeightsError
from ..weights import downloads
from ..weights.downloads import cached_snapshot, fetch_file, hub_snapshot
from ..weights.importing import import_file, import_folder, imported_folder
from ..weights.manifest import entry
from ..weights.recorded_hashes import enforce, unchanged, verify_folder

logger = logging.getLogger("pyiqa")

CHECKPOINT = "ma_agiqa_owl2_agiqa3k.pt"
LANGUAGE_MODEL = "mplug-owl2-llama2-7b"
"""Names of the two entries of the manifest, and of the file and the folder in pyiqa's cache."""
SMALL_FILES = ("config.json", "preprocessor_config.json", "tokenizer.model")
WEIGHTS = {"model.safetensors": "model*.safetensors", "pytorch_model.bin": "pytorch_model*.bin"}
"""Name of an unsharded file, in the order in which they are looked for, and pattern of its shards."""


def checkpoint_path() -> Path:
    """Where the authors' checkpoint lies, if it does."""
    return downloads.cache_folder() / CHECKPOINT


def model_path() -> Path:
    """Where an imported large model lies, if it does; its record is kept there for the hub's, too."""
    return downloads.cache_folder() / LANGUAGE_MODEL


def check_checkpoint(path: Path) -> None:
    """Refuse a file that is not the published checkpoint in names, shapes, types, or finite values.

    PyTorch's files carry a checksum of each tensor, so a flipped bit is seen, too.

    Raises:
        WeightsError: says what is wrong.
    """
    from .checkpoint import check_official_file

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
    from ..mplug_owl2.checking import check_folder
    from ..mplug_owl2.loading import read_config

    check_folder(folder, read_config(folder))


def official_checkpoint() -> Path:
    """The authors' checkpoint, fetched if it is not here.

    No SHA-256 of it is published: the first good file's is recorded beside it and enforced from then on.

    Raises:
        WeightsError: out of reach, damaged, not the file it should be, or not the one it was.
    """
    facts, path = entry(CHECKPOINT), checkpoint_path()
    if not path.is_file():
        fetch_file(facts["url"], path, check_checkpoint, facts["sha256"])
    else:
        enforce(path, check_checkpoint, facts["sha256"])
    return path


def verify_checkpoint() -> None:
    """Check the checkpoint that is here in full, by its hash and by its structure.

    Raises:
        WeightsError: it has changed, or is not what it should be.
    """
    enforce(checkpoint_path(), check_checkpoint, entry(CHECKPOINT)["sha256"])
    check_checkpoint(checkpoint_path())


def import_checkpoint(source: Path) -> Path:
    """Bring in the checkpoint's file; its place. See `import_file`.

    Raises:
        WeightsError: of another format than the authors' file, too.
    """
    if source.suffix == ".safetensors":
        raise WeightsError(
            f"{source}: is a safetensors file, and the checkpoint is kept as its authors publish it; import "
            "their file, or give this one as pretrained_model_path"
        )
    import_file(source, checkpoint_path(), check_checkpoint, entry(CHECKPOINT)["sha256"])
    return checkpoint_path()


def language_model(source: str) -> Path:
    """Folder of a large model: a local one, an imported one, or a snapshot of a hub's repository.

    Args:
        source: folder or hub id. What the hub's cache holds is taken without asking the hub again, so
            the model does not change between runs. The published one is checked in full the first time,
            and again when a file is another than the one that was checked, by its size and times.

    Raises:
        WeightsError: no such folder, out of reach, files are missing, damaged or changed.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        model_files(folder)
        return folder
    if source == entry(LANGUAGE_MODEL)["hub_id"]:
        folder = _imported() or hub_snapshot(source, wanted_files, model_files)
        _enforce_language_model(folder)
        return folder
    if source.count("/") != 1 or source.startswith((".", "~", "/")):
        raise WeightsError(f"{source}: no such folder; give the folder of an mPLUG-Owl2 model, or its hub id")
    return hub_snapshot(source, wanted_files, model_files)


def local_language_model() -> Path | None:
    """Folder of mPLUG-Owl2-7B, imported or in the hub's cache; None where it is not on this machine."""
    return _imported() or cached_snapshot(entry(LANGUAGE_MODEL)["hub_id"], model_files)


def _imported() -> Path | None:
    """The folder that was imported, unless files of it are missing: damaged ones are to be deleted."""
    folder = imported_folder(model_path())
    try:
        return folder if folder and model_files(folder) else None
    except WeightsError:
        return None


def verify_language_model(folder: Path) -> None:
    """Check the published large model in full; see `verify_folder`.

    Raises:
        WeightsError: names the file at fault.
    """
    verify_folder(folder, model_files(folder), model_path(), check_language_model)


def import_language_model(source: Path) -> Path:
    """Bring in the large model's folder; its place. See `import_folder`."""
    import_folder(source, model_files(source), model_path(), check_language_model)
    return model_path()


def _enforce_language_model(folder: Path) -> None:
    """`verify_language_model`, unless that was done, and no file looks another than it did then."""
    names = model_files(folder)
    if unchanged(folder, names, model_path()):
        return
    logger.info("%s: every file is checked, once; 16 GB take a minute or more", folder)
    verify_language_model(folder)
    if not unchanged(folder, names, model_path()):
        logger.warning(
            "%s: cannot be written to, so the large model will be checked at each start; run "
            "`pyiqa-ma-agiqa weights verify %s` once as somebody who may write there",
            model_path().parent,
            LANGUAGE_MODEL,
        )


def wanted_files(names: list[str]) -> list[str]:
    """Of the names of a repository's files those of a large model; of weights in two formats, one."""
    patterns = [*SMALL_FILES, "*.index.json", *WEIGHTS.values()]
    if any(fnmatch(name, WEIGHTS["model.safetensors"]) for name in names):
        names = [name for name in names if not fnmatch(name, "pytorch_model*")]  # the same once more
    return [name for name in names if any(fnmatch(name, pattern) for pattern in patterns)]


def model_files(folder: Path) -> list[str]:
    """Names of the files of a large model that are read: small ones, weights, and the index of these.

    Raises:
        WeightsError: names what is missing.
    """
    names = {*SMALL_FILES}
    for name in WEIGHTS:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            names.add(name)
            break
        if index.is_file():
            names |= {index.name, *_shards(index)}
            break
    else:
        names.add(index.name)
    missing = sorted(name for name in names if not (folder / name).is_file())
    if missing:
        raise WeightsError(f"{folder}: {', '.join(missing)} missing; fetch the model again")
    return sorted(names)


def _shards(index: Path) -> set[str]:
    """Names of the files that an index names, all beside it."""
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        strangers = sorted(shard for shard in shards if Path(shard).name != shard)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise WeightsError(f"{index}: not an index of weights ({error!r}); fetch it again") from None
    if strangers:
        raise WeightsError(f"{index}: names {strangers[0]!r}, which is no file beside it; fetch it again")
    return shards
