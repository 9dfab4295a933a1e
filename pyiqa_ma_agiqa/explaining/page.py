"""An explanation as one HTML page that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from ..compact.reference_scores import reference_scores
from ..names import printable
from ..version import __version__
from .explanation import Explanation
from .overlay import LESS, MORE, NEUTRAL, RAW, colour_limit, map_over_image
from .wording import (
    COLUMN_WIDTH,
    MINUS,
    SCALE,
    acquaintance,
    expected,
    map_in_words,
    map_of,
    parts_of,
    signed,
    spread,
    standing,
    sum_as_shown,
)

LARGEST_SIDE = 1024
"""Larger images are shown smaller, which the page says."""
MAP_SIDES = (448, 640)
BAR_END = 1.5
"""Where the bars end at the nearest, on both sides of 0, so that those of most pages have one scale."""

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(explanation: Explanation, name: str) -> str:
    """The page.

    Args:
        explanation: of an image.
        name: what to call the image; shown as it is, whatever it holds.
    """
    score, typical, parts = sum_as_shown(explanation)
    whole = Image.fromarray(explanation.image)
    shown = whole.copy()
    shown.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    laid = map_over_image(explanation, MAP_SIDES)
    shown_map = map_of(explanation)
    limit = colour_limit(shown_map)
    return _templates.get_template("page.html").render(
        name=printable(name),
        metric=explanation.metric,
        version=__version__,
        score=score,
        standing=standing(explanation),
        expected=expected(explanation),
        acquaintance=acquaintance(explanation),
        quality_is_closed=explanation.familiarity is not None and explanation.gate["quality"] < 0.5,
        reference=reference_scores() if explanation.typical is not None else None,
        typical=typical,
        scale=_scale(explanation),
        parts=_bars(explanation, parts),
        width=whole.width,
        height=whole.height,
        shown=shown,
        smaller=shown.size != whole.size,
        picture=_data_uri(shown, "PNG"),
        laid=laid,
        map=_data_uri(laid, "JPEG", quality=90, subsampling=0),
        map_rows=shown_map.shape[0],
        map_columns=shown_map.shape[1],
        map_words=map_in_words(shown_map),
        map_ends=(signed(-limit), signed(limit)),
        colours={"less": LESS, "neutral": NEUTRAL, "more": MORE, "raw": RAW},
    )


def _data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _scale(explanation: Explanation) -> dict[str, Any]:
    """The drawing of the score on its scale: columns and lines in per cent of its width and height."""
    low, high = SCALE
    columns = []
    if explanation.percentile is not None:
        edges, heights = spread()
        places = 100 * (edges - low) / (high - low)
        columns = [
            {"x": round(x, 2), "width": round(COLUMN_WIDTH * step, 2), "height": round(height, 1)}
            for x, step, height in zip(
                places.tolist(),
                np.diff(places).tolist(),
                (100 * heights / heights.max()).tolist(),
                strict=False,
            )
            if height > 0
        ]
    place = min(max(explanation.score, low), high)
    typical = explanation.typical
    ends = None if explanation.interval is None else np.clip(explanation.interval, low, high)
    return {
        "place": round(100 * (place - low) / (high - low), 2),
        "typical": None if typical is None else round(100 * (typical - low) / (high - low), 2),
        "interval": None if ends is None else (100 * (ends - low) / (high - low)).round(2).tolist(),
        "columns": columns,
        "ticks": [{"text": tick, "x": 100 * (tick - low) / (high - low)} for tick in range(low, high + 1)],
    }


def _bars(explanation: Explanation, texts: dict[str, str]) -> list[dict[str, Any]]:
    """For each expert: name, figure as shown, and its bar, in per cent of the width, with 0 in one line."""
    values = parts_of(explanation)
    typical = explanation.typical is not None
    more, less = ("more", "less") if typical else ("adds", "takes away")
    low, high = min(-BAR_END, *values.values()), max(BAR_END, *values.values())
    zero = -100 * low / (high - low)
    bars = []
    for name, value in values.items():
        length = 100 * abs(value) / (high - low)
        figure = texts[name].lstrip("+" + MINUS)
        word = less if value < 0 else more
        bars.append(
            {
                "name": name,
                "text": texts[name],
                "value": round(value, 4),
                "low": round(low, 4),
                "high": round(high, 4),
                "words": f"{figure} {word} than typical" if typical else f"{word} {figure}",
                "kind": "raw" if not typical else "less" if value < 0 else "more",
                "zero": round(zero, 2),
                "start": round(zero - length if value < 0 else zero, 2),
                "length": round(length, 2),
            }
        )
    return bars
