"""``pyiqa-ma-agiqa score``: images to rows of a table, resumable."""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .arguments import add_device, add_limits, positive

if TYPE_CHECKING:
    from .columns import Row
    from .journal import Journal
    from .scoring import Job

EPILOG = """\
columns:
  path     the file that was read; TAR!/MEMBER in a tar, PARQUET!/ROW for bytes in a parquet
  score    empty where the image could not be scored
  error    why; empty where all went well
  width, height    of the file; empty where unknown
  with --shares: share_semantic_content, share_coherence, share_quality (their sum is the score),
  gate_semantic_content, gate_coherence, gate_quality

exit status: 0 all images scored, 1 some have an error, 2 not done (the message says why),
130 interrupted. After an interruption or a crash the same command goes on where it was.

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
        help="image file, folder (with its subfolders), glob, .csv or .parquet with a column of paths "
        "(.parquet: or of image bytes), or .tar (WebDataset)",
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
    parser.add_argument(
        "--restart",
        action="store_true",
        help="begin again, whatever an earlier run has done or written",
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
        PluginError: the options do not fit, or the metric cannot be made.
    """
    from .journal import Journal, cannot_go_on, restart
    from .output import check_output
    from .scoring import check_metric

    check_output(options.out)
    path = options.out.with_name(options.out.name + ".journal")
    if options.restart:
        restart(path)
    elif options.out.exists() and not path.exists():
        raise InputError(f"--out {options.out}: exists; give another name, or --restart to write it anew")
    job = _job(options)
    check_metric(job)
    journal = Journal(path, _settings(options, job), job.shares)
    try:
        return _score(options, job, journal)
    except (sqlite3.OperationalError, OSError) as error:
        raise cannot_go_on(path, error) from None
    finally:
        journal.close()


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
    from importlib.metadata import version

    from .. import __version__
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
    } | {name: version(name) for name in ("pyiqa", "torch", "pillow")}


def _score(options: argparse.Namespace, job: Job, journal: Journal) -> int:
    from .columns import columns
    from .inputs import list_items
    from .output import write_output

    began = time.monotonic()
    total = journal.list_once(list_items(options.inputs, options.column))
    if not total:
        raise InputError(f"{' '.join(options.inputs)}: no images there; check the inputs")
    before = journal.done()
    if before:
        print(f"going on: {before} of {total} images have a row already", file=sys.stderr)
    if before < total:
        try:
            _score_pending(options, job, journal, total, before)
        except KeyboardInterrupt:
            print(
                f"interrupted: {journal.done()} of {total} images have a row; the same command goes on",
                file=sys.stderr,
            )
            raise
    write_output(options.out, journal.rows(), columns(job.shares))
    failures = journal.failures()
    _report(options, job, journal, time.monotonic() - began, total - before)
    journal.remove()
    return 1 if failures else 0


def _score_pending(options: argparse.Namespace, job: Job, journal: Journal, total: int, before: int) -> None:
    from contextlib import closing

    from tqdm import tqdm

    seldom = 1 if sys.stderr.isatty() else 30
    rows = _rows(options, job, journal)
    progress = tqdm(
        total=total,
        initial=before,
        unit=" images",
        mininterval=seldom,
        dynamic_ncols=True,
    )
    try:
        with progress, closing(rows):
            for number, row in rows:
                journal.add(number, row)
                progress.update()
    finally:
        journal.commit()


def _rows(options: argparse.Namespace, job: Job, journal: Journal) -> Generator[tuple[int, Row], None, None]:
    if options.engine == "ray":
        from .ray_engine import score_on_cluster

        return score_on_cluster(journal.pending(), job, options.actors)
    from .scoring import Scorer, score_items

    return score_items(journal.pending(), Scorer(job), job)


def _report(options: argparse.Namespace, job: Job, journal: Journal, seconds: float, scored: int) -> None:
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    from .summary import NAMED, duration, summary

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
    print(
        f"{scored} images in {duration(seconds)} ({scored / max(seconds, 1e-9):.1f} images/s), {job.metric}"
    )
    print(text)
    print(f"written to {options.out}")
