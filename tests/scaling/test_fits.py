"""Shapes of curves, and which one is chosen: exact on curves without noise, rarely wrong on those with it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uce.scaling.fits import SHAPES, Shape, choose, fit, gain, predict, seed_weights

X = 2.0 ** np.arange(8)
EVEN = np.ones(len(X))
# Of each shape without noise, its parameters on the grid of powers.
EXACT: dict[Shape, tuple[float, float, float]] = {
    "flat": (0.7, 0.0, 0.0),
    "log": (0.6, 0.01, 0.0),
    "plateau": (0.8, 0.1, 0.75),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_curve_without_noise_is_found_exactly(shape: Shape) -> None:
    truth = np.array(EXACT[shape])
    np.testing.assert_allclose(fit(shape, X, predict(shape, truth, X), EVEN), truth, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_gain_is_the_slope_per_doubling(shape: Shape) -> None:
    truth = np.array(EXACT[shape])
    step = 1e-4
    ends = predict(shape, truth, X[-1] * 2.0 ** np.array([-step / 2, step / 2]))
    assert gain(shape, truth, X[-1]) == pytest.approx((ends[1] - ends[0]) / step, rel=1e-6, abs=1e-12)


@given(
    shape=st.sampled_from(SHAPES),
    shift=st.floats(-0.5, 0.5),
    scale=st.floats(0.1, 10),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_a_fit_moves_with_its_curve(shape: Shape, shift: float, scale: float, seed: int) -> None:
    y = np.random.default_rng(seed).random(len(X))
    moved = fit(shape, X, shift + scale * y, EVEN)
    expected = shift + scale * predict(shape, fit(shape, X, y, EVEN), X)
    np.testing.assert_allclose(predict(shape, moved, X), expected, atol=1e-6)


@given(seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_many_curves_are_fitted_as_each_by_itself(seed: int) -> None:
    random = np.random.default_rng(seed)
    curves, weights = random.random((2, 3, len(X))), random.random(len(X)) + 0.1
    for shape in SHAPES:
        together = fit(shape, X, curves, weights)
        assert together.shape == (2, 3, 3)
        np.testing.assert_allclose(together[1, 2], fit(shape, X, curves[1, 2], weights), atol=1e-12)


def test_a_falling_curve_is_no_plateau() -> None:
    top, depth, _ = fit("plateau", X, 0.8 - 0.02 * np.log(X), EVEN)
    assert depth == 0
    assert top == pytest.approx(np.mean(0.8 - 0.02 * np.log(X)))


def test_weights_leave_out_what_a_seed_has_in_common() -> None:
    random = np.random.default_rng(0)
    scores = random.normal(0, 0.01, (4, 8))
    offset = scores + random.normal(0, 1, (4, 1))
    np.testing.assert_allclose(seed_weights(offset), seed_weights(scores), rtol=1e-6)
    noisy = scores.copy()
    noisy[:, 2] *= 5
    assert np.argmin(seed_weights(noisy)) == 2


def share(shape: Shape, noise: float, seeds: int, wanted: str, *, repeats: int = 150) -> float:
    random = np.random.default_rng(0)
    curve = predict(shape, np.array({**EXACT, "plateau": (0.8, 0.1, 1.0)}[shape]), X)
    drawn = (curve + noise * random.standard_normal((seeds, len(X))) for _ in range(repeats))
    return sum(choose(X, scores).shape == wanted for scores in drawn) / repeats


def test_shapes_with_noise_are_rarely_taken_for_each_other() -> None:
    assert share("log", 0.01, 3, "plateau") <= 0.05
    assert share("plateau", 0.02, 3, "log") <= 0.02
    assert share("plateau", 0.02, 3, "plateau") >= 0.8
    assert share("plateau", 0.01, 5, "plateau") >= 0.97
    assert share("flat", 0.02, 3, "flat") >= 0.85


def test_a_missing_run_is_left_out() -> None:
    scores = predict("log", np.array([0.6, 0.01, 0.0]), X) + np.random.default_rng(0).normal(0, 1e-3, (3, 8))
    scores[1, 3] = np.nan
    assert choose(X, scores).shape in ("log", "undetermined")
    assert np.isfinite(list(choose(X, scores).aicc.values())).all()
