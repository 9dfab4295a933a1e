"""The start-up file: what it costs, that it cannot break Python, and when it acts.

It runs in real environments. pyiqa is there replaced by its two modules that matter, the
originals, in an otherwise empty package, so that torch is not imported each time.
"""

from __future__ import annotations

import importlib.util
import shutil
import zipfile
from pathlib import Path

import pytest

from ..conftest import ROOT

NAME = "pyiqa_ma_agiqa.pth"
MOST_STEPS = 400
MOST_BYTES = 3000


@pytest.fixture(scope="session")
def startup_line(wheel):
    return zipfile.ZipFile(wheel).read(NAME).decode()


@pytest.fixture
def environment(new_environment, startup_line):
    """An environment with the start-up file, two modules of pyiqa, and no package of ours."""
    site = new_environment.site
    (site / "zz_parent.pth").unlink()
    (site / NAME).write_text(startup_line)
    original = Path(importlib.util.find_spec("pyiqa").submodule_search_locations[0])
    (site / "pyiqa" / "utils").mkdir(parents=True)
    for empty in ("pyiqa/__init__.py", "pyiqa/utils/__init__.py"):
        (site / empty).touch()
    for module in ("default_model_configs.py", "utils/registry.py"):
        shutil.copy(original / module, site / "pyiqa" / module)
    return new_environment


@pytest.fixture
def complete(environment):
    """The same with the package."""
    unwanted = shutil.ignore_patterns("__pycache__", "weights")
    shutil.copytree(ROOT / "pyiqa_ma_agiqa", environment.site / "pyiqa_ma_agiqa", ignore=unwanted)
    return environment


TABLE = "from pyiqa.default_model_configs import DEFAULT_CONFIGS as table; "
LISTED = TABLE + "print('ma_agiqa' in table)"


STEPS = """
import site, sys, time
steps = [0]
def count(frame, event, argument):
    frame.f_trace_opcodes = True
    steps[0] += event == "opcode"
    return count
before = set(sys.modules)
sys.settrace(count)
exec(open({line!r}).read())
sys.settrace(None)
imported = set(sys.modules) - before
del sys.meta_path[0]
start = time.perf_counter()
site.addpackage({site!r}, {name!r}, None)
print(steps[0], len(sys.meta_path), (time.perf_counter() - start) * 1e3, *imported)
"""


def test_costs_next_to_nothing(complete):
    """Counted in steps of the interpreter and bytes to compile, which no load of the machine changes."""
    code = STEPS.format(line=str(complete.site / NAME), site=str(complete.site), name=NAME)
    runs = [complete.run("-S", "-c", code).stdout.split() for _ in range(3)]
    assert {len(run) for run in runs} == {3}, "it imported modules"
    assert {run[1] for run in runs} == {"4"}, "it installed no finder"
    print(f"the start-up file takes {min(float(run[2]) for run in runs):.2f} ms")
    assert max(int(run[0]) for run in runs) < MOST_STEPS
    assert (complete.site / NAME).stat().st_size < MOST_BYTES


def test_every_start_is_silent_and_loads_nothing(installed):
    code = "import sys; print(sorted({'torch', 'numpy', 'pyiqa', 'pyiqa_ma_agiqa'} & set(sys.modules)))"
    done = installed.run("-c", code)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def half_removed(package: Path) -> None:
    (package / "registration" / "plugin.py").unlink()


def syntax_error(package: Path) -> None:
    (package / "__init__.py").write_text("this is not Python\n")


def null_bytes(package: Path) -> None:
    (package / "registration" / "plugin.py").write_bytes(b"\0" * 64)


def raises_at_import(package: Path) -> None:
    (package / "registration" / "configs.py").write_text("raise RuntimeError('broken')\n")


def only_a_folder(package: Path) -> None:
    shutil.rmtree(package)
    package.mkdir()


BROKEN = [half_removed, syntax_error, null_bytes, raises_at_import, only_a_folder]


@pytest.mark.parametrize("damage", [shutil.rmtree, *BROKEN])
def test_starts_whatever_is_left_of_the_package(complete, damage):
    damage(complete.site / "pyiqa_ma_agiqa")
    done = complete.run("-W", "error", "-c", "print('started')")
    assert (done.stdout, done.stderr) == ("started\n", "")


@pytest.mark.parametrize("damage", BROKEN)
def test_broken_package_is_one_warning_and_pyiqa_works(complete, damage):
    damage(complete.site / "pyiqa_ma_agiqa")
    done = complete.run("-c", "import pyiqa.utils.registry; " + TABLE + "print('piqe' in table)")
    assert done.stdout == "True\n"
    assert done.stderr.count("Warning: ") == 1
    assert "reinstall pyiqa-ma-agiqa" in done.stderr


