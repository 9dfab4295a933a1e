"""Which commit of this project is running."""

from __future__ import annotations

import subprocess

from ..weights.manifest import PACKAGE


def running_commit() -> str | None:
    """Hash of the checkout's commit, with ``-dirty`` where files differ from it; None outside a checkout."""
    checkout = PACKAGE.parent
    git = ["git", "-C", str(checkout)]
    try:
        # An installed package may lie within a checkout of something else.
        found = subprocess.run([*git, "rev-parse", "--show-cdup"], capture_output=True, text=True)
        if found.returncode or found.stdout.strip() or not (checkout / "setup.cfg").is_file():
            return None
        described = [*git, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
        return subprocess.run(described, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
