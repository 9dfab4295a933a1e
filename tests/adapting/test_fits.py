"""The closed forms of adapting, on made-up kernels: exact, blind to scale, honest when nothing is to gain."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyiqa_ma_agiqa import InputError
from pyiqa_ma_agiqa.adapting import of_ratings as closed_form
from pyiqa_ma_agiqa.adapting import validation
from pyiqa_ma_agiqa.adapting.fitting import of_choices, of_ratings
from pyiqa_ma_agiqa.adapting.of_choices import Utility, fit_choices, within
from pyiqa_ma_agiqa.adapting.of_ratings import affine, fit_ratings
from pyiqa_ma_agiqa.adapting.seen import Seen
from pyiqa_ma_agiqa.adapting.strength import STRENGTHS, chosen
from pyiqa_ma_agiqa.adapting.validation import compared, resampled, rmse, share_right, srcc

NONE = STRENGTHS[-1]


@pytest.fixture(scope="module", autouse=True)
def few_resamples():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "REPEATS", 200)
        yield


def made_up(count: int, taste: float, seed: int = 0) -> tuple[Seen, np.ndarray]:
    """Images of which the experts read 12 numbers, and ratings: the score, a taste of its own, and noise."""
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((count, 12)).astype(np.float32) / np.sqrt(12, dtype=np.float32)
    score = 2.5 + inputs @ rng.standard_normal(12)
    ratings = score + taste * inputs @ rng.standard_normal(12) + 0.2 * rng.standard_normal(count)
    return Seen(score.astype(float), np.full(count, 0.6), inputs), ratings


def pairs_of(values: np.ndarray, count: int, seed: int = 1) -> np.ndarray:
    """Pairs (count, 2) of a better and a worse image, by these values (M,)."""
    rng = np.random.default_rng(seed)
    pairs = np.array([rng.choice(len(values), 2, replace=False) for _ in range(count)])
    return np.where((values[pairs[:, 0]] > values[pairs[:, 1]])[:, None], pairs, pairs[:, ::-1])


def fitted_without(row, kernel, score, ratings, strength, monkeypatch):
    """What a fit at one strength to all other images predicts of one."""
    with monkeypatch.context() as patch:
        patch.setattr(closed_form, "STRENGTHS", (strength, NONE))
        patch.setattr(closed_form, "chosen", lambda against: 0)
        others = np.delete(np.arange(len(score)), row)
        fit = fit_ratings(kernel[np.ix_(others, others)], score[others], ratings[others])
    return fit.predict(score[[row]], kernel[[row]][:, others])[0]


@pytest.mark.parametrize("strength", [0.3, 3.0, NONE])
def test_leaving_one_out_has_a_closed_form(strength, monkeypatch):
    shown, ratings = made_up(25, 1.0)
    kernel, told = shown.kernel(), []
    with monkeypatch.context() as patch:
        patch.setattr(closed_form, "STRENGTHS", (strength, NONE))
        patch.setattr(closed_form, "chosen", lambda against: told.append(against) or 0)
        fit_ratings(kernel, shown.score, ratings)
    off = [
        ratings[row] - fitted_without(row, kernel, shown.score, ratings, strength, monkeypatch)
        for row in range(25)
    ]
    assert told[0][0] == pytest.approx(25 / 2 * np.log(np.mean(np.square(off)) / ratings.var()))


def test_few_ratings_begin_at_the_usual_strength():
    flat = np.zeros(len(STRENGTHS))
    assert chosen(flat) == len(STRENGTHS) - 1
    assert STRENGTHS[chosen(flat - np.eye(len(STRENGTHS))[3])] == 3.0
    weak, strong = -0.5 * np.eye(len(STRENGTHS))[0], -9.0 * np.eye(len(STRENGTHS))[0]
    assert STRENGTHS[chosen(flat + weak + [0, 0, 0, -0.1, 0, 0])] == 3.0
    assert STRENGTHS[chosen(flat + strong)] == 0.1


def test_a_strong_ridge_is_the_affine_fit(monkeypatch):
    shown, ratings = made_up(40, 1.0)
    monkeypatch.setattr(closed_form, "chosen", lambda against: len(against) - 1)
    fit, plain = fit_ratings(shown.kernel(), shown.score, ratings), affine(shown.score, ratings)
    slope, intercept = np.polyfit(shown.score, ratings, 1)
    assert (fit.slope, fit.intercept) == pytest.approx((plain.slope, plain.intercept))
    assert (plain.slope, plain.intercept) == pytest.approx((slope, intercept))
    assert not fit.dual.any()


@settings(max_examples=20)
@given(scale=st.floats(-100, 100).filter(lambda x: abs(x) > 1e-3), shift=st.floats(-1000, 1000))
def test_the_scale_of_the_ratings_changes_the_scale_alone(scale, shift):
    """0 to 100, or lower is better: the same fit in other units."""
    shown, ratings = made_up(40, 1.0)
    fit = fit_ratings(shown.kernel(), shown.score, ratings)
    other = fit_ratings(shown.kernel(), shown.score, scale * ratings + shift)
    assert other.strength == fit.strength
    there = fit.predict(shown.score, shown.kernel())
    expected = scale * there + shift
    assert np.abs(other.predict(shown.score, shown.kernel()) - expected).max() <= 1e-6 * abs(scale) * np.ptp(
        there
    ) + 1e-9 * abs(shift)


def test_a_taste_of_ones_own_is_learned():
    shown, ratings = made_up(60, 2.0)
    outcome = of_ratings(shown, ratings)
    assert outcome.fitted.strength < NONE and not outcome.warnings
    assert outcome.figures["SRCC"].gain.low > 0 > outcome.figures["RMSE"].gain.high
    choices = of_choices(shown, pairs_of(ratings, 150))
    assert choices.fitted.strength < NONE and choices.figures["right"].gain.low > 0


@pytest.mark.parametrize("seed", range(4))
def test_nothing_to_gain_is_told(seed):
    """Ratings that are the shipped score and noise: the ranking stays, or the gain is said to be open."""
    shown, ratings = made_up(40, 0.0, seed)
    outcome = of_ratings(shown, ratings)
    assert outcome.warnings or outcome.figures["SRCC"].gain.low > 0
    if outcome.fitted.strength == NONE:
        assert "only the scale and the interval" in outcome.warnings[0]


def test_before_is_the_shipped_score_and_after_no_worse_for_how_it_is_measured():
    """Of few ratings that follow the score a little: fits to the others have levels of their own."""
    lost = []
    for seed in range(12):
        shown, _ = made_up(20, 0.0, seed)
        noise = np.random.default_rng(100 + seed).standard_normal(20)
        ratings = shown.score + 2 * shown.score.std() * noise
        figures = of_ratings(shown, ratings).figures
        direction = np.sign(affine(shown.score, ratings).slope)
        assert figures["SRCC"].before.value == pytest.approx(direction * srcc(shown.score, ratings))
        lost.append(figures["SRCC"].gain.value)
    assert np.mean(lost) > -0.15


def test_what_is_said_again_makes_no_interval_narrower():
    shown, ratings = made_up(16, 2.0)
    pairs = pairs_of(ratings, 60)
    once, often = (of_choices(shown, np.tile(pairs, (times, 1))).figures["right"].before for times in (1, 9))
    assert once.value == pytest.approx(often.value)
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=0.05)


def test_pairs_are_drawn_with_both_images():
    pairs = np.array([[0, 1], [2, 3], [2, 0]])
    for rows in resampled(4, pairs):
        times = np.bincount(rows, minlength=3)
        # Of four images drawn: the pairs that share one are drawn as often as that allows.
        assert len(rows) and times.max() <= 4 and times[0] * times[1] * times[2] <= 1


def test_choices_that_tell_nothing_new_are_refused():
    shown, _ = made_up(40, 0.0)
    with pytest.raises(InputError, match="there is nothing to adapt; more of them may"):
        of_choices(shown, pairs_of(shown.score, 40))


def test_choices_that_contradict_each_other_are_refused():
    shown, ratings = made_up(30, 1.0)
    pairs = pairs_of(ratings, 40)
    with pytest.raises(InputError, match="nothing to adapt"):
        of_choices(shown, np.concatenate([pairs, pairs[:, ::-1]]))


def test_swapped_columns_are_told():
    shown, _ = made_up(40, 0.0)
    with pytest.raises(InputError, match="check which column is which"):
        of_choices(shown, pairs_of(-shown.score, 40))


def test_a_scale_on_which_lower_is_better_is_told():
    shown, ratings = made_up(60, 0.5)
    outcome = of_ratings(shown, -ratings)
    assert any("lower is better" in warning for warning in outcome.warnings)
    assert outcome.figures["SRCC"].before.value > 0.3


def test_constant_ratings_are_refused():
    shown, _ = made_up(30, 1.0)
    with pytest.raises(InputError, match="all ratings are the same"):
        of_ratings(shown, np.full(30, 3.0))


def test_the_interval_holds_what_it_says():
    """On images that no fit has seen; 90 %, within what the draws allow."""
    shown, ratings = made_up(800, 1.0)
    known, new = np.arange(200), np.arange(200, 800)
    some = Seen(shown.score[known], shown.half_width[known], shown.inputs[known])
    outcome = of_ratings(some, 20 * ratings[known])
    predicted = outcome.fitted.predict(shown.score[new], shown.inputs[new] @ some.inputs.T)
    held = np.abs(predicted - 20 * ratings[new]) <= outcome.widening * shown.half_width[new]
    assert 0.85 <= held.mean() <= 0.95


def test_choices_keep_the_scale_of_the_score():
    shown, ratings = made_up(80, 2.0)
    fit = fit_choices(shown.kernel(), shown.score, pairs_of(ratings, 300))
    adapted = fit.predict(shown.score, shown.kernel())
    assert adapted.mean() == pytest.approx(shown.score.mean())
    assert adapted.std() == pytest.approx(shown.score.std())


def test_choices_are_fitted_at_the_optimum():
    """The gradient of Bradley and Terry's likelihood with its prior is zero, by differences."""
    shown, ratings = made_up(30, 1.0)
    utility, pairs = Utility(shown.kernel(), shown.score), pairs_of(ratings, 60)
    weights = utility.fit(pairs, 1.0)

    def loss(weights):
        u = utility.of(weights)
        lead = u[pairs[:, 0]] - u[pairs[:, 1]]
        return np.log1p(np.exp(-lead)).sum() + (weights[1:] @ weights[1:]) / 2 + weights[0] ** 2 / 200

    best = loss(weights)
    for place in range(len(weights)):
        for step in (-1e-2, 1e-2):
            moved = weights.copy()
            moved[place] += step
            assert loss(moved) > best


def test_pairs_within_rows():
    pairs = np.array([[0, 1], [5, 2], [2, 0]])
    assert within(pairs, np.array([2, 5, 7])).tolist() == [[1, 0]]


def test_figures_by_hand():
    said = np.array([1.0, 2, 3, 4])
    assert srcc(np.array([4.0, 3, 2, 1]), said) == -1
    assert srcc(np.ones(4), said) == 0
    assert rmse(said + 2, said) == 2
    assert share_right(np.array([1.0, -1, 0, 2]), said) == 0.625
    figure = compared(rmse, said + 2, said + 1, said, resampled(4))
    assert (figure.before.value, figure.after.value, figure.gain.value) == (2, 1, -1)
    assert figure.gain.low == figure.gain.high == -1
