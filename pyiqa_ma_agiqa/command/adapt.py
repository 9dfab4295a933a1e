"""``pyiqa-ma-agiqa adapt``: ratings or choices of one's own to a small weights file."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..adapting.adaptation import Adaptation
    from ..adapting.validation import Figure

DESCRIPTION = """\
Adapt ma_agiqa to your own ratings, or to choices between two images.

    pyiqa-ma-agiqa adapt --images FOLDER --table ratings.csv --out mine.safetensors

ratings.csv has columns name and mos, on any scale, or better and worse, the names of two images. From 20
rows to a few thousand. The experts are refitted in closed form around the shipped ones, as far as the rows
speak for it; the networks stay those of the package, so the file, for pretrained_model_path, is small.

Printed are figures of images that a fit had not seen, with 95 % intervals: before (the shipped score, taken
to your scale), after, and the gain."""


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of argparse."""
    parser = commands.add_parser(
        "adapt",
        help="adapt ma_agiqa to your own ratings, in a minute",
        description=DESCRIPTION,
        epilog="example: pyiqa-ma-agiqa adapt --images renders --table ratings.csv --out mine.safetensors",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the images")
    parser.add_argument(
        "--table", type=Path, required=True, metavar="CSV", help="columns name and mos, or better and worse"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="NAME.safetensors")


def run(options: argparse.Namespace) -> int:
    """Adapt; returns the exit status.

    Raises:
        PluginError: not done; the message says why.
    """
    from ..adapting.adaptation import adapt

    adaptation = adapt(options.images, options.table, options.out)
    print(as_text(adaptation))
    for warning in adaptation.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def as_text(adaptation: Adaptation) -> str:
    """What an adaptation did, in a few lines."""
    strength = adaptation.strength
    lines = [
        f"{adaptation.made_of}; strength of the ridge "
        + ("infinite: the shipped ranking" if math.isinf(strength) else f"{strength:g}"),
        f"{'':8}{'before':24}{'after':24}gain",
    ]
    for name, figure in adaptation.figures.items():
        cells = [_figure(figure.before), _figure(figure.after), _figure(figure.gain, "+")]
        lines.append(f"{name:8}{cells[0]:24}{cells[1]:24}{cells[2]}")
    if adaptation.half_width is not None:
        lines.append(f"90 % interval: about the score +- {adaptation.half_width:.3g}")
    return "\n".join(lines)


def _figure(figure: Figure, sign: str = "") -> str:
    return f"{figure.value:{sign}.3f} [{figure.low:{sign}.3f}, {figure.high:{sign}.3f}]"
