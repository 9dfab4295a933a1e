"""``pyiqa-ma-agiqa explain``: why an image scored so, as a picture and a page for each."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..names import escape, printable
from ..places import without_secrets
from ..registration.configs import CONFIGS
from .arguments import add_device, add_limits

if TYPE_CHECKING:
    import torch

    from ..explaining.explanation import Explanation
    from ..scoring.scorer import Scorer

DESCRIPTION = """\
Say why images scored so. For each image NAME two files: NAME_explained.png and NAME_explained.html,
a page that opens without a network. They show the score on the MOS scale with its 90 % prediction
interval and its percentile among predictions for AGIQA-3K, how familiar the image is, the exact share of
each expert, and the share of quality by patch over the image."""
EPILOG = """\
exit status: 0 all images explained, 1 some could not be read (each is named on stderr), 2 not done
(the message says why).

example:
  pyiqa-ma-agiqa explain examples/*.png --out explained
"""
LONGEST_STEM = 100
"""Bytes; what is added fits within the 255 that file systems allow."""


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of argparse."""
    parser = commands.add_parser(
        "explain",
        help="show what a score is made of, as pages",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMG",
        help="image files, or what the column path of `score` calls them: TAR!/MEMBER, PARQUET!/ROW, URLs",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--metric", choices=CONFIGS, default="ma_agiqa", help="a metric with experts (%(default)s)"
    )
    add_device(parser)
    add_limits(parser)


def run(options: argparse.Namespace) -> int:
    """Explain every image that can be read; returns the exit status.

    Raises:
        PluginError: the metric cannot be made, or the folder cannot be written.
    """
    from ..scoring.inputs.containers import named_items
    from ..scoring.inputs.decoding import decode_ahead
    from ..scoring.inputs.limits import Limits
    from ..scoring.scorer import Job, Scorer, own_device

    limits = Limits(options.max_pixels, options.max_bytes)
    scorer = Scorer(Job(options.metric, own_device(options.device), 1, True, limits, 1))
    sources, failures = list(map(without_secrets, options.images)), 0
    stems = output_stems(sources, options.out)
    with _writing(options.out):
        options.out.mkdir(parents=True, exist_ok=True)
    with closing(decode_ahead(enumerate(named_items(options.images)), limits, 1)) as images:
        for number, decoded in images:
            result = decoded.error if decoded.pixels is None else _explained(decoded.pixels, scorer)
            if isinstance(result, str):
                print(
                    f"error: {printable(sources[number])}: {printable(result)}",
                    file=sys.stderr,
                    flush=True,
                )
                failures += 1
                continue
            target = options.out / stems[number]
            with _writing(options.out):
                _write(result, sources[number], target)
            print(
                f"{printable(sources[number])}: {_in_short(result)}; {printable(f'{target}.html')}",
                flush=True,
            )
    return 1 if failures else 0


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error}); check the path") from None


def _explained(pixels: torch.Tensor, scorer: Scorer) -> Explanation | str:
    """The explanation of an image, or why there is none.

    Raises:
        PluginError: the metric cannot go on with any image.
    """
    from ..explaining.explanation import explain
    from ..scoring.failures import image_failure

    try:
        return explain(pixels, scorer.metric)
    except Exception as error:
        return image_failure(error, scorer.device)["error"]


def _in_short(explanation: Explanation) -> str:
    from ..explaining.wording import acquaintance, expected, standing, sum_as_shown

    score = ", ".join(filter(None, (sum_as_shown(explanation).score, expected(explanation))))
    return "; ".join(filter(None, (score, acquaintance(explanation), standing(explanation))))


def _write(explanation: Explanation, source: str, target: Path) -> None:
    from ..explaining.page import page
    from ..explaining.picture import save_picture

    name = Path(source).name
    target.with_name(f"{target.name}.html").write_text(page(explanation, name), encoding="utf-8")
    save_picture(explanation, name, target.with_name(f"{target.name}.png"))


def output_stems(sources: Sequence[str], out: Path) -> list[str]:
    """Names, without suffix, for the files of each source: safe, all different, and no source's own."""
    # Some file systems take capital and small letters for the same.
    given = {os.path.realpath(source).casefold() for source in sources}
    taken: set[str] = set()
    stems = []
    for source in sources:
        plain = re.sub(r"[^\w.-]+", "_", escape(Path(source).stem)).encode()[:LONGEST_STEM]
        stem = base = f"{plain.decode(errors='ignore')}_explained"
        number = 1
        while stem.casefold() in taken or any(
            os.path.realpath(out / f"{stem}{suffix}").casefold() in given for suffix in (".html", ".png")
        ):
            number += 1
            stem = f"{base}_{number}"
        taken.add(stem.casefold())
        stems.append(stem)
    return stems
