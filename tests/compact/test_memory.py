"""Memory that one step of a score has freed is there for the next one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, torch
from pyiqa_ma_agiqa.compact.arithmetic import machine

class Mallinfo2(ctypes.Structure):  # of glibc's malloc.h
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

counted = ctypes.CDLL(None).mallinfo2
counted.restype = Mallinfo2

def taken_from_the_system() -> int:
    before = counted().hblks
    block = torch.empty(24 * 2**20, dtype=torch.uint8)
    return counted().hblks - before

print(taken_from_the_system())
machine.keep_freed_memory()
print(taken_from_the_system())
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or tuple(map(int, platform.libc_ver()[1].split("."))) < (2, 33),
    reason="not glibc 2.33 or later, which tells of its blocks",
)
def test_large_blocks_are_of_memory_that_is_kept():
    """Else the C library takes each large block from the system, and gives it back when it is freed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0"]
