"""Confidence that is true, and confidence that is not; always judged where nothing was fitted."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uce.evaluation.calibration import (
    brier,
    classwise_ece,
    coverage_area,
    coverage_at,
    coverage_curve,
    ece,
    fit_isotonic,
    fit_temperature,
    log_loss,
    reliability,
    with_confidence,
    with_temperature,
)
from uce.evaluation.context import Context
from uce.evaluation.embeddings import Embedding
from uce.evaluation.tasks import calibration

World = tuple[Context, Embedding]
sure_and_right = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60).map(
    lambda pairs: (np.asarray([p for p, _ in pairs]), np.asarray([c for _, c in pairs]))
)


def _softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def _drawn(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True probabilities of three classes, and classes drawn by them."""
    rng = np.random.default_rng(seed)
    shares = _softmax(rng.standard_normal((n, 3)) * 1.5)
    return shares, (rng.random((n, 1)) > shares.cumsum(axis=1)).sum(axis=1)


@given(sure_and_right, st.sampled_from(["width", "mass"]))
@settings(max_examples=60, deadline=None)
def test_bins_hold_every_cell_once_and_the_error_is_a_share(pair: tuple[np.ndarray, np.ndarray], equal: str) -> None:
    lines = reliability(*pair, equal=equal)  # type: ignore[arg-type]
    assert sum(line["count"] for line in lines) == len(pair[0])
    assert 0 <= ece(*pair, equal=equal) <= 1 + 1e-9  # type: ignore[arg-type]


