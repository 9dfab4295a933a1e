"""``pyiqa-ma-agiqa compare``: two folders or files of scores, such as those of two generators."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from ..comparing.score_sets import ScoreSet

DESCRIPTION = """\
Compare two sets of images by their scores: A, say a generator as it was, and B, the candidate. Each is
a folder of images, or scores that `pyiqa-ma-agiqa score` wrote. A folder is scored with the
metric of the other side's file, or with ma_agiqa. Scores of two metrics, or of other weights, are refused.

Prints means, difference (B minus A) and win rate of B, each with a 95 % bootstrap interval. Where names
match (paths below the folder, paths in tars, or file names; all with or without the suffix) the images are
compared in pairs, and the win rate is the share of pairs in which B is better, a tie counting half; matches
of less than half of the smaller side do not count. Without pairs it is the probability that a random image
of B is better than one of A. Better is higher, or lower where the metric says so."""
EPILOG = """\
exit status: 0 compared; 1 compared, but the mean of B is below --fail-under, or images of A or B have
no score (the output says which); 2 not done (the message says why).

examples:
  pyiqa-ma-agiqa compare old/ new/ --plot comparison.png
  pyiqa-ma-agiqa compare old.parquet new.parquet --json comparison.json --fail-under 2.8
"""
DEFAULT_METRIC = "ma_agiqa"


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of argparse."""
    parser = commands.add_parser(
        "compare",
        help="compare two folders or two files of scores",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "a",
        metavar="A",
        help="folder of images, or .csv, .jsonl or .parquet with scores, or a folder or URL of parquets",
    )
    parser.add_argument("b", metavar="B", help="the same; the candidate")
    parser.add_argument(
        "--fail-under", type=_finite, metavar="MEAN", help="exit with 1 if the mean of all of B is below this"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the scores to this PNG file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this JSON file")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def run(options: argparse.Namespace) -> int:
    """Compare; returns the exit status.

    Raises:
        PluginError: a side cannot be read or scored, the sides are of two metrics, or a file cannot be
            written.
    """
    from ..comparing.comparison import compare
    from ..comparing.pairing import match_names
    from ..comparing.report import Result, as_json, as_text

    a, b, metric, lower_better = _sides(options)
    matching = match_names(a.paths, b.paths)
    comparison = compare(a.scores, b.scores, matching.pairs, bool(lower_better))
    result = Result(a, b, metric, lower_better, matching, comparison)
    below = options.fail_under is not None and comparison.mean_b.value < options.fail_under
    print(as_text(result))
    if options.fail_under is not None:
        verdict = "BELOW" if below else "not below"
        print(
            f"\nmean of all of B {comparison.mean_b.value:.3f} is {verdict} "
            f"--fail-under {options.fail_under:g}"
        )
    try:
        if options.json:
            content = as_json(result) | {"fail_under": options.fail_under, "below": below}
            options.json.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        if options.plot:
            from ..comparing.plot import save_plot

            save_plot(result, options.plot)
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be written ({error.strerror}); check the path") from None
    return 1 if below or a.failures or b.failures else 0


def _sides(options: argparse.Namespace) -> tuple[ScoreSet, ScoreSet, str, bool | None]:
    """Both sides, their metric, and whether its lower scores are better; each where it is known.

    Files are read first: a folder is scored only if that gives what compares with them.
    """
    from ..comparing.score_sets import holds_images, read_scores, score_folder
    from ..scoring.origins import check_same, lower_is_better, origin_here

    given = [options.a, options.b]
    files = {source: read_scores(source) for source in given if not holds_images(source)}
    folders = [source for source in given if source not in files]
    origins = [(source, origin) for source in files for origin in files[source].origins]
    named = [origin.metric for _, origin in origins if origin.metric]
    metric = named[0] if named else DEFAULT_METRIC if folders else ""
    check_same([*origins, *((folder, origin_here(metric)) for folder in folders)])
    lower_better = lower_is_better(metric) if metric else None
    if lower_better and options.fail_under is not None:
        raise InputError(
            f"--fail-under: of {metric} lower scores are better, and a good B would fail; leave it out, and "
            "hold the mean that --json writes against an upper bound"
        )
    sets = files | {folder: score_folder(folder, metric) for folder in folders}
    return sets[options.a], sets[options.b], metric, lower_better
