"""Explanations made by hand, and what a page says, as its reader gets it."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np

from pyiqa_ma_agiqa.experts import EXPERTS
from pyiqa_ma_agiqa.explaining.explanation import Explanation

HOSTILE = '<img src=x onerror="alert(1)">\n{{ 7 * 7 }}$\u202e&.png'
TYPICAL = (0.85, 0.83, 0.77)


def explanation(
    shares=(0.8, 0.9, -0.2),
    quality_map=((-0.6, 0.2),),
    side=64,
    place=40.0,
    typical=TYPICAL,
    interval=(1.04, 2.17),
    familiarity=0.5,
    gate=0.75,
) -> Explanation:
    """One with a reference and an interval, unless `place` is None."""
    parts = np.subtract(shares, typical).tolist()
    return Explanation(
        metric="ma_agiqa" if place is not None else "ma_agiqa_owl2",
        score=float(np.float32(sum(shares))),
        percentile=place,
        typical=sum(typical) if place is not None else None,
        shares=dict(zip(EXPERTS, shares, strict=True)),
        differences=dict(zip(EXPERTS, parts, strict=True)) if place is not None else None,
        gate=dict(zip(EXPERTS, (1.0, 1.0, gate), strict=True)),
        interval=interval if place is not None else None,
        familiarity=familiarity if place is not None else None,
        quality_map=np.array(quality_map, np.float32),
        image=np.full((side, side, 3), 128, np.uint8),
    )


class Text(HTMLParser):
    """Elements, attributes that load something, and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.loaded: list[str] = []
        self.text = ""
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data):
        self.text += data
