"""Do cell types lie to each other as they do in the data? scGraph: Wang, Leskovec, Regev, Nature Biotechnology 2025.

Distances between the types inside each batch, where no batch effect reaches them, are averaged over batches and
compared with those of the embedding. The measure of scgraph-eval 0.1.2, and what it leaves out: correlations without
the diagonal of zeros, the score of labels dealt at random (far from 0), and distances that do not depend on norms.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from uce.evaluation.results import NotPossible
from uce.threads import torch_threads_kept

Floats = NDArray[np.float64]
Texts = NDArray[np.str_]

MIN_LABEL_CELLS = 10
MIN_BATCH_CELLS = 100
N_GENES = 1000
N_COMPONENTS = 10
TRIM = 0.05
NULLS = 20
NULL_CELLS = 5000
NAN = float("nan")


@dataclass(frozen=True, eq=False)
class Yardstick:
    """What the data say about the distances between labels.

    Attributes
    ----------
    labels
        Sorted names of the labels with ten cells or more.
    distances
        (labels, labels) mean over batches of distances in the batch; each column has the maximum 1. NaN for labels
        that share no batch.
    batches
        Those it was made of.
    skipped
        (batch, reason) of the others.
    """

    labels: tuple[str, ...]
    distances: Floats
    batches: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Agreement:
    """Correlation of distances, column by column, then averaged; NaN where no column varies.

    Attributes
    ----------
    weighted
        Pearson, near labels count more: weights are 1 / distance in the data, 0 on the diagonal (`Corr-Weighted`).
    corr, rank
        Pearson and Spearman with the diagonal of zeros (`Corr-PCA`, `Rank-PCA`).
    corr_offdiag, rank_offdiag
        The same without the diagonal.
    """

    weighted: float
    corr: float
    rank: float
    corr_offdiag: float
    rank_offdiag: float


def yardstick(log_counts: csr_matrix | NDArray[Any], labels: Texts, batches: Texts) -> Yardstick:
    """Distances between labels according to the data: 1,000 variable genes and 10 components of every batch.

    Parameters
    ----------
    log_counts
        (cells, genes) log-normalised counts.
    labels, batches
        (cells,) of each cell.

    Raises
    ------
    NotPossible
        There are fewer than three labels of ten cells, or no batch of 100 cells with two of them.
    """
    names = _frequent(labels)
    found: dict[str, Floats] = {}
    skipped = []
    for batch in np.unique(batches):
        rows = np.flatnonzero(batches == batch)
        kept = np.isin(labels[rows], names)
        if len(rows) < MIN_BATCH_CELLS:
            skipped.append((str(batch), f"{len(rows)} cells, fewer than {MIN_BATCH_CELLS}"))
        elif len(np.unique(labels[rows][kept])) < 2:
            skipped.append((str(batch), "fewer than two labels"))
        else:
            found[str(batch)] = label_distances(_components(log_counts[rows]), labels[rows], names)
    if not found:
        msg = f"no batch has {MIN_BATCH_CELLS} cells or more of two labels or more"
        raise NotPossible(msg)
    return Yardstick(names, _by_column(_mean_there(list(found.values()))), tuple(found), tuple(skipped))


def _frequent(labels: Texts) -> tuple[str, ...]:
    names, counts = np.unique(labels, return_counts=True)
    kept = tuple(names[counts >= MIN_LABEL_CELLS].tolist())
    if len(kept) < 3:
        msg = f"needs three labels of {MIN_LABEL_CELLS} cells or more, there are {len(kept)}"
        raise NotPossible(msg)
    return kept


def _components(log_counts: csr_matrix | NDArray[Any]) -> Floats:
    import anndata as ad
    import scanpy as sc

    expressed = np.asarray((log_counts != 0).sum(axis=0)).ravel() > 0
    batch = ad.AnnData(log_counts[:, expressed])
    if batch.n_vars > N_GENES:
        with torch_threads_kept():
            sc.pp.highly_variable_genes(batch, n_top_genes=N_GENES)
        batch = batch[:, batch.var["highly_variable"]].copy()
    sc.pp.pca(batch, n_comps=min(N_COMPONENTS, min(batch.shape) - 1))
    return np.asarray(batch.obsm["X_pca"], dtype=np.float64)


def label_distances(
    vectors: NDArray[np.floating], labels: Texts, names: tuple[str, ...], *, metric: str = "euclidean"
) -> Floats:
    """Distances (names, names) between the labels' centroids, each column divided by its maximum.

    A centroid is the mean of every coordinate without its lowest and highest 5 %. Labels without a cell are NaN.

    Parameters
    ----------
    metric
        `euclidean`; or `cosine`, for which every vector is brought to length 1 first.
    """
    from scipy.spatial.distance import cdist
    from scipy.stats import trim_mean

    if metric == "cosine":
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors / np.where(norms > 0, norms, 1)
    centroids = np.full((len(names), vectors.shape[1]), np.nan)
    for i, name in enumerate(names):
        mine = labels == name
        if mine.any():
            centroids[i] = trim_mean(vectors[mine].astype(np.float64), TRIM, axis=0)
    return _by_column(cdist(centroids, centroids, metric))


def _by_column(distances: Floats) -> Floats:
    highest = np.fmax.reduce(distances, axis=0)
    return np.asarray(distances / np.where(highest > 0, highest, np.nan))


def _mean_there(several: list[Floats]) -> Floats:
    there = np.sum([np.isfinite(one) for one in several], axis=0)
    total = np.sum([np.nan_to_num(one) for one in several], axis=0)
    return np.asarray(np.where(there > 0, total / np.maximum(there, 1), np.nan))


def agreement(distances: Floats, reference: Floats) -> Agreement:
    """How well distances (labels, labels) between labels agree with those of the data, both scaled by column."""
    from scipy.stats import rankdata

    found: dict[str, list[float]] = {name: [] for name in Agreement.__annotations__}
    for column in range(len(reference)):
        there = np.isfinite(distances[:, column]) & np.isfinite(reference[:, column])
        off = there & (np.arange(len(reference)) != column)
        for kept, ending in ((there, ""), (off, "_offdiag")):
            x, y = np.round(distances[kept, column], 9), reference[kept, column]
            found["corr" + ending].append(_pearson(x, y, np.ones(len(y))))
            found["rank" + ending].append(_pearson(rankdata(x), rankdata(y), np.ones(len(y))))
        x, y = distances[off, column], reference[off, column]
        found["weighted"].append(_pearson(x, y, np.divide(1, y, out=np.zeros(len(y)), where=y > 0)))
    return Agreement(**{name: _mean(values) for name, values in found.items()})


def _pearson(x: Floats, y: Floats, weights: Floats) -> float:
    if weights.sum() <= 0:
        return NAN
    x, y = (value - np.average(value, weights=weights) for value in (x, y))
    # Distances are scaled to 1: what differs by less is rounding, as where all labels are equally far from each other.
    spread = [np.average(value**2, weights=weights) for value in (x, y)]
    if min(spread) < 1e-12:
        return NAN
    return float(np.average(x * y, weights=weights) / np.sqrt(spread[0] * spread[1]))


def _mean(values: list[float]) -> float:
    there = [value for value in values if np.isfinite(value)]
    return float(np.mean(there)) if there else NAN


def judge(vectors: NDArray[np.float32], labels: Texts, data: Yardstick, *, metric: str = "euclidean") -> Agreement:
    """Agreement of vectors (cells, dim) of all cells against the yardstick of the same cells."""
    return agreement(label_distances(vectors, labels, data.labels, metric=metric), data.distances)


def judge_shuffled(
    vectors: NDArray[np.float32], labels: Texts, data: Yardstick, rng: np.random.Generator, *, times: int = NULLS
) -> Agreement:
    """Mean of what `judge` gives when the labels are dealt at random among the cells.

    At most 5,000 cells are drawn every time: distances between random centroids shrink with the number of cells, but
    all alike, so that scaled by column they stay what they are.
    """
    several = []
    for _ in range(times):
        rows, dealt = rng.permutation(len(labels))[:NULL_CELLS], rng.permutation(labels)[:NULL_CELLS]
        several.append(judge(vectors[rows], dealt, data))
    return Agreement(**{name: _mean([getattr(one, name) for one in several]) for name in Agreement.__annotations__})


def above_null(score: float, null: float) -> float:
    """(S - S_null) / (1 - S_null): 0 for labels at random, 1 for full agreement."""
    return (score - null) / (1 - null)