def test_start_up_file_left_alone_says_nothing(environment):
    done = environment.run("-W", "error", "-c", LISTED)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize("flags", ["-I", "-E", "-s", "-O", "-OO", "-B", "-W error", "-X frozen_modules=off"])
def test_acts_under_every_flag(complete, flags):
    done = complete.run(*flags.split(" ", 1), "-c", LISTED)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_without_site_nothing_happens(complete):
    done = complete.run("-S", "-c", "import sys; print(len(sys.meta_path))")
    assert (done.stdout, done.stderr) == ("3\n", "")


def test_read_only_installation(complete):
    for path in [complete.site, *complete.site.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        done = complete.run("-c", LISTED)
    finally:
        for path in [complete.site, *complete.site.rglob("*")]:
            path.chmod(0o755)
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.parametrize(("value", "listed"), [("1", "False"), ("yes", "False"), ("0", "True"), ("", "True")])
def test_environment_variable_turns_it_off(complete, value, listed):
    done = complete.run("-c", LISTED, PYIQA_MA_AGIQA_DISABLE=value)
    assert done.stdout.strip() == listed


def test_import_by_hand_where_it_is_turned_off(complete):
    after = TABLE + "import pyiqa_ma_agiqa; print('ma_agiqa' in table)"
    before = "import pyiqa_ma_agiqa; " + LISTED
    for code in (after, before):
        assert complete.run("-c", code, PYIQA_MA_AGIQA_DISABLE="1").stdout == "True\n"


def test_adds_the_entry_as_pyiqa_writes_them(complete):
    done = complete.run("-c", TABLE + "print(table['ma_agiqa'])")
    assert eval(done.stdout) == {
        "metric_opts": {"type": "MAAGIQA", "pretrained": True},
        "metric_mode": "NR",
        "score_range": "~0, ~5",
        "lower_better": False,
    }


def test_leaves_no_trace_on_the_module(complete):
    code = (
        "import pyiqa.default_model_configs as m, inspect; "
        "print(type(m.__loader__).__name__, type(m.__spec__.loader).__name__); "
        "print('OrderedDict' in inspect.getsource(m))"
    )
    assert complete.run("-c", code).stdout == "SourceFileLoader SourceFileLoader\nTrue\n"


def test_spec_without_import_has_what_the_original_has(complete):
    code = (
        "import importlib.util, pyiqa; spec = importlib.util.find_spec('pyiqa.default_model_configs'); "
        "print('OrderedDict' in spec.loader.get_source(spec.name), spec.loader.is_package(spec.name))"
    )
    assert complete.run("-c", code).stdout == "True False\n"


def test_reload_of_either_side(complete):
    code = TABLE + (
        "import importlib, sys, pyiqa_ma_agiqa.registration.plugin, pyiqa.default_model_configs as module\n"
        "[importlib.reload(m) for m in (pyiqa_ma_agiqa.registration.plugin, pyiqa_ma_agiqa, module)]\n"
        "print('ma_agiqa' in module.DEFAULT_CONFIGS)\n"
        "del sys.modules[module.__name__]; import pyiqa.default_model_configs as module\n"
        "print('ma_agiqa' in module.DEFAULT_CONFIGS, len(sys.meta_path))"
    )
    done = complete.run("-W", "error", "-c", code)
    assert (done.stdout, done.stderr) == ("True\nTrue 4\n", "")


def test_import_of_pyiqa_that_fails_midway(complete):
    module = complete.site / "pyiqa" / "default_model_configs.py"
    original = module.read_text()
    module.write_text(original + "\nimport os\nif 'READY' not in os.environ: raise OSError('not ready')\n")
    code = "import os\ntry:\n  import pyiqa.default_model_configs\nexcept OSError as e: print(e)\n"
    code += "os.environ['READY'] = '1'\n" + LISTED
    done = complete.run("-c", code)
    assert (done.stdout, done.stderr) == ("not ready\nTrue\n", "")


@pytest.mark.parametrize("content", ["", "DEFAULT_CONFIGS = None", "import no_such_module"])
def test_pyiqa_that_is_broken_stays_as_it_was(complete, content):
    (complete.site / "pyiqa" / "default_model_configs.py").write_text(content)
    code = "import pyiqa.default_model_configs as m; print(getattr(m, 'DEFAULT_CONFIGS', 'none'))"
    with_plugin = complete.run("-c", code, check=False)
    without = complete.run("-c", code, check=False, PYIQA_MA_AGIQA_DISABLE="1")
    assert (with_plugin.returncode, with_plugin.stdout) == (without.returncode, without.stdout)
    assert with_plugin.stderr.splitlines()[-1:] == without.stderr.splitlines()[-1:]


def test_pyiqa_in_a_zip_file(complete):
    package = complete.site / "pyiqa"
    archive = shutil.make_archive(str(complete.folder / "pyiqa"), "zip", complete.site, "pyiqa")
    shutil.rmtree(package)
    (complete.site / "zipped.pth").write_text(archive)
    done = complete.run("-c", LISTED + "; import pyiqa; print(type(pyiqa.__loader__).__name__)")
    assert (done.stdout, done.stderr) == ("True\nzipimporter\n", "")


def test_name_that_pyiqa_has_is_left_with_one_warning(complete):
    module = complete.site / "pyiqa" / "default_model_configs.py"
    module.write_text(module.read_text() + "\nDEFAULT_CONFIGS['ma_agiqa'] = 'theirs'\n")
    code = TABLE + (
        "from pyiqa.utils.registry import ARCH_REGISTRY; import pyiqa_ma_agiqa, importlib\n"
        "importlib.reload(pyiqa_ma_agiqa); print(table['ma_agiqa'], 'MAAGIQA' in ARCH_REGISTRY)"
    )
    done = complete.run("-W", "always", "-c", code)
    assert done.stdout == "theirs False\n"
    assert done.stderr.count("RuntimeWarning") == 1
    assert "pyiqa has a metric ma_agiqa of its own" in done.stderr


def test_threads_that_import_at_once(complete):
    module = complete.site / "pyiqa" / "default_model_configs.py"
    module.write_text("import time\ntime.sleep(0.2)\n" + module.read_text() + "\ntime.sleep(0.2)\n")
    code = (
        "import importlib, sys, threading\n"
        "seen = []\n"
        "def work(name):\n"
        "    importlib.import_module(name)\n"
        "    table = importlib.import_module('pyiqa.default_model_configs').DEFAULT_CONFIGS\n"
        "    seen.append('ma_agiqa' in table)\n"
        "names = ['pyiqa.default_model_configs', 'pyiqa_ma_agiqa', 'pyiqa.utils.registry'] * 4\n"
        "threads = [threading.Thread(target=work, args=[name]) for name in names]\n"
        "[t.start() for t in threads]; [t.join(120) for t in threads]\n"
        "print(seen.count(True), len(seen), len(sys.meta_path))\n" + LISTED
    )
    done = complete.run("-W", "error", "-c", code)
    assert (done.stdout, done.stderr) == ("12 12 4\nTrue\n", "")
    # By hand, a thread that imports pyiqa alone may be ahead of the one that imports the plugin.
    done = complete.run("-W", "error", "-c", code, PYIQA_MA_AGIQA_DISABLE="1")
    assert done.stdout.endswith(" 12 4\nTrue\n")
    assert done.stderr == ""


def test_another_finder_that_asks_all_finders(complete):
    code = (
        "import sys\n"
        "class Other:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        for finder in sys.meta_path:\n"
        "            if finder is not self and name.startswith('pyiqa.'):\n"
        "                spec = finder.find_spec(name, path, target)\n"
        "                if spec: return spec\n"
        "sys.meta_path.insert({}, Other())\n" + LISTED
    )
    for position in (0, 1):
        done = complete.run("-c", code.format(position))
        assert (done.stdout, done.stderr) == ("True\n", "")


def test_two_start_up_files_install_one_finder(complete, startup_line):
    (complete.site / "another.pth").write_text(startup_line)
    assert complete.run("-c", "import sys; print(len(sys.meta_path))").stdout == "4\n"


BEFORE_THE_UPGRADE = """
import sys
class Finder:
    extends_pyiqa = True
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "pyiqa.default_model_configs":
            try:
                from pyiqa_ma_agiqa.import_hook import find_spec
            except Exception as error:
                import warnings
                warnings.warn(f"reinstall pyiqa-ma-agiqa: {error!r}")
                return None
            return find_spec(name, path, target)
if not any(hasattr(finder, "extends_pyiqa") for finder in sys.meta_path):
    sys.meta_path.insert(0, Finder)
"""


@pytest.mark.parametrize("place", ["a_old.pth", "z_old.pth"])
def test_a_start_up_file_of_before_an_upgrade_hinders_nothing(complete, place):
    """It looks for the rest where that was then. One may be left in the user's own site-packages."""
    (complete.site / place).write_text(f"import sys; exec({BEFORE_THE_UPGRADE!a}, {{}})\n")
    done = complete.run("-c", LISTED)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_broken_package_is_told_once_whatever_filters_do(complete):
    """Each change of the filters of warnings, as torch makes them, would let the same one through again."""
    (complete.site / "pyiqa_ma_agiqa" / "registration" / "plugin.py").unlink()
    code = "import warnings; import pyiqa.utils.registry; warnings.simplefilter('always'); "
    done = complete.run("-c", code + LISTED)
    assert done.stderr.count("reinstall pyiqa-ma-agiqa") == 1
