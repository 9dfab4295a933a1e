"""Memory that one step of a score has freed is there for the next one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, torch
from pyiqa_ma_agiqa.compact.arithmetic import machine
if sys.argv[1] == "kept":
    machine.keep_freed_memory()
def steps():
    blocks = [torch.zeros(2**20) for _ in range(6)]  # of 4 MiB, a thousand pages each
steps()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    steps()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc: its way of giving memory back")
def test_no_page_is_handed_out_anew():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    pages = {}
    for how in ("kept", "as it is"):
        command = [sys.executable, "-c", SCRIPT, how]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        pages[how] = int(done.stdout)
    assert pages["as it is"] > 10_000
    assert pages["kept"] * 5 < pages["as it is"]
