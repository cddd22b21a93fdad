"""Are the batches mixed among cells of one label? Local inverse Simpson's index, counted within every label.

LISI: Korsunsky et al., Nature Methods 2019; CiLISI: Andreatta et al., Nature Communications 2024. Mixing across labels,
which a metric that knows no labels rewards, cannot raise it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.neighbors import Neighbors, find_neighbors
from uce.evaluation.results import NotPossible

Floats = NDArray[np.float64]
Texts = NDArray[np.str_]

PERPLEXITY = 30.0
MIN_CELLS = 10
K_RULE = "k = 3 x perplexity (30), at most the cells of the label less one; perplexity at most k / 3"


@dataclass(frozen=True, eq=False)
class LabelMixing:
    """One label.

    Attributes
    ----------
    label
        Its name.
    rows
        (cells,) positions of its cells.
    scores
        (cells,) scaled index of each: 0 among its own batch alone, 1 where all batches of the label are equally near.
    ceiling
        Mean score when the batches are dealt anew among the cells of the label: what unequal batches allow at best.
    """

    label: str
    rows: NDArray[np.int64]
    scores: Floats
    ceiling: float


@dataclass(frozen=True, eq=False)
class Mixing:
    """All labels that could be judged, and those that could not: (label, reason)."""

    labels: tuple[LabelMixing, ...]
    skipped: tuple[tuple[str, str], ...]

    @property
    def rows(self) -> NDArray[np.int64]:
        """Positions of all judged cells, label after label."""
        return np.concatenate([one.rows for one in self.labels])

    @property
    def scores(self) -> Floats:
        """The scaled index of all judged cells, in the order of `rows`."""
        return np.concatenate([one.scores for one in self.labels])

    @property
    def cilisi(self) -> float:
        """Mean over cells."""
        return float(self.scores.mean())

    @property
    def cilisi_means(self) -> float:
        """Mean over labels of the mean over their cells."""
        return float(np.mean([one.scores.mean() for one in self.labels]))

    @property
    def ceiling(self) -> float:
        """Mean over cells when batches are dealt anew within every label."""
        return float(np.average([one.ceiling for one in self.labels], weights=[len(one.rows) for one in self.labels]))


def perplexity_weights(distances: NDArray[np.floating], perplexity: float) -> Floats:
    """Weights (cells, k) that sum to 1, exp(-beta distance) with a beta per cell that gives them this perplexity.

    beta is found by bisection (50 steps, entropy within 1e-5). Neighbours that are all equally far weigh the same.
    """
    away = distances - distances.min(axis=1, keepdims=True).astype(np.float64)
    mean = away.mean(axis=1, keepdims=True)
    away /= np.where(mean > 0, mean, 1)  # the unit of the embedding plays no part
    beta, low, high = np.ones((len(away), 1)), np.zeros((len(away), 1)), np.full((len(away), 1), np.inf)
    for _ in range(50):
        weights = np.exp(-beta * away)
        total = weights.sum(axis=1, keepdims=True)
        weights /= total
        excess = np.log(total) + beta * (weights * away).sum(axis=1, keepdims=True) - np.log(perplexity)
        if (np.abs(excess) < 1e-5).all():
            break
        low, high = np.where(excess > 0, beta, low), np.where(excess > 0, high, beta)
        beta = np.where(np.isinf(high), 2 * beta, (low + np.minimum(high, 1e300)) / 2)
    return np.asarray(weights)


def lisi(neighbors: Neighbors, categories: Texts, perplexity: float = PERPLEXITY) -> Floats:
    """Effective number of categories among the neighbours of every cell, from 1 to the number of categories.

    Parameters
    ----------
    neighbors
        Of all cells among themselves; the perplexity is cut to a third of their number.
    categories
        (cells,) such as the batch of each.
    """
    return _lisi(
        neighbors.indices, perplexity_weights(neighbors.distances, min(perplexity, neighbors.k / 3)), categories
    )


def _lisi(indices: NDArray[np.int64], weights: Floats, categories: Texts) -> Floats:
    names, codes = np.unique(categories, return_inverse=True)
    around = codes[indices]
    shares = [(weights * (around == code)).sum(axis=1) for code in range(len(names))]
    return np.asarray(1.0 / np.square(shares).sum(axis=0))


def cilisi(
    vectors: NDArray[np.float32], labels: Texts, batches: Texts, rng: np.random.Generator, *, permutations: int = 5
) -> Mixing:
    """Mixing of `batches` among the cells of each label, in vectors (cells, dim).

    Raises
    ------
    NotPossible
        No label has ten cells from two batches.
    """
    found, skipped = [], []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        reason = _unfit(batches[rows])
        if reason:
            skipped.append((str(label), reason))
        else:
            found.append(LabelMixing(str(label), rows, *_judge(vectors[rows], batches[rows], rng, permutations)))
    if not found:
        msg = f"no label has {MIN_CELLS} cells or more from two batches or more"
        raise NotPossible(msg)
    return Mixing(tuple(found), tuple(skipped))


def _unfit(batches: Texts) -> str:
    if len(batches) < MIN_CELLS:
        return f"{len(batches)} cells, fewer than {MIN_CELLS}"
    return "" if len(np.unique(batches)) > 1 else f"all cells are of one batch ({batches[0]})"


def _judge(vectors: NDArray[np.float32], batches: Texts, rng: np.random.Generator, times: int) -> tuple[Floats, float]:
    near = find_neighbors(vectors, int(3 * PERPLEXITY))
    weights = perplexity_weights(near.distances, min(PERPLEXITY, near.k / 3))
    others = len(np.unique(batches)) - 1
    dealt = [_lisi(near.indices, weights, rng.permutation(batches)).mean() for _ in range(times)]
    scores = (_lisi(near.indices, weights, batches) - 1) / others
    return scores, float((np.mean(dealt) - 1) / others)
