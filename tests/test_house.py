"""The house: imports run from the higher trade to the lower, never back, and no file is long."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from .conftest import HEAVIEST, ROOT

PACKAGE = ROOT / "pyiqa_ma_agiqa"
FLOORS = (
    (
        *("errors", "version", "names", "places", "reason", "experts"),
        *("input_checks", "strict_loading", "own_network", "uncompiled"),
    ),
    ("weights",),
    ("compact", "mplug_owl2"),
    ("published",),
    ("registration",),
    ("scoring", "training", "explaining"),
    ("comparing", "adapting"),
    ("command",),
)
"""Modules and folders of the package from the ground up; what stands on one floor imports nothing of its
neighbours, but for the modules of the ground floor."""
LONGEST = 400


def modules() -> dict[str, Path]:
    """The package's modules by dotted name, without the package's own."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    del found[""]  # the face of the package hands names on
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of the package that a module imports, wherever in it, but for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or id(node) in skipped:
            continue
        if node.level:
            base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
        elif (node.module or "").split(".")[0] == PACKAGE.name:
            base = (node.module or "").split(".")[1:]
        else:
            continue
        target = ".".join(filter(None, base))
        for alias in node.names:
            inside = f"{target}.{alias.name}".lstrip(".")
            found.add(inside if inside in known else target)
    return found - {""}


KNOWN = modules()


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    return {name: imports(name, path, KNOWN) for name, path in KNOWN.items()}


def floor(name: str) -> int:
    room = name.split(".")[0]
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def test_every_module_has_its_room(graph):
    assert {name.split(".")[0] for name in KNOWN} == {room for rooms in FLOORS for room in rooms}
    assert sum(map(len, graph.values())) > 100, "the imports were not read"


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_imports_run_downwards(name, graph):
    for target in graph[name]:
        same_room = name.split(".")[0] == target.split(".")[0]
        below = floor(target) < floor(name) or floor(name) == floor(target) == 0
        assert same_room or below, f"{name} imports {target}, which stands higher or beside it"


def test_there_is_no_circle(graph):
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("folder", ["pyiqa_ma_agiqa", "benchmarks", "tests", "examples"])
def test_no_file_is_long(folder):
    long = [
        f"{path.relative_to(ROOT)}: {lines}"
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST
    ]
    assert not long


def test_the_heaviest_tests_are_there():
    assert [name for name in HEAVIEST if not (ROOT / "tests" / name).is_file()] == []
