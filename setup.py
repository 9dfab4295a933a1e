"""Adds two built files to what setup.cfg describes: the start-up file and the weights manifest."""

import ast
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PACKAGE = "pyiqa_ma_agiqa"
MANIFEST = "weights_manifest.json"


def startup_file() -> str:
    """`_startup.py` as one line, which is what Python runs of a .pth file."""
    source = Path(PACKAGE, "registration", "_startup.py").read_text(encoding="utf-8") + "\nstart()\n"
    code = ast.unparse(ast.parse(source))  # drops the comments, which each process would read again
    return f"import sys; exec({code!a}, {{'__name__': '{PACKAGE}.registration._startup'}})\n"


class BuildWithStartupFile(build_py):
    def run(self) -> None:
        super().run()
        # An editable wheel takes nothing from build_lib, but what lies in install_lib already.
        install_lib = self.get_finalized_command("install").install_lib
        site_packages = Path(install_lib if self.editable_mode else self.build_lib)
        site_packages.joinpath(f"{PACKAGE}.pth").write_text(startup_file(), encoding="utf-8")
        if not self.editable_mode:
            self.copy_file(MANIFEST, str(site_packages / PACKAGE / MANIFEST))


setup(cmdclass={"build_py": BuildWithStartupFile})
