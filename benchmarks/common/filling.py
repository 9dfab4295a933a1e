"""Puts result files into pages that have no marks for it.

A table, with the notes and the source line that belong to it, is a block of lines: it is found by how its
first line begins and how its last lines begin. A figure in prose is found by the sentence around it. What
is not found, or found twice, is an error, so no figure drops out of the check unseen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.table_parts import NoResult, read

SOURCE = "`python -m benchmarks."
"""How the lines begin that tell where a table's figures come from."""
FIGURE = r"[-−]?\d*\.?\d+"


@dataclass(frozen=True)
class Block:
    """A table with its notes.

    Attributes:
        begins: how its first line begins.
        content: the text, of the folder of the benchmarks.
    """

    begins: str
    content: Callable[[Path], str]


@dataclass(frozen=True)
class Quote:
    """Figures in prose.

    Attributes:
        sentence: the words around them, each figure as `{3}`, or `{.3}` without the zero before the point,
            the number being that of its decimals. A line break counts as a blank.
        figures: what the figures are, of the folder of the benchmarks.
    """

    sentence: str
    figures: tuple[Callable[[Path], float], ...]


@dataclass(frozen=True)
class Page:
    """What of a page comes from result files.

    Attributes:
        blocks: names of its blocks.
        quotes: figures in its prose.
    """

    blocks: tuple[str, ...]
    quotes: tuple[Quote, ...] = ()


def at(file: str, keys: str) -> Callable[[Path], float]:
    """A figure of a result file; keys, or places in a list, are joined by /."""

    def figure(results: Path) -> float:
        try:
            found = read(results, file)
            for key in keys.split("/"):
                found = found[int(key) if isinstance(found, list) else key]
            return float(found)
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{file} has no figure {keys} ({error!r})") from None

    return figure


def filled(text: str, page: Page, blocks: Mapping[str, Block], results: Path) -> str:
    """The page with its blocks and figures as the result files have them.

    Raises:
        ValueError: a block or a sentence is not there, or there twice, or has no end.
    """
    for name in page.blocks:
        text = _with_block(text, name, blocks[name], results)
    for quote in page.quotes:
        text = _with_quote(text, quote, results)
    return text


def no_result(name: str) -> str:
    """How a line begins that stands in a page in place of a block whose result is not there yet."""
    return f"No result yet for the table {name}:"


def _with_block(text: str, name: str, block: Block, results: Path) -> str:
    try:
        new = block.content(results).splitlines()
    except NoResult as missing:
        new = [f"{no_result(name)} `python -m {missing}` makes it."]
    else:
        if not (new[0].startswith(block.begins) and new[-1].startswith(SOURCE)):
            raise ValueError(f"the table {name} begins or ends otherwise than `pages.py` has it: {new[0]}")
    lines = text.splitlines()
    start, end = _place(lines, name, block, headings=_headings(new))
    return "\n".join([*lines[:start], *new, *lines[end:]]) + "\n"


def _place(lines: list[str], name: str, block: Block, headings: int) -> tuple[int, int]:
    """First line of a block and the line after its last."""
    starts = [place for place, line in enumerate(lines) if line.startswith((block.begins, no_result(name)))]
    if len(starts) != 1:
        raise ValueError(
            f"{len(starts)} lines begin with {block.begins!r}, one should; for a new table write the line "
            f"{no_result(name)!r}"
        )
    (start,) = starts
    if lines[start].startswith(no_result(name)):
        return start, start + 1
    end = next((place for place in range(start, len(lines)) if lines[place].startswith(SOURCE)), len(lines))
    if end == len(lines) or _headings(lines[start:end]) > headings:
        raise ValueError(f"the table {name} has no last line that begins with {SOURCE!r}")
    while end < len(lines) and lines[end].startswith(SOURCE):
        end += 1
    return start, end


def _headings(lines: list[str]) -> int:
    return sum(line.startswith("#") for line in lines)


def _with_quote(text: str, quote: Quote, results: Path) -> str:
    words = re.split(r"\{(\.?\d)\}", quote.sentence)
    between, formats = words[::2], words[1::2]
    if len(formats) != len(quote.figures):
        raise ValueError(f"{quote.sentence!r} has {len(formats)} places for {len(quote.figures)} figures")
    parts = [re.escape(part).replace(r"\ ", r"\s+") for part in between]
    pattern = f"({parts[0]})" + "".join(f"{FIGURE}({part})" for part in parts[1:])
    found = list(re.finditer(pattern, text))
    if len(found) != 1:
        raise ValueError(f"{len(found)} sentences like {quote.sentence!r}, one should be; see `pages.py`")
    shown = [_shown(figure(results), form) for figure, form in zip(quote.figures, formats, strict=True)]
    kept = found[0].groups()
    new = kept[0] + "".join(figure + after for figure, after in zip(shown, kept[1:], strict=True))
    return text[: found[0].start()] + new + text[found[0].end() :]


def _shown(value: float, form: str) -> str:
    figure = f"{value:.{form[-1]}f}"
    return re.sub(r"^(-?)0\.", r"\1.", figure) if form.startswith(".") else figure
