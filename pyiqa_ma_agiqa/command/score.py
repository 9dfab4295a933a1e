"""``pyiqa-ma-agiqa score``: images to rows of a table, resumable."""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .arguments import add_device, add_limits, positive

if TYPE_CHECKING:
    from .columns import Row
    from .crashes import CrashNote
    from .journal import Journal
    from .scoring import Job

ENDS = ("", "-wal", "-part", "-crash")
"""Of the files of a journal."""
SCORES_DEPEND_ON = (
    *("pyiqa", "torch", "torchvision", "timm", "transformers", "accelerate", "bitsandbytes", "safetensors"),
    *("openai-clip", "einops", "facexlib", "numpy", "scipy", "scikit-image", "pillow"),
    *("opencv-python", "opencv-python-headless", "sentencepiece", "tokenizers"),
)
"""Packages without which, or with another version of which, a score may be another one."""
EPILOG = """\
columns:
  path     the file that was read; TAR!/MEMBER in a tar, PARQUET!/ROW for bytes in a parquet
  score    empty where the image could not be scored
  error    why; empty where all went well
  width, height    of the file; empty where unknown
  with --shares: share_semantic_content, share_coherence, share_quality (their sum is the score),
  gate_semantic_content, gate_coherence, gate_quality, and of ma_agiqa also typical_score,
  difference_semantic_content, difference_coherence, difference_quality (their sum is the score, too)
  metric, version, weights    what made the row: the metric, this package and pyiqa, the weights' SHA-256

exit status: 0 all images scored, 1 some have an error, 2 not done (the message says why),
130 interrupted. After an interruption or a crash the same command, without --restart, goes on where
it was.

examples:
  pyiqa-ma-agiqa score images/ --out scores.csv
  pyiqa-ma-agiqa score 'shards/*.tar' --out scores.parquet --shares
  pyiqa-ma-agiqa score list.csv --column file --out scores.jsonl --metric piqe
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
        "paths (.parquet: or of images), .tar (WebDataset), or an output of this command",
    )
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        help="file to write: .csv, .jsonl or .parquet; without any of these, a folder of parquets",
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
        help="images that pass the network at once; auto (default): 1 on a CPU, where scores are then "
        "exactly those of pyiqa, 16 on a GPU, where the last digits may differ",
    )
    parser.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="threads that decode (default: cores, at most 8)",
    )
    add_device(parser)
    parser.add_argument("--shares", action="store_true", help="add the shares and gates of the experts")
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


def _automatic(text: str) -> int | None:
    return None if text == "auto" else positive(text)


def run(options: argparse.Namespace) -> int:
    """Score; returns the exit status.

    Raises:
        PluginError: the options do not fit, the metric cannot be made, or the run cannot go on.
    """
    from .journal import Journal, cannot_go_on, damaged
    from .output import check_apart, check_output
    from .scoring import check_metric

    path = Path(f"{options.out}.journal")
    try:
        check_output(options.out)
        check_apart(options.out, [path.with_name(path.name + end) for end in ENDS], options.inputs)
        _check_earlier(options, path.exists())
        job = _job(options)
        check_metric(job)
        with closing(Journal(path, _settings(options, job), job.shares, options.restart)) as journal:
            _own_output(options, journal)
            failures, report = _score(options, job, journal)
            journal.remove()
    except (sqlite3.OperationalError, OSError) as error:
        raise cannot_go_on(path, error, _again(options)) from None
    except sqlite3.DatabaseError as error:
        raise damaged(path, error) from None
    _print(report)
    return 1 if failures else 0


def _check_earlier(options: argparse.Namespace, begun: bool) -> None:
    exists = options.out.exists()
    if options.retry_errors and not (exists or begun):
        raise InputError(f"--retry-errors: no {options.out} yet, nor its journal; leave it out")
    if exists and not (begun or options.restart or options.retry_errors):
        raise InputError(f"--out {options.out}: exists; give another name, or --restart to write it anew")


def _own_output(options: argparse.Namespace, journal: Journal) -> None:
    """Check that an output that is there may be replaced, and let a later run know it.

    Raises:
        InputError: it is not of the run that the journal holds.
    """
    from .output import identity

    if not options.out.exists():
        return
    files = identity(options.out)
    if options.restart:
        with journal.database:
            journal.allow(files)
    elif not journal.allows(files) and not (options.retry_errors and not journal.done()):
        raise InputError(
            f"--out {options.out}: exists, and is not of the run that {journal.path} goes on with; move it "
            "away, or give --restart to write it anew"
        )


def _job(options: argparse.Namespace) -> Job:
    from .decoding import Limits
    from .scoring import Job, automatic_batch_size, own_device, threads

    if options.engine == "ray":
        from .ray_engine import cluster_device, connect

        device = cluster_device(connect(), options.device)
    else:
        device = own_device(options.device)
    return Job(
        metric=options.metric,
        device=device,
        batch_size=options.batch_size or automatic_batch_size(device),
        shares=options.shares,
        limits=Limits(options.max_pixels, options.max_bytes),
        workers=options.workers or threads(),
    )


def _settings(options: argparse.Namespace, job: Job) -> dict[str, Any]:
    """All that the rows depend on."""
    from ..version import __version__
    from ..manifest import load_manifest

    return {
        "INPUT": options.inputs,
        "folder": os.getcwd(),
        "--column": options.column,
        "--metric": options.metric,
        "--device": job.device.partition(":")[0],
        "--batch-size": job.batch_size,
        "--shares": options.shares,
        "--max-pixels": options.max_pixels,
        "--max-bytes": options.max_bytes,
        "weights": {
            entry["name"]: entry["sha256"]
            for entry in load_manifest()["files"]
            if options.metric in entry["metric_names"]
        },
        "pyiqa-ma-agiqa": __version__,
    } | {name: _version(name) for name in SCORES_DEPEND_ON}


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _again(options: argparse.Namespace) -> str:
    return "the same command without --restart" if options.restart else "the same command"


def _score(options: argparse.Namespace, job: Job, journal: Journal) -> tuple[int, str]:
    """Score what is pending and write the output; how many rows have an error, and what to tell the user."""
    from .columns import output_columns
    from .crashes import CrashNote
    from .origins import with_origin
    from .output import write_output

    began = time.monotonic()
    note = CrashNote(journal.path.with_name(f"{journal.path.name}-crash"))
    note.hand_over(journal)
    total = _list(options, job, journal)
    before = journal.done()
    if before:
        _say(f"going on: {before} of {total} images have a row already")
    if before < total:
        try:
            with note:
                _score_pending(options, job, journal, note, total, before)
        except KeyboardInterrupt:
            _say(f"interrupted: {journal.done()} of {total} images have a row; {_again(options)} goes on")
            raise
    rows = with_origin(journal.rows(), job.metric)
    write_output(options.out, rows, output_columns(job.shares), journal.make_part(), journal.allow_part)
    return journal.failures(), _report(options, job, journal, time.monotonic() - began, total - before)


def _list(options: argparse.Namespace, job: Job, journal: Journal) -> int:
    """List the images, as far as an earlier run has not; returns how many there are."""
    from .columns import output_columns
    from .inputs import list_items
    from .origins import of_here
    from .output_reading import read_output
    from .retrying import retry_errors, take_in

    stamps: dict[str, str] = {}
    listed = list_items(options.inputs, options.column, stamps)
    if options.retry_errors and not journal.done() and options.out.exists():
        rows = read_output(options.out, output_columns(job.shares))
        take_in(journal, options.out, of_here(options.out, rows, job.metric))
    if options.retry_errors and journal.done():
        retry_errors(journal, listed)
        with journal.database:
            journal.keep(stamps)
        return journal.total()
    total = journal.list_once(listed, stamps)
    if not total:
        raise InputError(f"{' '.join(options.inputs)}: no images there; check the inputs")
    return total


def _score_pending(
    options: argparse.Namespace, job: Job, journal: Journal, note: CrashNote, total: int, before: int
) -> None:
    from tqdm import tqdm

    from .outage import Outage

    seldom = 1 if sys.stderr and sys.stderr.isatty() else 30
    rows = _rows(options, job, journal, note)
    outage = Outage(journal, _again(options))
    progress = tqdm(
        total=total,
        initial=before,
        unit=" images",
        mininterval=seldom,
        dynamic_ncols=True,
        disable=not sys.stderr,
    )
    try:
        with progress, closing(rows):
            for number, row in rows:
                journal.add(number, row)
                progress.update()
                outage.see(row)
    finally:
        journal.commit()


def _rows(
    options: argparse.Namespace, job: Job, journal: Journal, note: CrashNote
) -> Generator[tuple[int, Row], None, None]:
    if options.engine == "ray":
        from .ray_engine import score_on_cluster

        return score_on_cluster(journal.pending(), job, options.actors)
    return _local_rows(job, journal, note)


def _local_rows(job: Job, journal: Journal, note: CrashNote) -> Generator[tuple[int, Row], None, None]:
    from .scoring import Scorer, score_items

    scorer = Scorer(job)
    suspects = journal.suspects()
    if suspects:
        _say(f"the last run died; what it was at is scored one at a time, images: {len(suspects)}")
    for number, item in suspects:
        note.alone(number)
        yield from score_items([(number, item)], scorer, job)
        journal.commit()
    yield from score_items(note.beginning(journal.pending()), scorer, job)


def _report(options: argparse.Namespace, job: Job, journal: Journal, seconds: float, scored: int) -> str:
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    from .names import printable
    from .summary import NAMED, pace, summary

    lower_better = DEFAULT_CONFIGS[job.metric].get("lower_better", False)
    order = "WHERE score IS NOT NULL ORDER BY score {}, number LIMIT ?".format
    worst, best = ("DESC", "ASC") if lower_better else ("ASC", "DESC")
    scores = journal.scores()
    named = min(NAMED, max(len(scores) // 2, 1))
    text = summary(
        scores,
        journal.rows(order(worst), named),
        journal.rows(order(best), named),
        journal.failures(),
        journal.rows("WHERE error != '' ORDER BY number LIMIT ?", NAMED),
    )
    return f"{pace(scored, seconds)}, {job.metric}\n{text}\nwritten to {printable(str(options.out))}"


def _say(text: str) -> None:
    if sys.stderr:
        print(text, file=sys.stderr)


def _print(text: str) -> None:
    """Print, also what the terminal's encoding does not have."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))