def test_the_error_of_a_case_by_hand() -> None:
    confidence = np.asarray([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    correct = np.asarray([True, True, True, False, True, False])
    assert ece(confidence, correct) == pytest.approx((4 * abs(0.95 - 0.75) + 2 * abs(0.55 - 0.5)) / 6)
    assert ece(np.ones(4), np.ones(4, dtype=bool)) == 0
    assert ece(np.ones(4), np.zeros(4, dtype=bool)) == 1


def test_true_probabilities_have_no_error_and_the_best_losses() -> None:
    shares, codes = _drawn(20_000, 0)
    confidence, correct = shares.max(axis=1), shares.argmax(axis=1) == codes
    assert ece(confidence, correct) < 0.015
    assert ece(confidence, correct, equal="mass") < 0.015
    assert classwise_ece(shares, codes) < 0.015
    sharper = with_temperature(shares, 0.4)
    assert classwise_ece(sharper, codes) > 0.05
    assert brier(sharper, codes) > brier(shares, codes)
    assert log_loss(sharper, codes) > log_loss(shares, codes)


def test_losses_are_scikit_learns() -> None:
    from sklearn.metrics import brier_score_loss
    from sklearn.metrics import log_loss as theirs

    shares, codes = _drawn(500, 1)
    assert log_loss(shares, codes) == pytest.approx(theirs(codes, shares), rel=1e-3)
    assert brier(shares, codes) == pytest.approx(brier_score_loss(codes, shares, labels=[0, 1, 2]))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(temperature: float) -> None:
    shares, codes = _drawn(20_000, 2)
    assert fit_temperature(with_temperature(shares, 1 / temperature), codes) == pytest.approx(temperature, rel=0.06)


@given(st.floats(0.1, 10))
@settings(max_examples=20, deadline=None)
def test_a_temperature_keeps_the_order_and_the_sum(temperature: float) -> None:
    shares, _ = _drawn(50, 3)
    cooled = with_temperature(shares, temperature)
    assert (cooled.argmax(axis=1) == shares.argmax(axis=1)).all()
    np.testing.assert_allclose(cooled.sum(axis=1), 1)


def test_a_curve_fitted_on_some_cells_is_true_for_others() -> None:
    rng = np.random.default_rng(4)
    truth = rng.uniform(0.3, 1, 8000)
    correct, claimed = rng.random(8000) < truth, truth**0.2  # over-confident, but in order
    curve = fit_isotonic(claimed[:4000], correct[:4000])
    assert ece(claimed[4000:], correct[4000:]) > 0.15
    assert ece(curve(claimed[4000:]), correct[4000:]) < 0.04
    assert (np.diff(curve(np.linspace(0, 1, 50))) >= 0).all()
    certain = fit_isotonic(np.full(9, 0.5), np.ones(9, dtype=bool))
    assert certain(np.asarray([0.5, 1.0])) == pytest.approx([0.9, 0.9])


def test_a_new_confidence_is_the_winners_and_the_rest_is_the_others() -> None:
    shares = np.asarray([[0.6, 0.3, 0.1], [1.0, 0.0, 0.0]])
    changed = with_confidence(shares, np.asarray([0.5, 0.8]))
    np.testing.assert_allclose(changed, [[0.5, 0.375, 0.125], [0.8, 0.1, 0.1]], atol=1e-6)
    assert shares[0, 0] == 0.6


def test_coverage_by_hand() -> None:
    confidence = np.asarray([0.9, 0.9, 0.8, 0.7, 0.1])
    correct = np.asarray([True, True, True, False, True])
    coverage, accuracy = coverage_curve(confidence, correct)
    np.testing.assert_allclose(coverage, [0.4, 0.6, 0.8, 1.0])
    np.testing.assert_allclose(accuracy, [1, 1, 0.75, 0.8])
    assert coverage_at(confidence, correct) == pytest.approx(0.6)
    assert coverage_at(confidence, ~correct) == 0
    assert coverage_at(confidence, np.ones(5, dtype=bool)) == 1


def test_the_area_is_the_mean_over_all_numbers_of_cells_in_any_order_of_equal_ones() -> None:
    correct = np.asarray([True, True, False, True, False])
    assert coverage_area(np.linspace(1, 0.5, 5), correct) == pytest.approx(np.mean([1, 1, 2 / 3, 3 / 4, 3 / 5]))
    assert coverage_area(np.full(5, 0.7), correct) == pytest.approx(3 / 5)
    ties = np.repeat([0.9, 0.5], [900, 100])  # 900 cells of one confidence are most of the area, not one of two points
    assert coverage_area(ties, ties > 0.6) == pytest.approx(np.minimum(1, 900 / np.arange(1, 1001)).mean())


def _values(world: World) -> dict[str, float]:
    return {score.metric: score.value for score in calibration.run(*world).scores}


def test_over_confident_votes_become_honest_on_donors_that_nothing_saw(make_world: Callable[..., World]) -> None:
    # Every donor is moved as far as labels are apart: all neighbours agree, and are often wrong.
    world = make_world(cells=1500, donors=15, apart=4.0, donor=1.5, dim=3, labels=6)
    values = _values(world)
    assert values["knn_ece"] > 0.08
    assert values["knn_ece_calibrated"] < values["knn_ece"] / 2
    assert values["knn_log_loss_calibrated"] < values["knn_log_loss"]
    details = calibration.run(*world).details["knn"]
    assert sum(line["count"] for line in details["after"]["bins"]) == 1500
    assert details["coverage"][-1]["coverage"] == 1


def test_labels_at_random_are_known_to_be_guesses(make_world: Callable[..., World]) -> None:
    context, embedding = make_world(cells=1200)
    labels = np.random.default_rng(0).permutation(context.cells.labels)
    values = _values((replace(context, cells=replace(context.cells, labels=labels)), embedding))
    assert values["knn_ece"] > 0.1
    assert values["knn_ece_calibrated"] < 0.06
    assert values["logistic_ece_calibrated"] < 0.06
    assert values["coverage_at_95"] < 0.05


def test_two_donors_leave_none_to_calibrate_on(make_world: Callable[..., World]) -> None:
    scores = {score.metric: score for score in calibration.run(*make_world(cells=200, donors=2)).scores}
    assert set(scores) == {metric for metric, _ in calibration.METRICS}
    assert scores["knn_ece"].status == "ok"
    assert scores["knn_ece_calibrated"].status == "skipped"
    assert "three groups" in scores["knn_ece_calibrated"].note
