"""What ratings or choices make of the experts, and whether it helps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..training.experts_stage import conformal
from .of_choices import fit_choices, within
from .of_ratings import affine, fit_ratings
from .seen import Seen
from .strength import Fitted
from .validation import BeforeAndAfter, compared, out_of_fold, resampled, rmse, share_right, srcc

UNPROVEN = "whether the gain is real is open: its interval reaches 0; more of them would tell"


@dataclass
class Outcome:
    """An adaptation that is not written yet.

    Attributes:
        fitted: one's own score.
        figures: by name, of images that the fit had not seen.
        widening: what the shipped interval is multiplied by.
        warnings: what there is to know before it is used.
    """

    fitted: Fitted
    figures: dict[str, BeforeAndAfter]
    widening: float
    warnings: list[str]


def of_ratings(shown: Seen, ratings: np.ndarray) -> Outcome:
    """An adaptation to ratings (M,) of M different images.

    The interval is that of split conformal prediction: it held 90 % of the ratings of images that the fit
    had not seen.

    Raises:
        InputError: they are all the same.
    """
    if np.ptp(ratings) == 0:
        raise InputError("all ratings are the same; nothing can be learned of them")
    kernel, score = shown.kernel(), shown.score
    fitted = fit_ratings(kernel, score, ratings)
    before, _ = out_of_fold(kernel, score, lambda rows: affine(score[rows], ratings[rows]))
    after, level = out_of_fold(
        kernel, score, lambda rows: fit_ratings(kernel[np.ix_(rows, rows)], score[rows], ratings[rows])
    )
    falls = affine(score, ratings).slope < 0
    drawn = list(resampled(len(ratings)))
    figures = {
        "SRCC": compared(srcc, -score if falls else score, after - level, ratings, drawn),
        "RMSE": compared(rmse, before, after, ratings, drawn),
    }
    warnings = []
    if falls:
        warnings.append(
            "the ratings fall where the shipped score rises: if lower is better on your scale, it is in the "
            "adapted score, too, whatever pyiqa's lower_better says"
        )
    if np.isinf(fitted.strength):
        warnings.append(
            "these ratings do not show that another ranking than the shipped one would follow them better: "
            "only the scale and the interval are adapted"
        )
    elif figures["SRCC"].gain.low <= 0:
        warnings.append(UNPROVEN)
    return Outcome(fitted, figures, float(conformal(np.abs(after - ratings) / shown.half_width)), warnings)


def of_choices(shown: Seen, pairs: np.ndarray) -> Outcome:
    """An adaptation to choices: pairs (P, 2) of a better and a worse one of M different images.

    Choices do not tell how far a score is off, so the interval stays the shipped one.

    Raises:
        InputError: the shipped ranking follows them as well as any other.
    """
    kernel, score = shown.kernel(), shown.score
    fitted = fit_choices(kernel, score, pairs)
    after, level = out_of_fold(
        kernel,
        score,
        lambda rows: fit_choices(kernel[np.ix_(rows, rows)], score[rows], within(pairs, rows)),
    )
    led, leads = (values[pairs[:, 0]] - values[pairs[:, 1]] for values in (score, after - level))
    drawn = resampled(len(score), pairs)
    figures = {"right": compared(share_right, led, leads, np.zeros(len(pairs)), drawn)}
    against = figures["right"].before.value < 0.5
    warnings = ["most choices go against the shipped score; check which column is which"] if against else []
    if np.isinf(fitted.strength):
        raise InputError(
            "; ".join(
                [
                    "these choices do not show that another ranking than the shipped one would follow them "
                    "better, so there is nothing to adapt; more of them may",
                    *warnings,
                ]
            )
        )
    if figures["right"].gain.low <= 0:
        warnings.append(UNPROVEN)
    return Outcome(fitted, figures, 1.0, warnings)
