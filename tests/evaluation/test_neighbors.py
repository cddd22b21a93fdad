"""Neighbours are exact, whatever the scale, the place and the copies; nobody is their own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from uce.evaluation import neighbors as module
from uce.evaluation.neighbors import find_neighbors


def by_definition(
    queries: NDArray[np.float32], pool: NDArray[np.float32], metric: str, own: bool
) -> NDArray[np.float64]:
    """Sorted distances of every query, in float64, one pair at a time."""
    result = []
    for i, x in enumerate(queries.astype(float)):
        others = [y for j, y in enumerate(pool.astype(float)) if not (own and i == j)]
        if metric == "euclidean":
            result.append(sorted(np.linalg.norm(x - y) for y in others))
        else:
            result.append(sorted(1 - x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in others))
    return np.array(result)


def cloud(n: int, dim: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 25),
    dim=st.integers(1, 6),
    k=st.integers(1, 30),
    seed=st.integers(0, 99),
    metric=st.sampled_from(["euclidean", "cosine"]),
)
def test_distances_are_those_of_the_definition(n: int, dim: int, k: int, seed: int, metric: str) -> None:
    x = cloud(n, dim, seed)
    found = find_neighbors(x, k, metric=metric)
    assert found.k == min(k, n - 1)
    assert found.indices.dtype == np.int64
    np.testing.assert_allclose(found.distances, by_definition(x, x, metric, own=True)[:, : found.k], atol=1e-5)
    assert not (found.indices == np.arange(n)[:, None]).any()
    assert all(len(set(row)) == found.k for row in found.indices.tolist())


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_indices_belong_to_the_distances(metric: str) -> None:
    x = cloud(60, 5)
    found = find_neighbors(x, 7, metric=metric)
    unit = x if metric == "euclidean" else x / np.linalg.norm(x, axis=1, keepdims=True)
    gaps = np.linalg.norm(unit[:, None] - unit[found.indices], axis=2)
    np.testing.assert_allclose(found.distances, gaps if metric == "euclidean" else gaps**2 / 2, atol=1e-5)


def test_among_others_a_copy_is_the_nearest() -> None:
    x, others = cloud(10, 3), cloud(20, 3, seed=1)
    found = find_neighbors(x, 3, among=np.concatenate([others, x]))
    assert found.indices[:, 0].tolist() == list(range(20, 30))
    np.testing.assert_allclose(
        found.distances, by_definition(x, np.concatenate([others, x]), "euclidean", False)[:, :3], atol=1e-6
    )


def test_copies_find_each_other_in_order_of_position() -> None:
    x = np.concatenate([np.ones((4, 3)), cloud(6, 3) + 50]).astype(np.float32)
    found = find_neighbors(x, 3)
    assert found.indices[:4].tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    assert not found.distances[:4].any()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_distances_are_never_negative_nor_missing(metric: str) -> None:
    x = np.concatenate([cloud(50, 40)] * 3) * np.float32(1e3)
    found = find_neighbors(x, 20, metric=metric)
    assert np.isfinite(found.distances).all()
    assert found.distances.min() >= 0


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_nearly_equal_vectors_keep_their_order(metric: str) -> None:
    """Squeezed around a mean far away, float32 dot products alone would give rounding."""
    x = (np.array([3.0, 4.0, 5.0, 6.0]) + 1e-3 * cloud(80, 4)).astype(np.float32)
    found = find_neighbors(x, 5, metric=metric)
    np.testing.assert_allclose(found.distances, by_definition(x, x, metric, own=True)[:, :5], rtol=2e-2, atol=1e-12)


def test_tight_clusters_far_apart_keep_their_neighbours() -> None:
    """The mean is far from all of them, so that a shift to it does not help."""
    place = np.repeat(np.eye(4, dtype=np.float32) * 1000, 20, axis=0)
    x = place + 0.01 * cloud(80, 4)
    found = find_neighbors(x, 5)
    exact = by_definition(x, x, "euclidean", own=True)[:, :5]
    np.testing.assert_allclose(found.distances, exact, rtol=1e-2, atol=1e-6)


def test_a_row_of_zeros_has_no_direction() -> None:
    x = np.array([[0, 0], [1, 0], [0, 1], [-1, 0]], np.float32)
    found = find_neighbors(x, 3, metric="cosine")
    np.testing.assert_allclose(found.distances[0], 1, atol=1e-6)
    np.testing.assert_allclose(sorted(found.distances[1]), [1, 1, 2], atol=1e-6)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    x = cloud(101, 4)
    whole = find_neighbors(x, 9)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 4 * 101 * 7)
    parts = find_neighbors(x, 9)
    assert np.array_equal(whole.indices, parts.indices)
    np.testing.assert_allclose(whole.distances, parts.distances, atol=1e-6)


def test_the_first_of_many_are_the_few() -> None:
    x = cloud(40, 4)
    many, few = find_neighbors(x, 20).first(4), find_neighbors(x, 4)
    assert many.k == 4
    assert np.array_equal(many.indices, few.indices)


def test_alone_there_is_no_neighbour_and_nothing_is_changed() -> None:
    x = cloud(1, 3)
    before = x.copy()
    assert find_neighbors(x, 5).indices.shape == (1, 0)
    assert np.array_equal(x, before)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="neither euclidean nor cosine"):
        find_neighbors(cloud(4, 2), 1, metric="manhattan")
    with pytest.raises(ValueError, match="rows of 2 numbers"):
        find_neighbors(cloud(4, 2), 1, among=cloud(4, 3))
