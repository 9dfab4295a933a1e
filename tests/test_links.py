"""Links, pictures and anchors of the Markdown pages lead to something."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from .conftest import ROOT

NOT_OURS = {"runs", "build", "dist", "node_modules", "site-packages"}
"""Folders that a checkout may hold besides what is in the repository; and those with a dot first."""
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)|^\s*\[[^\]]+\]:\s*(\S+)|(?:src|href)=\"([^\"]+)\"", re.M)
CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]*`", re.M | re.S)
INDENTED = re.compile(r"(?<=\n\n)(?: {4}.*\n)+")


def pages(root: Path) -> list[Path]:
    found = []
    for path in sorted(root.rglob("*.md")):
        folders = path.relative_to(root).parts[:-1]
        if not any(name in NOT_OURS or name.startswith(".") for name in folders):
            found.append(path)
    return found


def prose(page: Path) -> str:
    """A page without its code, in which brackets are no links."""
    return INDENTED.sub("", CODE.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them: the second of the same name gets -1."""
    text = re.sub(r"^(```|~~~).*?^\1", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found: dict[str, int] = {}
    names = set()
    for heading in re.findall(r"^#{1,6} +(.*?)#*\s*$", text, re.M):
        shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", shown.strip().lower()).replace(" ", "-")
        count = found[name] = found.get(name, -1) + 1
        names.add(f"{name}-{count}" if count else name)
    return names | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))


def broken(page: Path, root: Path) -> list[str]:
    """Links of a page that lead nowhere, or out of the repository by a path."""
    lost = []
    for groups in LINK.findall(prose(page)):
        link = "".join(groups)
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        inside = target.is_relative_to(root.resolve()) and target.exists()
        if inside and anchor and target.is_dir():
            target /= "README.md"
        if not inside or (anchor and anchor not in anchors(target)):
            lost.append(link)
    return lost


PAGES = pages(ROOT)


def test_the_pages_are_found():
    names = {page.relative_to(ROOT).as_posix() for page in PAGES}
    assert {"README.md", "benchmarks/README.md", "benchmarks/accuracy/README.md"} <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page):
    assert broken(page, ROOT) == []


def test_broken_links_are_told(tmp_path):
    (tmp_path / "other.md").write_text("# `score`: one & two\n\n## Twice\n\n## Twice\n")
    (tmp_path / "page.md").write_text(
        "# Here\n[a](other.md#score-one--two) [b](other.md#twice-1) [c](#here)\n"
        "[![d](none.png)](other.md#no) [f](#there)\n"
        "[g](https://example.org/#x) `[h](code.md)` [two\nlines](lost.md) [i](../outside.md)\n"
        '<img src="gone.png"> [j]\n\n[j]: away.md\n\n    [k](indented.md)\n\n```\n[l](fenced.md)\n```\n'
    )
    wanted = ["none.png", "other.md#no", "#there", "lost.md", "../outside.md", "gone.png", "away.md"]
    assert broken(tmp_path / "page.md", tmp_path) == wanted
    assert broken(tmp_path / "other.md", tmp_path) == []


def test_every_folder_of_the_benchmarks_is_in_their_index():
    index = prose(ROOT / "benchmarks" / "README.md")
    for page in (ROOT / "benchmarks").glob("*/README.md"):
        assert f"({page.parent.name})" in index


OWN_PATH = re.compile(
    r"`([\w.-]+(?:/[\w.-]+)+\.(?:py|md|yaml|json|png|csv|html))`"  # in prose, relative to any of `PLACES`
    r"|(?<![\w./])((?:examples|pyiqa_ma_agiqa|docs|benchmarks|tests)/[\w./-]+\.\w+)"  # anywhere, from the top
)
PLACES = ("", "pyiqa_ma_agiqa", "benchmarks")


def lost_paths(page: Path, root: Path) -> list[str]:
    """Paths of this repository that a page names, in prose or in commands, and that are not there."""
    named = {"".join(groups) for groups in OWN_PATH.findall(page.read_text(encoding="utf-8"))}
    bases = [page.parent, *(root / place for place in PLACES)]
    return sorted(path for path in named if not any((base / path).exists() for base in bases))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_path_that_a_page_names_is_there(page):
    assert lost_paths(page, ROOT) == []


def test_a_lost_path_is_found(tmp_path):
    (tmp_path / "pyiqa_ma_agiqa").mkdir()
    (tmp_path / "pyiqa_ma_agiqa" / "here.py").touch()
    page = tmp_path / "page.md"
    page.write_text("`pyiqa_ma_agiqa/here.py` `gone/away.py`\n\n    run examples/none.png runs/mine/x.png\n")
    assert lost_paths(page, tmp_path) == ["examples/none.png", "gone/away.py"]
