"""Labels, confidence and `unknown` on planted vectors: what is known must come out."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uce.annotation.guessing import guess, neighbours_for
from uce.annotation.labelling import Labelling, attractors, curve, held_out_scores, label_cells, shifts, small_labels
from uce.annotation.reference import Reference
from uce.annotation.self_labelling import hold_out, shift_between
from uce.annotation.trust import Ranks
from uce.evaluation.calibration import ece


def names(codes: np.ndarray) -> np.ndarray:
    return np.array([f"type {code}" for code in codes])


def query(world: Callable, codes: np.ndarray, donor: int = 50, **more: float) -> np.ndarray:
    return world(**more).cells(codes, donor, seed=1)


HARD = {"spread": 0.45, "donor_shift": 0.05}


@pytest.fixture(scope="module")
def hard(world: Callable) -> tuple[Labelling, np.ndarray]:
    """Labels that overlap, of a donor that the reference does not have; and which of them are right."""
    codes = np.random.default_rng(5).integers(5, size=3000)
    found = label_cells(query(world, codes, **HARD), world(**HARD).reference(6, 250, 5))
    return found, found.guesses.labels == names(codes)


@pytest.mark.parametrize("method", ["knn", "logistic"])
def test_labels_that_lie_apart_are_all_right_and_sure(world: Callable, method: str) -> None:
    codes = np.arange(5).repeat(40)
    found = label_cells(query(world, codes), world().reference(4, 100, 5), method=method)
    assert (found.guesses.labels == names(codes)).all()
    assert found.confidence.min() > 0.9
    assert found.unknown.mean() < 0.2


def test_the_confidence_of_a_further_donor_is_true(hard: tuple[Labelling, np.ndarray]) -> None:
    found, right = hard
    assert 0.6 < right.mean() < 0.95
    assert ece(found.confidence, right) < 0.05
    assert ece(found.confidence, right) < ece(found.guesses.votes.confidence, right)
    assert held_out_scores(found)["ece"] < 0.05


def test_bins_of_the_reliability_curve_lie_near_its_diagonal(hard: tuple[Labelling, np.ndarray]) -> None:
    for line in curve(hard[0]):
        if line["count"] >= 100:
            assert abs(line["confidence"] - line["accuracy"]) < 0.1


def test_of_a_further_donor_about_the_share_asked_for_is_called_unknown(hard: tuple[Labelling, np.ndarray]) -> None:
    found, right = hard
    assert 0.02 < (found.score[right] >= 0.95).mean() < 0.08
    assert 0.06 < (found.score[right] >= 0.85).mean() < 0.24
    assert found.unknown[~right].mean() > 2 * found.unknown[right].mean()


def test_a_type_that_the_reference_lacks_is_unknown_and_said_to_be_noticed(world: Callable) -> None:
    codes = np.array([4] * 200 + [0, 1, 2, 3] * 50)
    found = label_cells(query(world, codes), world().reference(5, 120, 4))
    assert found.unknown[:200].mean() > 0.95
    assert found.unknown[200:].mean() < 0.15
    assert all(noticed > 0.95 for noticed, _ in found.withheld.values())


def test_types_that_are_alike_are_taken_for_each_other_and_this_is_told(world: Callable) -> None:
    near = world()
    centres = near.centres.copy()
    centres[1] = centres[0] + 0.01
    reference = replace(near, centres=centres).reference(5, 120, 5)
    noticed, taken = label_cells(reference.vectors[:5], reference).withheld["type 1"]
    assert noticed < 0.5
    assert next(iter(taken)) == "type 0"


def test_labels_dealt_at_random_are_not_believed(world: Callable) -> None:
    reference = world().reference(5, 100, 5)
    dealt = replace(reference, labels=np.random.default_rng(0).permutation(reference.labels))
    vectors = query(world, np.arange(5).repeat(50))
    true, false = label_cells(vectors, reference), label_cells(vectors, dealt)
    assert false.confidence.mean() < 0.4 < 0.9 < true.confidence.mean()
    assert false.unknown.mean() > 0.9 > 0.2 > true.unknown.mean()


@pytest.mark.parametrize("method", ["knn", "logistic"])
def test_the_same_twice(world: Callable, method: str) -> None:
    reference, vectors = world(**HARD).reference(4, 80, 5), query(world, np.arange(5).repeat(10), **HARD)
    first, second = (label_cells(vectors, reference, method=method, seed=3) for _ in range(2))
    for field in ("confidence", "score", "unknown"):
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_the_order_of_rows_does_not_matter(world: Callable, seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference, vectors = world(**HARD).reference(7, 40, 5), query(world, np.arange(5).repeat(8), **HARD)
    rows, columns = rng.permutation(len(reference.labels)), rng.permutation(len(vectors))
    plain, mixed = label_cells(vectors, reference), label_cells(vectors[columns], reference.take(rows))
    np.testing.assert_array_equal(plain.guesses.labels[columns], mixed.guesses.labels)
    np.testing.assert_allclose(plain.confidence[columns], mixed.confidence, atol=1e-6)
    np.testing.assert_array_equal(plain.unknown[columns], mixed.unknown)


@pytest.mark.parametrize("groups", [None, "one"])
def test_without_donors_there_is_a_share_of_the_vote_and_no_unknown(world: Callable, groups: str | None) -> None:
    reference = world().reference(1, 200, 4)
    reference = replace(reference, groups=None if groups is None else reference.groups)
    vectors = query(world, np.array([4] * 30))
    found = label_cells(vectors, reference)
    assert not found.calibrated
    assert not found.unknown.any()
    np.testing.assert_array_equal(found.confidence, found.guesses.votes.confidence)
    assert (found.score > 0.9).all()  # what is strange can still be seen
    assert label_cells(vectors, reference, unknown=0.05).unknown.all()


def test_a_query_like_no_donor_is_noticed(world: Callable) -> None:
    reference = world().reference(5, 100, 5)
    codes = np.arange(5).repeat(40)
    near, far = (shifts(label_cells(query(world, codes) + add, reference)) for add in (0.0, np.float32(0.15)))
    assert near[0] <= max(0.2, near[1])
    assert far[0] > max(0.2, far[1]) + 0.2


def test_the_shift_counts_only_towards_further_away() -> None:
    low, high = np.arange(100.0), np.arange(100.0) + 1000
    assert shift_between(high, low) == pytest.approx(1)
    assert shift_between(low, high) == pytest.approx(0)
    assert np.isnan(shift_between(low, low[:0]))


def test_a_label_that_attracts_is_named(world: Callable) -> None:
    reference = world().reference(4, 200, 5)
    rare = np.flatnonzero(reference.labels == "type 0")[4:]
    found = label_cells(query(world, np.zeros(100, int)), reference.take(np.setdiff1d(np.arange(800), rare)))
    assert list(attractors(found)) == ["type 0"]
    assert small_labels(found.reference) == {"type 0": 4}


def test_cells_without_a_vector_get_no_label(world: Callable) -> None:
    vectors = query(world, np.arange(5))
    vectors[2] = np.nan
    found = label_cells(vectors, world().reference(3, 60, 5))
    assert found.there.tolist() == [True, True, False, True, True]
    assert len(found.confidence) == 4


@pytest.mark.parametrize("method", ["knn", "logistic"])
@pytest.mark.parametrize("cells", [0, 1])
def test_a_query_of_no_cells_and_of_one(world: Callable, method: str, cells: int) -> None:
    found = label_cells(query(world, np.zeros(cells, int)), world().reference(3, 60, 4), method=method)
    assert len(found.guesses.labels) == len(found.confidence) == len(found.second) == len(found.margin) == cells


@pytest.mark.parametrize("method", ["knn", "logistic"])
@pytest.mark.parametrize("cells", [1, 2, 7])
def test_a_reference_of_a_few_cells_of_one_label(world: Callable, method: str, cells: int) -> None:
    vectors = world().cells(np.zeros(cells, int), 0)
    groups = np.array([f"donor {i}" for i in range(cells)])
    reference = Reference(np.full(cells, "only"), vectors, groups, np.arange(cells), {})
    found = label_cells(query(world, np.zeros(3, int)), reference, method=method)
    assert (found.guesses.labels == "only").all()
    assert (found.second == "").all()
    assert not found.calibrated


def test_a_label_with_one_cell_is_kept_and_does_not_break_the_rest(world: Callable) -> None:
    reference = world().reference(4, 100, 4)
    labels = reference.labels.astype("<U12")
    labels[0] = "single"
    found = label_cells(query(world, np.arange(4).repeat(20)), replace(reference, labels=labels))
    assert "single" in found.guesses.votes.classes
    assert (~found.held_out.learnable).sum() == 1


def test_donors_of_the_reference_are_never_on_both_sides(world: Callable) -> None:
    """Vectors that name the donor and nothing else: held out, they are worth nothing; cells at random would say 1."""
    rng = np.random.default_rng(0)
    groups = np.repeat([f"donor {i}" for i in range(12)], 20)
    labels = np.repeat(rng.permutation(["a", "b"] * 6), 20)
    vectors = np.repeat(rng.standard_normal((12, 8)), 20, axis=0) + 0.01 * rng.standard_normal((240, 8))
    reference = Reference(labels, vectors.astype(np.float32), groups, np.arange(240), {})
    leaky = guess(reference.vectors, reference, method="knn", k=15)
    assert (leaky.labels == labels).mean() > 0.99
    assert hold_out(reference, method="knn", k=5, seed=0).correct.mean() < 0.8


@pytest.mark.parametrize(("sizes", "k"), [([100, 100], 15), ([100, 30], 10), ([100, 12], 5), ([100, 3], 15), ([3], 5)])
def test_the_number_of_neighbours_suits_the_smallest_usual_label(sizes: list[int], k: int) -> None:
    assert neighbours_for(np.repeat([f"label {i}" for i in range(len(sizes))], sizes)) == k


def test_ranks_count_what_is_smaller() -> None:
    ranks = Ranks.of(np.arange(99.0), np.array(["a"] * 50 + ["b"] * 49))
    np.testing.assert_allclose(ranks(np.array([0.0, 25.0, 1e9]), np.array(["a", "a", "a"])), [0, 25 / 51, 50 / 51])
    few = Ranks.of(np.arange(20.0), np.array(["a"] * 20))
    assert not few.by_label
    np.testing.assert_allclose(few(np.array([10.0]), np.array(["a"])), [10 / 21])


def test_a_common_label_does_not_win_by_number() -> None:
    """Two labels that lie in one place, nine cells to one: the rarer one has more votes than its share of the cells."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((1000, 6)).astype(np.float32)
    labels = np.where(np.arange(1000) % 10 == 0, "rare", "common")
    votes = guess(vectors[500:], Reference(labels[:500], vectors[:500], None, np.arange(500), {}), method="knn", k=15)
    assert votes.votes.probabilities[:, 1].mean() == pytest.approx(1 / (1 + 9**0.5), abs=0.05)
    np.testing.assert_allclose(votes.votes.probabilities.sum(axis=1), 1)
