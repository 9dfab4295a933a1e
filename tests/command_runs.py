"""Runs of the console command in processes of their own, which start quickly and can be killed."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# The processes come off a server that has imported what takes seconds to import.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["pyiqa", "pyiqa_ma_agiqa.command.scoring", "tests.command_runs"])


def _command(words: list[str], folder: str, log: str) -> None:
    import torch

    os.chdir(folder)
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    from pyiqa_ma_agiqa.command.main import main

    sys.exit(main(words))


def start(folder: Path, *words: str) -> BaseProcess:
    """Start the command in a folder; what it prints is added to the file `log` there."""
    process = _context.Process(target=_command, args=[list(words), str(folder), str(folder / "log")])
    process.start()
    return process


def run(folder: Path, *words: str) -> int:
    """Run the command in a folder; returns its exit status."""
    process = start(folder, *words)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def rows_in(journal: Path) -> int:
    """Rows on the disk, also while a run has the journal locked: read from a copy."""
    with tempfile.TemporaryDirectory() as folder:
        for path in journal.parent.glob(f"{journal.name}*"):
            with suppress(FileNotFoundError):
                shutil.copy(path, folder)
        with closing(sqlite3.connect(Path(folder, journal.name))) as database:
            try:
                return database.execute("SELECT COUNT(*) FROM rows").fetchone()[0]
            except sqlite3.OperationalError:  # not begun
                return 0


def start_and_wait(folder: Path, rows: int, *command: str) -> BaseProcess:
    """Start a run and wait until it has put some rows on the disk."""
    process = start(folder, *command)
    journal = folder / f"{command[-1]}.journal"
    while rows_in(journal) < rows:
        assert process.is_alive()
        time.sleep(0.05)
    return process


def run_measured(folder: Path, *words: str) -> tuple[int | None, float]:
    """Run the command in a folder; its exit status and the most memory it takes, in MiB. Reads /proc."""
    return _measured(start(folder, *words))


def call_measured(function: Callable[..., None], *arguments: Any) -> tuple[int | None, float]:
    """The same of a function of a module."""
    process = _context.Process(target=function, args=arguments)
    process.start()
    return _measured(process)


def _measured(process: BaseProcess) -> tuple[int | None, float]:
    peak = 0.0
    while process.is_alive():
        with suppress(FileNotFoundError, ProcessLookupError):
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM"):
                    peak = int(line.split()[1]) / 1024
        time.sleep(0.01)
    process.join()
    return process.exitcode, peak


def make_images(folder: Path, count: int, side: int = 16) -> None:
    """Noise of various strengths, numbered, as small PNG files."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        levels = rng.integers(0, 2 + number % 254, (side, side, 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"{number:05}.png", compress_level=1)
