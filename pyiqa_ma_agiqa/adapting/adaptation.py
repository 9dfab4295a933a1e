"""Experts that follow a person's own ratings or choices, in closed form around the shipped ones."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..compact.arch import MAAGIQA
from ..errors import InputError
from .fitting import Outcome, of_choices, of_ratings
from .seen import Seen, look, seen
from .tables import LEAST, LEAST_CHOSEN, Choices, Ratings, mean_by_place, read_table
from .validation import BeforeAndAfter
from .writing import move_experts, write_adaptation


@dataclass
class Adaptation:
    """What an adaptation did.

    Attributes:
        made_of: how many ratings or choices there were, and of how many different images.
        strength: of the ridge; infinite where the experts stay the shipped ones, but for the scale.
        figures: by name, of images that the fit had not seen: SRCC and RMSE of ratings, the share of right
            choices. Before: the shipped score, for the RMSE taken to the scale of the ratings.
        half_width: half of the 90 % prediction interval, mean over the images; None for choices.
        warnings: what there is to know before it is used.
    """

    made_of: str
    strength: float
    figures: dict[str, BeforeAndAfter]
    half_width: float | None
    warnings: list[str]


def adapt(images: str | os.PathLike, table: str | os.PathLike, out: str | os.PathLike) -> Adaptation:
    """Adapt the shipped ma_agiqa to ratings or choices of one's own, and write what changes to a small file.

    The file is for ``pretrained_model_path``, together with the weights of the package. Shares, map, gate
    and familiarity keep their meaning; score and interval are on the scale of the ratings. Choices keep the
    shipped scale and interval.

    Args:
        images: folder of the images.
        table: CSV with columns ``name`` and ``mos``, on any scale, or ``better`` and ``worse``, two names.
            At least 20 rows; an image may be rated more than once.
        out: the file, NAME.safetensors.

    Raises:
        InputError: the table or an image is not of use, the file cannot be written, or it would change
            nothing.
        WeightsError: the shipped weights are missing or damaged.
    """
    out = Path(out)
    if out.suffix != ".safetensors" or not out.parent.is_dir() or out.is_dir():
        raise InputError(f"{out}: give a file NAME.safetensors in a folder that there is")
    told = read_table(Path(images), Path(table))
    model = MAAGIQA()
    try:
        _enough(told, len(told.paths))
        features, summaries = look(model, told.paths)
        first, places = alike(features, summaries)
        _enough(told, len(first))
        shown = seen(model, features[first], summaries[first])
        outcome = _outcome(told, places, shown)
    except InputError as error:
        raise InputError(f"{table}: {error}") from None
    fitted, rated = outcome.fitted, isinstance(told, Ratings)
    move_experts(model, fitted.slope, fitted.intercept, fitted.dual @ shown.inputs)
    with torch.no_grad():
        model.familiarity.width[0] *= outcome.widening
    made_of = f"{told.given} {'ratings' if rated else 'choices'} of {len(first)} images"
    write_adaptation(model, out, made_of=made_of)
    half_width = float(outcome.widening * shown.half_width.mean()) if rated else None
    return Adaptation(made_of, fitted.strength, outcome.figures, half_width, outcome.warnings)


def _enough(told: Ratings | Choices, images: int) -> None:
    least = LEAST if isinstance(told, Ratings) else LEAST_CHOSEN
    if images < least:
        raise InputError(f"{images} different images; at least {least} are needed")
    if told.given < LEAST:
        raise InputError(f"{told.given} choices; at least {LEAST} are needed")


def _outcome(told: Ratings | Choices, places: np.ndarray, shown: Seen) -> Outcome:
    """What was told of N images makes of the experts, where these are M different ones at places (N,)."""
    if isinstance(told, Ratings):
        return of_ratings(shown, mean_by_place(told.values, places))
    pairs = places[told.pairs]
    for (better, worse), told_of in zip(pairs, told.pairs, strict=True):
        if better == worse:
            names = " and ".join(told.paths[place].name for place in told_of)
            raise InputError(f"{names} are the same image; remove choices between them")
    return of_choices(shown, pairs)


def alike(features: np.ndarray, summaries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images that are the same to the networks count as one.

    Args:
        features: (N, 1280) of the branch.
        summaries: (N, 18432) of the tower.

    Returns:
        The first row (M,) of each of M different images, and for each row (N,) which of these it is.
    """
    numbers: dict[bytes, int] = {}
    said = (b"".join(map(np.ndarray.tobytes, rows)) for rows in zip(features, summaries, strict=True))
    places = np.array([numbers.setdefault(row, len(numbers)) for row in said])
    return np.unique(places, return_index=True)[1], places
