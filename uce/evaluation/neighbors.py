"""The nearest cells of every cell, exactly, without holding all distances at once."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES = 64 << 20
# float32 dot products know a squared distance to about 1e-7 of the squared norm; below this share of it they are done
# again in float64.
_TOO_CLOSE = 1e-4


@dataclass(frozen=True, eq=False)
class Neighbors:
    """Nearest other cells, nearest first.

    Attributes
    ----------
    indices, distances
        (cells, k) int64 and float32; a cell is never its own neighbour. Equally far ones are in order of position.
    """

    indices: NDArray[np.int64]
    distances: NDArray[np.float32]

    @property
    def k(self) -> int:
        """How many neighbours each cell has."""
        return int(self.indices.shape[1])

    def first(self, k: int) -> "Neighbors":
        """The k nearest of them."""
        return Neighbors(self.indices[:, :k], self.distances[:, :k])


def find_neighbors(
    vectors: NDArray[np.float32], k: int, *, metric: str = "euclidean", among: NDArray[np.float32] | None = None
) -> Neighbors:
    """The k nearest rows of every row of `vectors` (cells, dim), or of those in `among` (others, dim).

    Without `among` a row is not its own neighbour (it is left out by position, not by distance, so copies of it are
    found). `k` is cut to what there is. `cosine`: 1 - cosine; a row of zeros is 1 away from every other direction.
    Distances are never negative, and hold where all rows are nearly equal too.

    Raises
    ------
    ValueError
        The metric is neither `euclidean` nor `cosine`, or the widths differ.
    """
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f"metric {metric!r} is neither euclidean nor cosine")
    own = among is None
    queries, pool = _prepared(vectors, metric), _prepared(vectors if among is None else among, metric)
    if queries.shape[1] != pool.shape[1]:
        raise ValueError(f"rows of {queries.shape[1]} numbers cannot be compared with rows of {pool.shape[1]}")
    k = max(0, min(k, len(pool) - own))
    found = Neighbors(np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32))
    if not k:
        return found
    # Far from the origin the dot products of nearly equal rows lose what they differ by; a shift to the mean keeps it.
    centre = pool.mean(axis=0, dtype=np.float64).astype(np.float32)
    search = _Search(pool - centre, k, own)
    for start in range(0, len(queries), search.step):
        rows = slice(start, start + search.step)
        indices, squared = search.nearest(queries[rows] - centre, start)
        found.indices[rows] = indices
        # Of unit vectors, the squared distance is twice the cosine distance.
        found.distances[rows] = squared / 2 if metric == "cosine" else np.sqrt(squared)
    return found


class _Search:
    """The k nearest of a pool of rows, for a block of rows at a time."""

    def __init__(self, pool: NDArray[np.float32], k: int, own: bool) -> None:
        self._pool, self._k, self._own = pool, k, own
        self._squares = np.einsum("ij,ij->i", pool, pool)
        self.step = max(1, _BLOCK_BYTES // (4 * len(pool)))

    def nearest(self, block: NDArray[np.float32], start: int) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
        """Positions and squared distances, for rows that stand in the pool from `start` on if it is their own."""
        own = start + np.arange(len(block)) if self._own else None
        indices, squared = _smallest(self._squared(block, self._pool, self._squares), self._k, own)
        norms = np.einsum("ij,ij->i", block, block)
        close = np.flatnonzero(squared[:, 0] < _TOO_CLOSE * norms)
        if not len(close):
            return indices, squared
        exact = self._squared(block[close].astype(np.float64), *self._fine)
        indices[close], squared[close] = _smallest(exact, self._k, None if own is None else own[close])
        return indices, squared

    @cached_property
    def _fine(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        pool = self._pool.astype(np.float64)
        return pool, np.einsum("ij,ij->i", pool, pool)

    @staticmethod
    def _squared(
        block: NDArray[np.floating], pool: NDArray[np.floating], squares: NDArray[np.floating]
    ) -> NDArray[np.floating]:
        far = block @ pool.T
        far *= -2
        far += squares
        far += np.einsum("ij,ij->i", block, block)[:, None]
        return np.maximum(far, 0, out=far)


def _smallest(
    far: NDArray[np.floating], k: int, own: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
    """Columns of the k smallest of every row, in order, and their values; `own` are columns to leave out."""
    if own is not None:
        far[np.arange(len(far)), own] = np.inf
    chosen = np.argpartition(far, k - 1, axis=1)[:, :k]
    chosen.sort(axis=1)
    values = np.take_along_axis(far, chosen, axis=1)
    order = np.argsort(values, axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1), np.take_along_axis(values, order, axis=1)


def _prepared(vectors: NDArray[np.float32], metric: str) -> NDArray[np.float32]:
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if metric == "euclidean":
        return vectors
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    # A row of zeros has no direction: one more coordinate makes it a direction that no other row has.
    return np.hstack([vectors / np.where(norms > 0, norms, 1), norms == 0]).astype(np.float32)
