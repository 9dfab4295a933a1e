"""Shared by the tests: the metric without its weights, built distributions, fresh environments."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import settings
from PIL import Image

# Else each of the many processes that the tests start would compile anew what it imports.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    sys.dont_write_bytecode = False

import pyiqa_ma_agiqa

from .s3_server import s3 as s3

# What the tests import stays until they end: Python need not look through it for garbage, again and again.
gc.disable()

# The same examples in every run, however slow the machine is.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")

ROOT = Path(__file__).resolve().parent.parent
START_UP = ROOT / "tests" / "start_up"
"""Folder of a start-up file, with which processes start more quickly."""
os.environ["PYTHONPATH"] = os.pathsep.join([str(START_UP), *filter(None, [os.environ.get("PYTHONPATH")])])
BUILD_FILES = (
    *("pyproject.toml", "setup.cfg", "setup.py", "MANIFEST.in", "LICENSE", "weights_manifest.json"),
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "pyiqa_ma_agiqa_entry.py"),
)
HEAVIEST = (
    "scoring/test_shards_in_a_store.py",
    "benchmarks/test_published_system.py",
    "registration/test_install.py",
    "compact/test_exactness.py",
    "scoring/test_ray.py",
    "published/test_branch.py",
    "training/test_compact.py",
    "compact/test_model.py",
    "scoring/test_shards_on_ray.py",
    "registration/test_pyiqa_conventions.py",
    "mplug_owl2/test_encoder.py",
    "benchmarks/test_ablations.py",
    "registration/test_plugin.py",
    "adapting/test_adapt.py",
    "published/test_end_to_end.py",
    "weights/test_hub_download.py",
    "weights/test_downloads.py",
    "scoring/test_decoding.py",
    "benchmarks/test_left_out.py",
    "benchmarks/test_against_commit.py",
    "scoring/test_shard_kinds.py",
    "weights/test_importing.py",
)
"""Files of tests that take longest, about in this order; clusters one after the other."""


@pytest.hookimpl(wrapper=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """One more than there are cores: what waits for a cluster, a server or another process leaves its own."""
    return (yield) + 1


def pytest_xdist_setupnodes() -> None:
    """Before the processes start, whose NumPy and PyTorch count their threads as they are imported."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # more would stand in each other's way


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The heaviest files first: each process takes the next file as it ends one, so they end together."""
    places = {ROOT / "tests" / name: place for place, name in enumerate(HEAVIEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


class Environment:
    """A fresh virtual environment that sees what this interpreter has installed, after its own."""

    def __init__(self, folder: Path, new: bool = True) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
        if new:
            venv.create(folder, symlinks=True, with_pip=False)
            parents = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
            # Python does not run the start-up files of a folder that a .pth file names.
            (self.site / "zz_parent.pth").write_text("\n".join(sorted(parents)))

    def run(self, *arguments: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the environment's folder; the start-up file is on unless `variables` say else."""
        names = ("PYTHONPATH", "PYTHONHOME", "PYIQA_MA_AGIQA_DISABLE")
        environ = {k: v for k, v in os.environ.items() if k not in names} | variables
        done = subprocess.run(
            [self.python, *arguments],
            cwd=self.folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=300,  # a deadlock is a failure
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def pip(self, *arguments: str) -> None:
        self.run("-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)

    def install(self, *what: str) -> None:
        # The package may be installed for this interpreter as well: that one does not count.
        self.pip("install", "--no-deps", "--no-build-isolation", "--no-index", "--ignore-installed", *what)

    def files(self) -> set[str]:
        return {str(path.relative_to(self.site)) for path in self.site.rglob("*")}


@pytest.fixture
def new_environment(tmp_path):
    return Environment(tmp_path / "environment")


def copy_checkout(folder: Path) -> Path:
    """What a build needs, hard links where possible, so that no build writes to the checkout."""

    def link(source, target):
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)

    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "pyiqa_ma_agiqa", folder / "pyiqa_ma_agiqa", copy_function=link, ignore=unwanted)
    for name in BUILD_FILES:
        link(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Calls `make` with a new folder, once for all processes of the tests, and gives that folder."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def folder_of(name: str, make: Callable[[Path], object]) -> Path:
        folder = shared / f"shared_{name}"
        with FileLock(shared / f"{name}.lock"):
            if not (folder / ".made").exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                (folder / ".made").touch()
        return folder

    return folder_of


WITHOUT_COMPRESSION = """
import zlib
of_a_level = zlib.compressobj
zlib.compressobj = lambda level, *others: of_a_level(0, *others)
"""
"""A start-up file for builds, whose archives hold weights, which take seconds to compress."""


@pytest.fixture(scope="session")
def wheel(made_once):
    """The wheel, built from the sdist, as `python -m build` does."""

    def build(folder: Path) -> None:
        checkout, start_up = copy_checkout(folder / "checkout"), folder / "start_up"
        start_up.mkdir()
        (start_up / "sitecustomize.py").write_text(WITHOUT_COMPRESSION)
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(checkout)]
        command += ["--config-setting=--build-option=--compression=stored"]
        environ = os.environ | {"PYTHONPATH": str(start_up)}
        done = subprocess.run(command, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    return next(made_once("wheel", build).glob("*.whl"))


@pytest.fixture(scope="session")
def installed(wheel, made_once):
    """An environment with the wheel installed. Not to be changed by tests."""
    folder = made_once("installed", lambda folder: Environment(folder / "venv").install(str(wheel)))
    return Environment(folder / "venv", new=False)


@pytest.fixture(scope="session")
def untrained_metric():
    """The metric from pyiqa's own function, with random weights."""
    import pyiqa
    import torch

    assert pyiqa_ma_agiqa.__version__
    torch.manual_seed(0)
    return pyiqa.create_metric("ma_agiqa", pretrained=False, device="cpu")


@pytest.fixture(scope="session")
def photo():
    """A Pillow image, 96 x 64, RGB: smooth colours with some noise."""
    rows, columns = np.mgrid[0:64, 0:96]
    noise = np.random.default_rng(7).integers(0, 40, (64, 96, 3))
    colours = np.stack([2 * columns, 3 * rows, columns + rows], 2) + noise
    return Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if done.returncode:
        pytest.skip("NOT CHECKED: full and read-only disks need a tmpfs, which cannot be mounted here")
    yield folder
    # A thread of Arrow's may hold a file for a moment that has been read: lazily, it goes when none is held.
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def logged():
    """What pyiqa's logger says, line by line."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("pyiqa")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)


# PyTorch and timm are imported by the processes of the tests alone, not by the one that waits for them.


@pytest.fixture(scope="session")
def published_net():
    """The published network with the golden files' synthetic weights. Not to be changed by tests."""
    from .published_nets import filled_net

    return filled_net()


@pytest.fixture(scope="session")
def published_checkpoint(made_once):
    """A random file of the published layout. Not to be changed by tests."""
    from .published_nets import save_random_checkpoint

    name = "weights.pth"
    return made_once("published", lambda folder: save_random_checkpoint(folder / name)) / name


@pytest.fixture(scope="session")
def tiny_owl2(published_checkpoint, made_once):
    """Options of ma_agiqa_owl2: a tiny large model with vectors of full width, and full-size experts."""
    from .tiny_lmm import save_tiny_lmm

    folder = made_once("tiny_lmm", lambda folder: save_tiny_lmm(folder, hidden=4096))
    return {"semantic_encoder": folder, "pretrained_model_path": published_checkpoint}


@pytest.fixture(scope="module")
def short_towers():
    """For the tests of a file: towers keep all their weights and pass the first block alone.

    Not beside fixtures of the whole session that hold a tower: other files get them, too.
    """
    from pyiqa_ma_agiqa.compact.semantic import SemanticEncoder

    from .passed_by import PassedBy

    whole = SemanticEncoder.__init__

    def short(self) -> None:
        whole(self)
        for block in self.blocks[1:]:
            block.forward = PassedBy().forward

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SemanticEncoder, "__init__", short)
        yield
