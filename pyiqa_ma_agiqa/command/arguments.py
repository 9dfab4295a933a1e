"""Options that several commands have."""

from __future__ import annotations

import argparse

from ..scoring.inputs.limits import MAX_BYTES, MAX_PIXELS


def positive(text: str) -> int:
    """Type of an option: a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU where there is one)")


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Limits on what is read and decoded."""
    parser.add_argument(
        "--max-pixels",
        type=positive,
        default=MAX_PIXELS,
        metavar="N",
        help="images with more, by their header, are not decoded (%(default)s)",
    )
    parser.add_argument(
        "--max-bytes",
        type=positive,
        default=MAX_BYTES,
        metavar="N",
        help="larger files are not read (%(default)s)",
    )
