"""Runs of the console command in processes of their own, which start quickly and can be killed."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

STANDING = "standing"
"""The file by which a run says that it stands still."""

FORKS = multiprocessing.get_context("forkserver")
"""For processes that come off a server that has imported what takes seconds to import.

There is one server: whoever has it import other things takes these from all tests behind. It imports nothing
of the tests: it does not have this process's path, and would find another package's folder of that name.
"""
FORKS.set_forkserver_preload(["pyiqa", "pyiqa_ma_agiqa.scoring.scorer"])


def get_ready() -> None:
    """Have the server import what it imports, beside what this process does before its first run."""
    ensure_running()


def _command(words: list[str], folder: str, log: str, before: Callable[[], None] | None) -> None:
    import torch

    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it
    if before:
        before()
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    from pyiqa_ma_agiqa.command.main import main

    sys.exit(main(words))


def _stand_still_after(rows: int) -> None:
    from pyiqa_ma_agiqa.scoring.rows.journal import Journal

    add = Journal.add
    added = []

    def add_or_wait(journal: Journal, number: int, row: dict[str, Any]) -> None:
        add(journal, number, row)
        added.append(number)
        if len(added) == rows:
            journal.commit()
            Path(STANDING).touch()
            threading.Event().wait()

    Journal.add = add_or_wait  # type: ignore[method-assign]


def _crash_at(name: str) -> None:
    from pyiqa_ma_agiqa.scoring.inputs import decoding
    from pyiqa_ma_agiqa.scoring.inputs.items import Item

    read = decoding.read_item

    def read_or_crash(item: Item, max_bytes: int) -> bytes:
        if item.name == name:
            os.kill(os.getpid(), signal.SIGSEGV)
        return read(item, max_bytes)

    decoding.read_item = read_or_crash


def start(folder: Path, *words: str, before: Callable[[], None] | None = None) -> BaseProcess:
    """Start the command in a folder; what it prints is added to the file `log` there.

    Args:
        folder: to run in.
        words: of the command.
        before: called in its process.
    """
    arguments = [list(words), str(folder), str(folder / "log"), before]
    process = FORKS.Process(target=_command, args=arguments)
    process.start()
    return process


def run(folder: Path, *words: str) -> int:
    """Run the command in a folder; returns its exit status."""
    process = start(folder, *words)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def run_with_a_faulty_codec(folder: Path, name: str, *words: str) -> int:
    """Run the command in a folder, where one image ends the process by SIGSEGV."""
    process = start(folder, *words, before=partial(_crash_at, name))
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def rows_in(journal: Path) -> int:
    """Rows on the disk, also while a run has the journal locked: read from a copy."""
    with tempfile.TemporaryDirectory() as folder:
        for end in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copy(f"{journal}{end}", folder)
        with closing(sqlite3.connect(Path(folder, journal.name))) as database:
            try:
                return database.execute("SELECT COUNT(*) FROM rows").fetchone()[0]
            except sqlite3.OperationalError:  # not begun
                return 0


def start_and_wait(folder: Path, rows: int, *command: str) -> BaseProcess:
    """Start a run and wait until it stands still, with so many rows on the disk."""
    standing = folder / STANDING
    standing.unlink(missing_ok=True)
    process = start(folder, *command, before=partial(_stand_still_after, rows))
    while not standing.exists():
        assert process.is_alive()
        time.sleep(0.02)
    return process


def run_measured(folder: Path, *words: str) -> tuple[int | None, float]:
    """Run the command in a folder; its exit status and the most memory it takes, in MiB. Reads /proc."""
    return call_measured(_command, list(words), str(folder), str(folder / "log"), None)


def call_measured(function: Callable[..., None], *arguments: Any) -> tuple[int | None, float]:
    """The same of a function of a module."""
    status, most = ask(_call_and_tell, function, arguments)
    return status, most or 0.0


def ask(function: Callable[..., None], *arguments: Any) -> tuple[int | None, Any]:
    """Call a function of a module in a process of its own; its exit status and what it tells, if anything.

    Args:
        function: is called with a connection to tell through, and the arguments.
    """
    answer, told = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=function, args=(told, *arguments))
    process.start()
    told.close()  # or a process that dies would be waited for
    found = None
    with suppress(EOFError):
        found = answer.recv()
    process.join()
    return process.exitcode, found


def _call_and_tell(told: Connection, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    # The process looks itself: whoever looks from outside, and has to wait for a core, misses the end.
    try:
        function(*arguments)
    finally:
        lines = Path("/proc/self/status").read_text().splitlines()
        told.send(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")))


def make_images(folder: Path, count: int, side: int = 16) -> None:
    """Noise of various strengths, numbered, as small PNG files."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        levels = rng.integers(0, 2 + number % 254, (side, side, 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"{number:05}.png", compress_level=1)
