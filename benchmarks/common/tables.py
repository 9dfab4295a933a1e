"""Writes the result files into the pages.

    python -m benchmarks.common.tables            # rewrite the tables and figures
    python -m benchmarks.common.tables --check    # exit status 1 if one differs from the result files

`pages.py` says which page holds what; nothing in the pages does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.common.filling import Page, filled
from benchmarks.common.pages import BLOCKS, PAGES
from benchmarks.common.places import BENCHMARKS, ROOT

TABLES = {name: block.content for name, block in BLOCKS.items()}


def outdated(root: Path, pages: Mapping[str, Page], results: Path) -> dict[Path, str]:
    """Pages that differ from the result files, with what they should hold.

    Raises:
        ValueError: a page lacks a table or a sentence, or has it twice; the message begins with its name.
    """
    found = {}
    for name, page in pages.items():
        path = root / name
        text = path.read_text(encoding="utf-8")
        try:
            new = filled(text, page, BLOCKS, results)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if new != text:
            found[path] = new
    return found


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing")
    options = parser.parse_args()
    try:
        pages = outdated(ROOT, PAGES, BENCHMARKS)
    except ValueError as error:
        sys.exit(f"tables.py: {error}")
    for page, text in pages.items():
        if options.check:
            print(f"{page.relative_to(ROOT)} differs; run python -m benchmarks.common.tables")
        else:
            page.write_text(text, encoding="utf-8")
            print(f"{page.relative_to(ROOT)} rewritten")
    sys.exit(1 if pages and options.check else 0)


if __name__ == "__main__":
    main()
