"""The columns of an output, in order; stable, so that other programs can rely on them."""

from __future__ import annotations

from typing import Any

COLUMNS: dict[str, type] = {"path": str, "score": float, "error": str, "width": int, "height": int}
"""Name and type. `score` is empty where `error` is not; the size is empty where it is not known."""
EXPERTS = ("semantic_content", "coherence", "quality")
MIXTURE: dict[str, type] = {f"{what}_{name}": float for what in ("share", "gate") for name in EXPERTS}
"""Shares, which sum to the score, and gates."""
AGAINST_TYPICAL: dict[str, type] = {
    "typical_score": float,
    **{f"difference_{name}": float for name in EXPERTS},
}
"""What shares have more or less than typical ones; these sum to the score, too. Empty without reference."""
SHARES = MIXTURE | AGAINST_TYPICAL
"""What `--shares` adds."""
INTERVAL: dict[str, type] = {"low": float, "high": float, "familiarity": float}
"""What `--interval` adds: ends of the 90 % prediction interval, and how familiar the image is, 0 to 1."""
ORIGIN: dict[str, type] = {"metric": str, "version": str, "weights": str}
"""What every row says of the run that made it, so that a part of an output, or several together, still do."""

Row = dict[str, Any]
"""Values by column; None for an empty one."""


def columns(shares: bool, interval: bool = False) -> dict[str, type]:
    """What is found for each image."""
    return COLUMNS | (INTERVAL if interval else {}) | (SHARES if shares else {})


def output_columns(shares: bool, interval: bool = False) -> dict[str, type]:
    """The columns of an output."""
    return columns(shares, interval) | ORIGIN
