"""What a result file says of the machine, the versions, the code and the command that made it."""

from __future__ import annotations

import datetime
import filecmp
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import pyiqa_ma_agiqa
from benchmarks.common.places import BENCHMARKS, ROOT, module_name

PACKAGES = ("pyiqa", "torch", "timm", "numpy", "scipy", "pillow")
CODE = ("benchmarks/*.py", "pyiqa_ma_agiqa/*.py", "pyiqa_ma_agiqa/weights/*")
"""What figures depend on, as git matches paths: a star stands for folders, too."""


def processor() -> str:
    """Name of the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def git(*words: str, root: Path = ROOT) -> str | None:
    """What git prints; None where there is no git, no repository or no such thing in it."""
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def code_version(root: Path, package: Path) -> dict[str, Any]:
    """The commit of the code that is measured, and its files that are not as in that commit.

    Args:
        root: the repository of the scripts.
        package: the folder that `pyiqa_ma_agiqa` was imported from, in the repository or installed elsewhere.
    """
    commit = git("rev-parse", "HEAD", root=root)
    if commit is None:
        return {"commit": None}
    status = git("status", "--porcelain", "--no-renames", "--untracked-files=all", "--", *CODE, root=root)
    changed = {line[3:] for line in (status or "").splitlines()}
    own = root / package.name
    if package.resolve() != own.resolve():
        names = sorted(path.relative_to(own).as_posix() for path in own.rglob("*.py"))
        _, different, absent = filecmp.cmpfiles(own, package, names, shallow=False)
        changed |= {f"{package.name}/{name}" for name in [*different, *absent]}
    found: dict[str, Any] = {"commit": commit.strip()}
    return found | ({"uncommitted_changes": sorted(changed)} if changed else {})


# When the script starts: a commit made while it runs is not of what it measures.
CODE_VERSION = code_version(ROOT, Path(pyiqa_ma_agiqa.__file__).parent)


def circumstances(arguments: list[str] | None = None) -> dict[str, Any]:
    """Date, command (file names instead of absolute paths), code, machine and versions.

    Args:
        arguments: of the command line that makes this result alone, where the running one makes more.
    """
    words = sys.argv[1:] if arguments is None else arguments
    words = [os.path.basename(word) if os.path.isabs(word) else word for word in words]
    script = Path(sys.argv[0]).resolve()
    known = script.is_relative_to(BENCHMARKS)
    shown = ["-m", module_name(script.relative_to(ROOT))] if known else [script.name]
    return {
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", *shown, *words]),
        **CODE_VERSION,
        "cpu": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {"pyiqa-ma-agiqa": pyiqa_ma_agiqa.__version__}
        | {name: version(name) for name in PACKAGES},
    }


def need_gpu(otherwise: str) -> None:
    """End the script where there is no GPU, with the name of the one that does without."""
    if not torch.cuda.is_available():
        raise SystemExit(f"no GPU is at hand; see `python -m benchmarks.{otherwise}`")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a result file with 6 significant digits; figures that are not finite become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_plain(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
