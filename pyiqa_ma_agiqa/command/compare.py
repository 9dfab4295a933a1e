"""``pyiqa-ma-agiqa compare``: two folders or files of scores, such as those of two generators."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .names import printable, unescape

if TYPE_CHECKING:
    from ..comparison import Comparison, Estimate
    from .score_sets import ScoreSet

DESCRIPTION = """\
Compare two sets of images by their scores: A, say a generator as it was, and B, the candidate. Each is
a folder, which is scored with ma_agiqa, or a file of scores that `pyiqa-ma-agiqa score` wrote. Higher
scores count as better.

Prints means, difference (B minus A) and win rate of B, each with a 95 % bootstrap interval. Where names
match (paths below the folder, or file names) the images are compared in pairs, and the win rate is the
share of pairs in which B is higher, a tie counting half; matches of less than half of the smaller side
do not count. Without pairs it is the probability that a random image of B is higher than one of A."""
EPILOG = """\
exit status: 0 compared; 1 compared, but the mean of B is below --fail-under, or images of A or B have
no score (the output says which); 2 not done (the message says why).

examples:
  pyiqa-ma-agiqa compare old/ new/ --plot comparison.png
  pyiqa-ma-agiqa compare old.parquet new.parquet --json comparison.json --fail-under 2.8
"""
NAMED = 5
"""Failures that are named in the text; the JSON has all."""


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of argparse."""
    parser = commands.add_parser(
        "compare",
        help="compare two folders or two files of scores",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("a", metavar="A", help="folder of images, or .csv, .jsonl or .parquet with scores")
    parser.add_argument("b", metavar="B", help="the same; the candidate")
    parser.add_argument(
        "--fail-under", type=_finite, metavar="MEAN", help="exit with 1 if the mean of B is below this"
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
        PluginError: a side cannot be read or scored, or a file cannot be written.
    """
    from ..comparison import compare, pairs_by_name
    from .score_sets import score_set

    a, b = score_set(options.a), score_set(options.b)
    comparison = compare(a.scores, b.scores, pairs_by_name(a.paths, b.paths))
    below = options.fail_under is not None and comparison.mean_b.value < options.fail_under
    print(as_text(a, b, comparison))
    if options.fail_under is not None:
        verdict = "BELOW" if below else "not below"
        print(f"\nmean of B {comparison.mean_b.value:.3f} is {verdict} --fail-under {options.fail_under:g}")
    try:
        if options.json:
            content = as_json(a, b, comparison) | {"fail_under": options.fail_under, "below": below}
            options.json.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        if options.plot:
            from .comparison_plot import save_plot

            save_plot(a, b, comparison, options.plot)
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be written ({error.strerror}); check the path") from None
    return 1 if below or a.failures or b.failures else 0


def as_text(a: ScoreSet, b: ScoreSet, comparison: Comparison) -> str:
    """The comparison for people."""
    from ..comparison import RESAMPLES

    mean_a, mean_b = (_with_interval(mean) for mean in (comparison.mean_a, comparison.mean_b))
    what = (
        f"{comparison.pairs} pairs of the same name"
        if comparison.pairs
        else "separate sets: fewer than half of the names match"
    )
    lines = [
        f"A  {printable(a.source)}: {_count(a)}, mean {mean_a}",
        f"B  {printable(b.source)}: {_count(b)}, mean {mean_b}",
        "",
        f"B - A ({what})",
        f"  difference     {_with_interval(comparison.difference, '+.3f')}",
        f"  win rate of B  {_with_interval(comparison.win_rate)}",
        "",
        f"in brackets: 95 % bootstrap intervals, {RESAMPLES} resamples of the images",
    ]
    for side, scores in (("A", a), ("B", b)):
        if scores.failures:
            lines += ["", f"without score in {side}: {len(scores.failures)}"]
            lines += [
                f"  {printable(unescape(path))}: {printable(reason)}"
                for path, reason in scores.failures[:NAMED]
            ]
        if len(scores.failures) > NAMED:
            lines.append(f"  and {len(scores.failures) - NAMED} more; --json lists all")
    return "\n".join(lines)


def _count(scores: ScoreSet) -> str:
    failed = f" and {len(scores.failures)} without score" if scores.failures else ""
    return f"{len(scores.scores)} images{failed}"


def _with_interval(estimate: Estimate, form: str = ".3f") -> str:
    if math.isnan(estimate.low):
        return f"{estimate.value:{form}} [no interval: one image]"
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def as_json(a: ScoreSet, b: ScoreSet, comparison: Comparison) -> dict[str, Any]:
    """The comparison for programs; the keys are stable, null stands for an interval that does not exist."""
    from ..comparison import RESAMPLES, SEED

    sides = {
        name: {
            "source": printable(scores.source),
            "images": len(scores.scores),
            "mean": _plain(mean),
            "failures": [{"path": path, "error": reason} for path, reason in scores.failures],
        }
        for name, scores, mean in (("a", a, comparison.mean_a), ("b", b, comparison.mean_b))
    }
    return {
        **sides,
        "pairs": comparison.pairs,
        "difference": _plain(comparison.difference),
        "win_rate": _plain(comparison.win_rate),
        "resamples": RESAMPLES,
        "seed": SEED,
    }


def _plain(estimate: Estimate) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in estimate._asdict().items()}
