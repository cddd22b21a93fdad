"""Measures of right and wrong labels, against a small case by hand."""

import numpy as np
import pytest

from uce.evaluation.scores import (
    at_random,
    classification_scores,
    confusion,
    majority,
    per_label,
    top2_accuracy,
)

TRUE = np.asarray(["a", "a", "a", "b", "b", "c"])
SAID = np.asarray(["a", "a", "b", "b", "d", "a"])


def test_a_case_by_hand() -> None:
    found = classification_scores(TRUE, SAID)
    # F1: a 2*2/(3+3), b 2*1/(2+2), c 0; d is never true and counts only by what it takes from b.
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert found["weighted_f1"] == pytest.approx((3 * 2 / 3 + 2 * 1 / 2) / 6)
    assert found["accuracy"] == pytest.approx(0.5)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert found["kappa"] == pytest.approx((0.5 - (9 + 4) / 36) / (1 - (9 + 4) / 36))


def test_one_label_has_no_kappa() -> None:
    assert np.isnan(classification_scores(np.asarray(["a", "a"]), np.asarray(["a", "a"]))["kappa"])


def test_top_two() -> None:
    shares = np.asarray([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.4, 0.35, 0.25]])
    assert top2_accuracy(np.asarray(["b", "a", "a"]), np.asarray(["a", "b", "c"]), shares) == pytest.approx(2 / 3)


def test_a_label_without_any_probability_is_not_the_second() -> None:
    shares = np.asarray([[0.0, 0.0, 1.0]])
    assert top2_accuracy(np.asarray(["a"]), np.asarray(["a", "b", "c"]), shares) == 0


def test_tables_hold_every_label_that_is_true() -> None:
    lines = per_label(TRUE, SAID)
    assert [(line["label"], line["support"]) for line in lines] == [("a", 3), ("b", 2), ("c", 1)]
    assert lines[2]["f1"] == 0
    names, counts = confusion(TRUE, SAID)
    assert names == ["a", "b", "c", "d"]
    assert np.asarray(counts).sum() == len(TRUE)
    assert counts[1] == [0, 1, 0, 1]


def test_guesses_follow_the_training_labels() -> None:
    assert majority(TRUE, 2).tolist() == ["a", "a"]
    drawn = at_random(TRUE, 6000, np.random.default_rng(0))
    assert (drawn == "a").mean() == pytest.approx(0.5, abs=0.03)
