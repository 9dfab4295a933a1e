"""``pyiqa-ma-agiqa score``: images to rows of a table, resumable."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .arguments import add_device, add_limits, positive
from .streams import Printer

if TYPE_CHECKING:
    from ..scoring.columns import Row
    from ..scoring.request import Request

EPILOG = """\
columns:
  path     the file that was read; TAR!/MEMBER in a tar, PARQUET!/ROW for bytes in a parquet
  score    empty where the image could not be scored
  error    why; empty where all went well
  width, height    of the file; empty where unknown
  with --interval: low and high, a 90 % prediction interval for the mean opinion of people, and
  familiarity, the share (0 to 1) of known images that are stranger than this one
  with --shares: share_semantic_content, share_coherence, share_quality (their sum is the score),
  gate_semantic_content, gate_coherence, gate_quality, and of ma_agiqa also typical_score,
  difference_semantic_content, difference_coherence, difference_quality (their sum is the score, too)
  metric, version, weights    what made the row: the metric, this package and pyiqa, the weights' SHA-256

exit status: 0 all images scored, 1 some have an error, 2 not done (the message says why),
130 interrupted. After an interruption or a crash the same command, without --restart, goes on where
it was.

examples:
  pyiqa-ma-agiqa score *.png
  pyiqa-ma-agiqa score images/ --out scores.csv
  pyiqa-ma-agiqa score 'shards/*.tar' --out scores.parquet --shares
  pyiqa-ma-agiqa score list.csv --column file --out scores.jsonl --metric piqe
  pyiqa-ma-agiqa score 's3://bucket/x-{000..999}.tar' --out s3://bucket/scores
  RAY_ADDRESS=head:6379 pyiqa-ma-agiqa score list.parquet --out scores/ --engine ray
"""


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of argparse."""
    parser = commands.add_parser(
        "score",
        help="score folders, globs, tables and tars of images",
        description="Score images; every image gives one row, a broken or missing one a row with its error.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="image file, folder (with its subfolders), glob, .csv, .jsonl or .parquet with a column of "
        "paths (.parquet: or of images), .tar, .tar.gz or .tar.zst (WebDataset), or an output of this "
        "command; also as a URL (extra `storage`), with braces as in x-{000..999}.tar",
    )
    parser.add_argument(
        "--out",
        type=_place,
        help="file to write: .csv, .jsonl or .parquet; without any of these, a folder or URL of parquets, "
        "one for each tar, parquet of images or block of a list where all inputs are such. Without "
        "--out the rows go to standard output as CSV, and nothing is kept to go on with",
    )
    parser.add_argument(
        "--metric",
        default="ma_agiqa",
        help="a no-reference metric of pyiqa (%(default)s)",
    )
    parser.add_argument(
        "--batch-size",
        type=_automatic,
        metavar="N",
        help="images that pass the network at once; auto (default): 1 on a CPU, 16 on a GPU; scores of "
        "ma_agiqa are the same to the last bit with any",
    )
    parser.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="threads that decode (default: cores, at most 8)",
    )
    add_device(parser)
    parser.add_argument("--shares", action="store_true", help="add the shares and gates of the experts")
    parser.add_argument(
        "--interval",
        action="store_true",
        help="add the 90 %% prediction interval and the familiarity of images (ma_agiqa alone)",
    )
    parser.add_argument("--column", default="path", help="column of the tables (%(default)s)")
    add_limits(parser)
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--restart",
        action="store_true",
        help="begin again, whatever an earlier run has done or written",
    )
    again.add_argument(
        "--retry-errors",
        action="store_true",
        help="score again the images whose row has an error, in a finished output too, and only these",
    )
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: on the cluster of RAY_ADDRESS, or on all of this machine (extra `ray`)",
    )
    parser.add_argument(
        "--actors",
        type=positive,
        metavar="N",
        help="with ray: how many copies of the model (default: as many as there is room for)",
    )


def _place(text: str) -> Path | str:
    from ..places import is_url

    return text if is_url(text) else Path(text)


def _automatic(text: str) -> int | None:
    return None if text == "auto" else positive(text)


def run(options: argparse.Namespace) -> int:
    """Score; returns the exit status.

    Raises:
        PluginError: the options do not fit, the metric cannot be made, or the run cannot go on.
    """
    from ..scoring.inputs.limits import Limits
    from ..scoring.request import Request

    given = vars(options).copy()
    limits = Limits(given.pop("max_pixels"), given.pop("max_bytes"))
    del given["command"]
    request = Request(**given, limits=limits)
    return _print_rows(request) if request.out is None else _write(request, request.out)


def _write(request: Request, out: Path | str) -> int:
    from ..names import printable
    from ..scoring.run import make_job, score_to_output
    from ..scoring.shards.plan import is_by_shards
    from ..scoring.shards.run import score_shards
    from .summary import pace, shards_summary, summary

    if is_by_shards(request):
        tally = score_shards(request, make_job(request))
        print(f"{pace(tally.scored, tally.seconds)}, {request.metric}")
        print(shards_summary(tally))
        print(f"written to {printable(str(out))}")
        return 1 if tally.failed or tally.problems else 0
    outcome = score_to_output(request, Path(out))
    print(f"{pace(outcome.scored, outcome.seconds)}, {request.metric}")
    print(summary(outcome))
    print(f"written to {printable(str(out))}")
    return 1 if outcome.failures else 0


def _print_rows(request: Request) -> int:
    for option in ("restart", "retry_errors", "actors"):
        if getattr(request, option):
            raise InputError(f"--{option.replace('_', '-')}: needs an output; give --out")
    if request.engine != "local":
        raise InputError(f"--engine {request.engine}: needs an output; give --out")
    from ..scoring.columns import output_columns
    from ..scoring.rows.output import csv_lines
    from ..scoring.run import score_at_once

    on_terminal = sys.stdout.isatty()
    out = sys.stdout if isinstance(sys.stdout, Printer) else Printer(sys.stdout)
    if not on_terminal:
        out.as_a_file()  # so that all names can be read back
    failures = 0

    def counted(rows: Iterable[Row]) -> Iterator[Row]:
        nonlocal failures
        for row in rows:
            failures += bool(row["error"])
            yield row

    with closing(score_at_once(request, progress=not on_terminal)) as rows:
        for line in csv_lines(counted(rows), output_columns(request.shares, request.interval)):
            print(line, file=out, flush=True)
            if out.lost:
                break
    if failures:
        print(f"failed   {failures}: rows whose column error is not empty", file=sys.stderr)
    return 1 if failures else 0
