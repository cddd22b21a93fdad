"""Routines of scib-metrics in forms that thousands of wide vectors do not slow down; their values are the package's.

Definitions: scib-metrics 0.5.10. Silhouettes take distances by matrix products; BRAS and PCR need no pairs of cells.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.neighbors import Neighbors, find_neighbors

Floats = NDArray[np.float32]
Codes = NDArray[np.int64]

_BLOCK_BYTES = 64 << 20


def one_hot(codes: Codes) -> Floats:
    """(cells, groups) 1 where the cell is of the group."""
    hot = np.zeros((len(codes), int(codes.max()) + 1), np.float32)
    hot[np.arange(len(codes)), codes] = 1
    return hot


def silhouettes(vectors: Floats, codes: Codes) -> NDArray[np.float64]:
    """(cells,) silhouette of each cell among the groups 0, 1, ... of `codes`, Euclidean (Rousseeuw 1987).

    0 for a cell that is alone in its group, and where all distances are 0.
    """
    vectors = vectors - vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    squares, groups = np.einsum("ij,ij->i", vectors, vectors), one_hot(codes)
    result = np.empty(len(vectors))
    step = max(1, _BLOCK_BYTES // (4 * len(vectors)))
    for start in range(0, len(vectors), step):
        rows = slice(start, start + step)
        far = vectors[rows] @ vectors.T
        far *= -2
        far += squares
        far += squares[rows, None]
        np.sqrt(np.maximum(far, 0, out=far), out=far)
        here = np.arange(len(far))
        far[here, start + here] = 0
        result[rows] = _widths((far @ groups).astype(np.float64), codes[rows], groups.sum(axis=0, dtype=np.float64))
    return result


def _widths(sums: NDArray[np.float64], own: Codes, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    here = np.arange(len(sums))
    inside = _ratio(sums[here, own], sizes[own] - 1)
    means = sums / sizes
    means[here, own] = np.inf
    outside = means.min(axis=1)
    widths = _ratio(outside - inside, np.maximum(inside, outside))
    return np.where(sizes[own] > 1, widths, 0)


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def isolated_labels(labels: Codes, batches: Codes) -> Codes:
    """The labels that occur in the fewest batches."""
    pairs = np.unique(np.stack([labels, batches], axis=1), axis=0)
    occurs = np.bincount(pairs[:, 0])
    return np.flatnonzero(occurs == occurs.min())


def isolated_score(widths: NDArray[np.float64], labels: Codes, batches: Codes) -> float:
    """Mean over isolated labels of the label's mean rescaled silhouette."""
    return float(np.mean([(widths[labels == label].mean() + 1) / 2 for label in isolated_labels(labels, batches)]))


def bras(vectors: Floats, labels: Codes, batches: Codes) -> float:
    """Batch removal adapted silhouette (Rautenstrauch and Ohler 2025): cosine, other batches pooled, mean over labels.

    Cosine distances add up: their sum over cells is their number less the product with the sum of unit vectors. NaN
    where no label has several batches.
    """
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    units = vectors / np.where(norms > 0, norms, 1)
    scores = [_bras_of(units[labels == label], batches[labels == label]) for label in np.unique(labels)]
    kept = [score for score in scores if score is not None]
    return float(np.mean(kept)) if kept else float("nan")


def _bras_of(units: NDArray[np.float64], batches: Codes) -> float | None:
    found, codes = np.unique(batches, return_inverse=True)
    if len(found) in (1, len(units)):
        return None
    hot = one_hot(codes).astype(np.float64)
    sizes, here = hot.sum(axis=0), np.arange(len(units))
    sums = np.maximum(sizes - units @ (hot.T @ units).T, 0)
    own = sums[here, codes]
    inside = _ratio(own, sizes[codes] - 1)
    outside = _ratio(sums.sum(axis=1) - own, len(units) - sizes[codes])
    widths = _ratio(outside - inside, np.maximum(inside, outside))
    return float(np.mean(1 - np.abs(np.where(sizes[codes] > 1, widths, 0))))


def batch_share(vectors: Floats, batches: Codes) -> float:
    """Share of the variance that lies between batches.

    It is what principal component regression gives with all components: the shares explained of the components,
    weighted by their variances, sum to the variance between batches, whatever the axes. NaN if nothing varies.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    total = float(np.square(centred).sum())
    hot = one_hot(batches).astype(np.float64)
    between = float((np.square(hot.T @ centred).sum(axis=1) / np.maximum(hot.sum(axis=0), 1)).sum())
    return between / total if total > 0 else float("nan")


def kmeans_clusters(vectors: Floats, k: int) -> NDArray[np.int32]:
    """(cells,) clusters by scikit-learn's k-means, from the starting points that scib-metrics takes.

    The package goes on for 300 rounds whether or not anything moves, and holds (cells, clusters, dim) in each.
    """
    import jax
    from scib_metrics.utils import KMeans as Package
    from sklearn.cluster import KMeans

    package: Any = Package(k)
    centred = vectors - vectors.mean(axis=0)
    starts = np.asarray(package._initialize(centred, k, jax.random.split(package.seed, 1)[0]))
    fitted = KMeans(k, init=starts, n_init=1, max_iter=300, tol=0).fit(centred)
    clusters: NDArray[np.int32] = fitted.labels_
    return clusters


def with_self(found: Neighbors) -> Any:
    """Neighbours in the form of the package, whose first one is the cell itself."""
    from scib_metrics.nearest_neighbors import NeighborsResults

    own = np.arange(len(found.indices))[:, None]
    return NeighborsResults(
        indices=np.hstack([own, found.indices]),
        distances=np.hstack([np.zeros_like(own, np.float32), found.distances]),
    )


def steady_diffusion() -> None:
    """Let kBET depend on the vectors alone, by three faults of the package's diffusion maps that are mended.

    Eigenvectors start from random numbers. An eigenvector of eigenvalue 1 has weight 1, any other e / (1 - e): one that
    rounding puts at 1 - 6e-8 would weigh ten million times more, and the label get another score. The search for
    neighbours is approximate, and compiles for half a minute; the exact one finds the same.
    """
    from scib_metrics import nearest_neighbors
    from scipy.sparse import linalg

    original = linalg.eigsh

    def eigsh(matrix: Any, *arguments: Any, **options: Any) -> Any:
        start = np.random.default_rng(0).uniform(-1, 1, matrix.shape[0])
        values, axes = original(matrix, *arguments, **{"v0": start, **options})
        return np.where(np.abs(values - 1) < 1e-6, 1, values), axes

    linalg.eigsh = eigsh
    nearest_neighbors.pynndescent = lambda vectors, n_neighbors: with_self(find_neighbors(vectors, n_neighbors - 1))
