"""Installed for real: wheel, sdist and editable, used without an import of ours, and removed."""

from __future__ import annotations

import ast
import configparser
import json
import re
import sys
import zipfile

import pytest

from ..conftest import ROOT, START_UP, copy_checkout

STARTUP_FILE = "pyiqa_ma_agiqa.pth"
QUICK = {"PYTHONPATH": str(START_UP)}
"""For processes that import pyiqa."""


def test_wheel_is_complete(wheel):
    """It was built from the sdist, so that is complete, too."""
    package = ROOT / "pyiqa_ma_agiqa"
    wanted = {
        path
        for kind in ("*.py", "*.yaml", "*.json", "*.html", "*.safetensors", "py.typed")
        for path in package.rglob(kind)
    }
    assert any(path.suffix == ".safetensors" for path in wanted), "the package has no weights"
    names = {str(path.relative_to(ROOT)): path for path in wanted}
    names["pyiqa_ma_agiqa/weights_manifest.json"] = ROOT / "weights_manifest.json"
    names["pyiqa_ma_agiqa_entry.py"] = ROOT / "pyiqa_ma_agiqa_entry.py"
    with zipfile.ZipFile(wheel) as archive:
        built = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert built == names.keys() | {STARTUP_FILE}
        for name, path in names.items():
            assert archive.read(name) == path.read_bytes(), name
        record = next(name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
        assert f"\n{STARTUP_FILE}," in "\n" + archive.read(record).decode()


def test_start_up_file_is_one_line_of_ascii(wheel):
    line = zipfile.ZipFile(wheel).read(STARTUP_FILE)
    assert line.isascii()
    assert line.startswith(b"import ")
    assert line.count(b"\n") == 1 and line.endswith(b"\n")


def test_every_import_is_a_declared_dependency():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    required = setup["options"]["install_requires"] + extras["train"] + extras["ray"]
    declared = {re.split(r"[<>=!~;\[ ]", line)[0] for line in required.split()}
    distributions = {"cv2": "opencv-python-headless", "PIL": "pillow", "yaml": "pyyaml"}
    own = {"pyiqa_ma_agiqa", *sys.stdlib_module_names}
    for path in (ROOT / "pyiqa_ma_agiqa").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for top in {name.split(".")[0] for name in names} - own:
                assert distributions.get(top, top) in declared, f"{path} imports {top}"


USE = """
import sys
assert not any(name.startswith("pyiqa") for name in sys.modules)
import pyiqa
assert "ma_agiqa" in pyiqa.list_models() and "ma_agiqa" in pyiqa.list_models("NR")
metric = pyiqa.create_metric("ma_agiqa", device="cpu")
import torch
metric(torch.rand(1, 3, 32, 32))
# What torchvision imports by itself is left out by the start-up file of the tests.
needless = {"torch._dynamo", "timm", "transformers", "scipy"} & {*sys.modules}
assert not needless, f"imported for a score: {needless}"
import pyiqa_ma_agiqa
from pyiqa_ma_agiqa.weights.manifest import load_manifest
import json
sys.__stdout__.write("\\n" + json.dumps([pyiqa_ma_agiqa.__file__, load_manifest()]))
"""


# pyiqa's command, where it has been used already: importing it takes seconds.
COMMAND = """
print(flush=True)
sys.argv = ["pyiqa", "ma_agiqa", "piqe", "-v", "--device", "cpu", "-t", sys.argv[1]]
import runpy
runpy.run_module("pyiqa.pyiqa_cmd", run_name="__main__")
"""


@pytest.fixture(scope="module")
def used(installed, photo, tmp_path_factory):
    """Two images, what a process printed that used the wheel, and what it printed as it scored them."""
    folder = tmp_path_factory.mktemp("photos")
    files = [folder / "a.png", folder / "b.jpg"]
    for file in files:
        photo.save(file)
    printed = installed.run("-c", USE + COMMAND, str(folder), **QUICK).stdout.splitlines()
    use = next(number for number, line in enumerate(printed) if line.startswith("["))
    return files, json.loads(printed[use]), "\n".join(printed[use + 1 :])


def test_found_without_import_from_the_wheel(installed, used):
    file, manifest = used[1]
    assert file == str(installed.site / "pyiqa_ma_agiqa" / "__init__.py")
    assert manifest == json.loads((ROOT / "weights_manifest.json").read_text())


def test_entry_points_are_declared(installed):
    code = (
        "from importlib.metadata import distribution; "
        "found = distribution('pyiqa-ma-agiqa').entry_points; "
        "print(sorted((e.group, e.name, e.load().__name__) for e in found))"
    )
    expected = [("console_scripts", "pyiqa-ma-agiqa", "main"), ("pyiqa.archs", "ma_agiqa", "register")]
    assert installed.run("-c", code).stdout == f"{expected}\n"


def test_turned_off_also_once_pyiqa_has_asked_its_entry_points(installed):
    code = (
        "import sys, pyiqa; from pyiqa.utils.registry import ARCH_REGISTRY\n"
        "sys.__stdout__.write(f\"{'MAAGIQA' in ARCH_REGISTRY} {'ma_agiqa' in pyiqa.list_models()}\")\n"
        "import pyiqa_ma_agiqa; sys.__stdout__.write(f\" {'ma_agiqa' in pyiqa.list_models()}\")"
    )
    done = installed.run("-c", code, PYIQA_MA_AGIQA_DISABLE="1", **QUICK)
    assert done.stdout.endswith("True False True")


def test_command_line(used):
    files, _, printed = used
    results = ast.literal_eval(re.sub(r"np\.float64\((.*?)\)", r"\1", printed[printed.index("{") :]))
    assert results.keys() == {"ma_agiqa", "piqe"}
    for scores in results.values():
        assert scores.keys() == {*map(str, files), "mean"}
        assert scores["mean"] == pytest.approx(sum(scores[str(file)] for file in files) / 2)


@pytest.mark.parametrize("mode", ["lenient", "strict"])
def test_editable(new_environment, tmp_path, mode):
    checkout = copy_checkout(tmp_path / "checkout")
    before = new_environment.files()
    new_environment.install("--config-settings", f"editable_mode={mode}", "-e", str(checkout))
    assert STARTUP_FILE in new_environment.files()
    code = (
        "import sys; "
        "from pyiqa_ma_agiqa.weights.manifest import load_manifest, PACKAGE_WEIGHTS_DIR as folder; "
        "weights = sorted(path.name for path in folder.glob('*.safetensors')); "
        "print(len(sys.meta_path), sorted(load_manifest()), weights)"
    )
    weights = sorted(path.name for path in (ROOT / "pyiqa_ma_agiqa" / "weights").glob("*.safetensors"))
    manifest = sorted(json.loads((ROOT / "weights_manifest.json").read_text()))
    assert new_environment.run("-c", code).stdout == f"4 {manifest} {weights}\n"
    if mode == "lenient":
        file, _ = json.loads(new_environment.run("-c", USE, **QUICK).stdout.splitlines()[-1])
        assert file == str(checkout / "pyiqa_ma_agiqa" / "__init__.py")
    new_environment.pip("uninstall", "--yes", "pyiqa-ma-agiqa")
    assert new_environment.files() == before


def test_uninstalled_wheel_leaves_nothing(new_environment, wheel):
    before = new_environment.files()
    new_environment.install(str(wheel))
    new_environment.run("-c", "import pyiqa_ma_agiqa.weights.manifest, pyiqa_ma_agiqa.registration.plugin")
    new_environment.pip("uninstall", "--yes", "pyiqa-ma-agiqa")
    assert new_environment.files() == before
