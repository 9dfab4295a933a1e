"""What a run found, in a few lines."""

from __future__ import annotations

import numpy as np

from ..names import printable, unescape
from ..scoring.columns import Row
from ..scoring.run import Outcome
from ..scoring.shards.run import Tally


def duration(seconds: float) -> str:
    """Seconds as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
    )


def pace(images: int, seconds: float) -> str:
    """How many images in what time, and the rate in the unit that reads better."""
    each = seconds / max(images, 1)
    rate = f"{1 / max(each, 1e-9):.1f} images/s" if each <= 1 else f"{duration(each)} an image"
    return (
        f"{images} image{'' if images == 1 else 's'} in {duration(seconds)}{f' ({rate})' if images else ''}"
    )


def summary(outcome: Outcome) -> str:
    """Mean, deciles, the worst and the best, and what failed."""
    scores, lines = outcome.scores, []
    if len(scores):
        deciles = np.percentile(scores, range(10, 100, 10))
        lines += [
            f"mean     {scores.mean():.4f}",
            f"deciles  {' '.join(f'{value:.3f}' for value in deciles)}",
        ]
        for label, rows in (("worst", outcome.worst), ("best", outcome.best)):
            lines += [f"{label:<7}  {row['score']:.4f}  {_name(row)}" for row in rows]
    if outcome.failures:
        lines.append(f"failed   {outcome.failures}")
        lines += [f"  {_name(row)}: {printable(row['error'])}" for row in outcome.failed]
    more = outcome.failures - len(outcome.failed)
    if more:
        lines.append(f"  and {more} more: rows whose column error is not empty")
    return "\n".join(lines)


def shards_summary(tally: Tally) -> str:
    """How many shards and images, their mean, and what failed."""
    lines = [f"shards   {tally.made} scored, {tally.there} there already, {tally.problems} not read"]
    lines += [f"  {printable(name)}: {printable(problem)}" for name, problem in tally.named]
    if tally.problems > len(tally.named):
        lines.append(f"  and {tally.problems - len(tally.named)} more, told of above")
    lines.append(f"images   {tally.images}")
    if tally.images > tally.failed:
        lines.append(f"mean     {tally.mean:.4f}")
    if tally.failed:
        lines.append(f"failed   {tally.failed}")
        lines += [f"  {printable(unescape(path))}: {printable(error)}" for path, error in tally.errors]
        if tally.failed > len(tally.errors):
            lines.append("  all of them: rows whose column error is not empty")
    return "\n".join(lines)


def _name(row: Row) -> str:
    return printable(unescape(row["path"]))
