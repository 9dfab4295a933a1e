"""Which results are older than the code that they measure?

    python -m benchmarks.common.stale

Lists each result with the files that changed since the commit that it records: its script, what that
imports and the modules it measures, as far as they are of this repository. A change of comments,
docstrings, imports or a file's place does not count, nor one of what only records or draws. It judges
nothing: whether a change can move a figure is for the reader to say.
"""

from __future__ import annotations

import ast
import hashlib
import json
import modulefinder
import shlex
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from benchmarks.common.machine import CODE, git
from benchmarks.common.places import BENCHMARKS, ROOT

PACKAGE = "pyiqa_ma_agiqa"
REACHED = {
    "benchmarks.accuracy.accuracy": ("compact.arch",),
    "benchmarks.speed.efficiency": ("compact.arch",),
    "benchmarks.speed.against_commit": ("compact.arch",),
    "benchmarks.robustness.robustness": ("compact.arch",),
    "benchmarks.adapting.adapting": ("compact.arch",),
    "benchmarks.command.score_command": ("compact.arch", "command.score", "scoring.run"),
    "benchmarks.published_system.published_full_size": (
        *("published.arch", "command.weights"),
        *("mplug_owl2.encoder", "mplug_owl2.checking"),
    ),
}
"""Script to the modules of the package that it measures without importing them: by name, in a process."""
RECORDS = ("machine.py", "network.py", "places.py", "published.py", "table_parts.py", "colours.py")
RECORDS += ("*_tables.py", "*_figures.py")
REGISTERS = ("__init__.py", "_startup.py", "plugin.py", "explanation.py", "reference_scores.py")
"""What `import pyiqa_ma_agiqa` brings along; no benchmark measures it but for the time of that import."""
WEIGHTS = f"{PACKAGE}/weights/ma_agiqa.safetensors"


def records(content: Any, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The parts of a result file that each have a command of their own, with their names."""
    if isinstance(content, dict):
        if isinstance(content.get("command"), str):
            yield name, content
        for key, value in content.items():
            yield from records(value, f"{name}: {key}")


def measured(root: Path, script: str) -> set[str]:
    """Files of the repository, relative to its root, that a script runs and measures.

    Args:
        root: of the repository.
        script: as `python -m` calls it.

    Raises:
        ImportError: there is no such script.
    """
    # Follows imports as far as they lead to files of the repository: not to torch or Python's own.
    finder = modulefinder.ModuleFinder([str(root)])
    for name in (script, *(f"{PACKAGE}.{name}" for name in REACHED.get(script, ()))):
        finder.import_hook(name)
    found = {Path(module.__file__).resolve() for module in finder.modules.values() if module.__file__}
    files = {file.relative_to(root.resolve()).as_posix() for file in found}
    left_out = (*RECORDS, *REGISTERS)
    return {file for file in files if not any(fnmatch(Path(file).name, pattern) for pattern in left_out)}


def changed_since(root: Path, commit: str) -> dict[str, str | None] | None:
    """Code files that are not as in a commit, with the path that they had there, None for new ones.

    Returns:
        None where the repository has no such commit.
    """
    listed = git("diff", "--name-status", "--find-renames", commit, "--", *CODE, root=root)
    if listed is None:
        return None
    rows = [line.split("\t") for line in listed.splitlines()]
    changed = {row[-1]: None if row[0] == "A" else row[1] for row in rows if row[0] != "D"}
    untracked = git("ls-files", "--others", "--exclude-standard", "--", *CODE, root=root) or ""
    return changed | dict.fromkeys(untracked.splitlines())


def essence(source: str) -> str:
    """What of a Python file can move a figure: all but comments, layout, imports and docstrings."""

    class Bare(ast.NodeTransformer):
        def visit_Import(self, node: ast.AST) -> None:
            return None

        visit_ImportFrom = visit_Import

        def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
            return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    return ast.dump(Bare().visit(ast.parse(source)))


def differs(root: Path, file: str, commit: str, before: str | None) -> bool:
    """Whether a file does something else than in a commit, where it stood at `before`."""
    old = git("show", f"{commit}:{before}", root=root) if before else None
    return old is None or essence(old) != essence((root / file).read_text(encoding="utf-8"))


def script_of(record: dict[str, Any]) -> str:
    """The module that a record's command runs: `python -m MODULE ...`."""
    return shlex.split(record["command"])[2]


def reasons(root: Path, record: dict[str, Any]) -> list[str]:
    """What has changed since a result was measured."""
    commit = record.get("commit") or record.get("recorded_with_commit")
    if commit is None:
        return ["it records no commit"]
    changed = changed_since(root, commit)
    if changed is None:
        return [f"commit {commit[:7]} is not in this repository"]
    script = script_of(record)
    files = sorted(changed.keys() & measured(root, script))
    found = [file for file in files if differs(root, file, commit, changed[file])]
    found += [f"{file}, not committed then" for file in record.get("uncommitted_changes", [])]
    weights = record.get("weights_sha256")
    if weights and weights != hashlib.sha256((root / WEIGHTS).read_bytes()).hexdigest():
        found.append(WEIGHTS)
    return found


def stale(root: Path, results: Path) -> dict[str, list[str]]:
    """Results by name, in files and in parts of files, with what has changed since."""
    found = {}
    for path in sorted(results.rglob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        for name, record in records(content, path.relative_to(results).as_posix()):
            if why := reasons(root, record):
                found[name] = why
    return found


def main() -> None:
    """Command line; see the module's docstring."""
    found = stale(ROOT, BENCHMARKS)
    for name, why in found.items():
        print(f"{name}: {'; '.join(why)}")
    if not found:
        print("no result is older than its code")


if __name__ == "__main__":
    sys.exit(main())
