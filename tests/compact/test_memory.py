"""Memory that one step of a score has freed is there for the next one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, sys, torch
from pyiqa_ma_agiqa.compact.arithmetic import machine

class Mallinfo2(ctypes.Structure):  # of glibc's malloc.h
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

counted = ctypes.CDLL(None).mallinfo2
counted.restype = Mallinfo2
if sys.argv[1] == "kept":
    machine.keep_freed_memory()
before = counted().hblks
block = torch.empty(24 * 2**20, dtype=torch.uint8)
print(counted().hblks - before)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or tuple(map(int, platform.libc_ver()[1].split("."))) < (2, 33),
    reason="not glibc 2.33 or later, which tells of its blocks",
)
@pytest.mark.parametrize(("how", "taken_from_the_system"), [("kept", 0), ("as it is", 1)])
def test_large_blocks_are_of_memory_that_is_kept(how, taken_from_the_system):
    """Else the C library takes each large block from the system, and gives it back when it is freed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", SCRIPT, how]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) == taken_from_the_system
