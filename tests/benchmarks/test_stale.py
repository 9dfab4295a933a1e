"""Results that are older than the code they measure, in repositories made here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

from benchmarks.common import machine, stale
from benchmarks.common.places import BENCHMARKS, ROOT

IMPORTS = "from benchmarks.common import timing\n"
FILES = {
    "benchmarks/__init__.py": "",
    "benchmarks/common/__init__.py": "",
    "benchmarks/speed/__init__.py": "",
    "benchmarks/speed/speed.py": f'"""Measures."""\nimport torch\n{IMPORTS}\nROUNDS = 3\n',
    "benchmarks/common/timing.py": "def seconds(call):\n    return call()\n",
    "benchmarks/speed/unrelated.py": "A = 1\n",
    "pyiqa_ma_agiqa/__init__.py": "",
    "pyiqa_ma_agiqa/compact/__init__.py": "",
    "pyiqa_ma_agiqa/compact/arch.py": "def late():\n    from ..experts import gate\n    return gate\n",
    "pyiqa_ma_agiqa/experts.py": "def gate(x):\n    return 2 * x  # twice\n",
}
RESULT = "benchmarks/speed/speed.json"
pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.setitem(stale.REACHED, "benchmarks.speed.speed", ("compact.arch",))
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    return tmp_path


def git(root, *words):
    who = ("-c", "user.name=n", "-c", "user.email=e@x")
    return subprocess.run(
        ["git", "-C", root, *who, *words], capture_output=True, text=True, check=True
    ).stdout


def commit(root):
    git(root, "add", "--all")
    git(root, "commit", "-qm", "m")


def record(root, **more):
    """A result file as a script leaves it that was run now."""
    found = machine.code_version(root, root / "pyiqa_ma_agiqa")
    content = {"command": "python -m benchmarks.speed.speed --rounds 3", **found, **more}
    (root / RESULT).write_text(json.dumps({"cpu": content}))


def found_in(root):
    return stale.stale(root, root / "benchmarks")


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        (
            "benchmarks/speed/speed.py",
            f'"""Measures well."""\n# why\n{IMPORTS}\nROUNDS = 3\n',
            False,
        ),
        ("benchmarks/speed/speed.py", f"{IMPORTS}\nROUNDS = 4\n", True),
        ("benchmarks/common/timing.py", "def seconds(call):\n    return 2 * call()\n", True),
        ("benchmarks/speed/unrelated.py", "A = 2\n", False),
        ("pyiqa_ma_agiqa/experts.py", "def gate(x):\n    return (2\n * x)\n", False),
        ("pyiqa_ma_agiqa/experts.py", "def gate(x):\n    return 3 * x\n", True),
    ],
)
def test_a_change_counts_where_it_can_move_a_figure(repository, file, text, expected):
    record(repository)
    assert found_in(repository) == {}
    (repository / file).write_text(text)
    assert found_in(repository) == ({"speed/speed.json: cpu": [file]} if expected else {})
    commit(repository)
    assert found_in(repository) == ({"speed/speed.json: cpu": [file]} if expected else {})


def test_a_file_that_has_moved_is_the_same(repository):
    """As when scripts of one folder came into folders by question: the record names the new place."""
    record(repository)
    git(repository, "mv", "benchmarks/speed", "benchmarks/pace")
    git(repository, "mv", "benchmarks/common/timing.py", "benchmarks/pace/timing.py")
    script = repository / "benchmarks" / "pace" / "speed.py"
    script.write_text(script.read_text().replace("from benchmarks.common", "from benchmarks.pace"))
    result = repository / "benchmarks" / "pace" / "speed.json"
    result.write_text(result.read_text().replace("benchmarks.speed.speed", "benchmarks.pace.speed"))
    commit(repository)
    assert found_in(repository) == {}
    (repository / "benchmarks" / "pace" / "timing.py").write_text("def seconds(call):\n    return 0\n")
    assert found_in(repository) == {"pace/speed.json: cpu": ["benchmarks/pace/timing.py"]}


def test_a_new_module_counts_before_it_is_committed(repository):
    record(repository)
    (repository / "pyiqa_ma_agiqa" / "compact" / "arch.py").write_text("from .. import fresh\n")
    (repository / "pyiqa_ma_agiqa" / "fresh.py").write_text("B = 1\n")
    files = ["pyiqa_ma_agiqa/compact/arch.py", "pyiqa_ma_agiqa/fresh.py"]
    assert found_in(repository) == {"speed/speed.json: cpu": files}


def test_changes_that_were_not_committed_are_recorded(repository):
    (repository / "benchmarks" / "common" / "timing.py").write_text("def seconds(call):\n    return 3\n")
    (repository / "README.md").write_text("not code")
    record(repository)
    found = json.loads((repository / RESULT).read_text())["cpu"]
    assert found["uncommitted_changes"] == ["benchmarks/common/timing.py"]
    why = ["benchmarks/common/timing.py", "benchmarks/common/timing.py, not committed then"]
    assert found_in(repository) == {"speed/speed.json: cpu": why}


def test_a_package_from_elsewhere_is_told_from_the_repository(repository, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("site") / "pyiqa_ma_agiqa"
    shutil.copytree(repository / "pyiqa_ma_agiqa", elsewhere)
    assert "uncommitted_changes" not in machine.code_version(repository, elsewhere)
    (elsewhere / "experts.py").write_text("def gate(x):\n    return x\n")
    (elsewhere / "compact" / "arch.py").unlink()
    changed = machine.code_version(repository, elsewhere)["uncommitted_changes"]
    assert changed == ["pyiqa_ma_agiqa/compact/arch.py", "pyiqa_ma_agiqa/experts.py"]


def test_what_cannot_be_told_is_said(repository, tmp_path_factory):
    folder = tmp_path_factory.mktemp("no repository")
    assert machine.code_version(folder, folder / "pyiqa_ma_agiqa") == {"commit": None}
    record(repository, commit=None)
    assert found_in(repository) == {"speed/speed.json: cpu": ["it records no commit"]}
    record(repository, commit="0" * 40)
    assert found_in(repository) == {"speed/speed.json: cpu": ["commit 0000000 is not in this repository"]}


def test_other_weights_make_a_result_stale(repository):
    weights = repository / "pyiqa_ma_agiqa" / "weights" / "ma_agiqa.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"new")
    commit(repository)
    record(repository, weights_sha256="0" * 64)
    assert found_in(repository) == {"speed/speed.json: cpu": ["pyiqa_ma_agiqa/weights/ma_agiqa.safetensors"]}


def test_every_result_file_records_its_commit_and_names_a_script():
    scripts = {}
    for path in BENCHMARKS.rglob("*.json"):
        records = list(stale.records(json.loads(path.read_text()), path.name))
        assert records, path
        for name, found in records:
            assert found.get("commit") or found.get("recorded_with_commit"), name
            scripts[stale.script_of(found)] = name
    for script, name in scripts.items():
        assert stale.measured(ROOT, script), name


def test_questions_import_what_they_share_from_common_alone():
    """So that a question can be read, moved or dropped by itself."""
    for path in BENCHMARKS.glob("*/*.py"):
        question = path.parent.name
        if question == "common":
            continue
        imported = re.findall(r"^\s*(?:from|import) benchmarks\.(\w+)", path.read_text(), re.M)
        assert set(imported) <= {question, "common"}, path
