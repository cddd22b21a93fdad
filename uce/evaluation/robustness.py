"""How far vectors follow what is done to the counts of their cells.

Everything here works on arrays. A spoiled cell is a query, the unspoiled cells of other groups are the reference, as in
use.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.scores import classification_scores

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Texts = NDArray[np.str_]
NEIGHBORS = 15


@dataclass(frozen=True, eq=False)
class Reference:
    """The unspoiled cells that spoiled ones are compared with.

    Attributes
    ----------
    vectors
        (cells, dim) unit vectors.
    labels, groups
        (cells,); without groups every cell is its own.
    """

    vectors: Floats
    labels: Texts
    groups: Texts | None = None

    def similarities(self, queries: Floats) -> Floats:
        """(cells, cells) cosine of every query to every reference cell but itself and those of its group."""
        close = np.asarray(np.nan_to_num(queries) @ self.vectors.T, np.float32)
        np.fill_diagonal(close, -np.inf)
        if self.groups is not None:
            close[self.groups[:, None] == self.groups[None, :]] = -np.inf
        return close

    @property
    def asked(self) -> Mask:
        """(cells,) whether a cell of another group has the label, so that it can be found; none of a single label."""
        labels, groups = self.labels, np.arange(len(self.labels)) if self.groups is None else self.groups
        pairs = np.unique(np.stack([labels.astype(str), groups.astype(str)]), axis=1)
        names, counts = np.unique(pairs[0], return_counts=True)
        return np.isin(labels, names[counts > 1]) & bool(len(names) > 1)

    def nearest(self, queries: Floats) -> NDArray[np.int64]:
        """(cells, 15) the nearest reference cells of every query, nearest first; fewer where there are fewer others."""
        close = self.similarities(queries)
        k = min(NEIGHBORS, int(np.isfinite(close).sum(axis=1).min(initial=NEIGHBORS)))
        return np.argsort(-close, axis=1, kind="stable")[:, :k]

    def vote(self, nearest: NDArray[np.int64], lost: Mask) -> Texts:
        """(cells,) the most frequent label among the nearest cells, the nearer of equally frequent ones; "" if lost."""
        kinds, codes = np.unique(self.labels, return_inverse=True)
        votes = np.zeros((len(nearest), len(kinds)))
        weights = 1 - 1e-3 * np.arange(nearest.shape[1])
        np.add.at(votes, (np.arange(len(nearest))[:, None], codes[nearest]), weights)
        return np.where(lost, "", kinds[votes.argmax(axis=1)])


@dataclass(frozen=True, eq=False)
class Placement:
    """Where queries stand among the reference cells: the nearest, the label they give, and which have no vector."""

    vectors: Floats
    nearest: NDArray[np.int64]
    labels: Texts
    lost: Mask


def place(vectors: Floats, reference: Reference) -> Placement:
    """Place queries (cells, dim), the i-th made of the i-th reference cell, among the others."""
    lost: Mask = np.asarray(~np.isfinite(vectors).all(axis=1))
    nearest = reference.nearest(vectors)
    return Placement(vectors, nearest, reference.vote(nearest, lost), lost)


def compare(spoiled: Placement, before: Placement, reference: Reference) -> dict[str, float]:
    """How far vectors follow what was done to their cells.

    Returns
    -------
    cosine
        Of a cell's vector to that before, mean over the cells that still have a vector.
    overlap
        Share of its 15 nearest reference cells that were so before, mean over the same cells.
    accuracy
        Share of cells with the right label, of those whose label some other group has; a lost cell has none. NaN
        where there is one label only.
    lost
        Share of cells without a vector, as they have no count left.
    """
    there = ~spoiled.lost & ~before.lost
    shared = (spoiled.nearest[:, :, None] == before.nearest[:, None, :]).any(axis=2).mean(axis=1)
    asked = reference.asked
    right = spoiled.labels == reference.labels
    return {
        "cosine": _mean(cosines(spoiled.vectors, before.vectors)[there]),
        "overlap": _mean(shared[there]),
        "accuracy": _mean(right[asked]),
        "lost": float(spoiled.lost.mean()),
    }


def cosines(one: Floats, two: Floats) -> NDArray[np.float64]:
    """(cells,) cosine of each row of one to that of the other; both are unit vectors."""
    found: NDArray[np.float64] = np.einsum("ij,ij->i", one, two, dtype=np.float64)
    return found


def noise_floor(draws: list[Placement], reference: Reference) -> dict[str, float]:
    """What drawing the genes of a cell's sentence again changes; differences below it are none.

    Returns
    -------
    cosine_mean, cosine_sd, cosine_p1
        Over cells and pairs of draws.
    overlap, label_flips
        Against the first draw: share of the 15 nearest that stay, share of cells that change their label.
    macro_f1
        The largest difference of the labels' macro-F1 between two draws; NaN where there is one label only.
    between_cells
        Mean cosine of two different cells.
    share
        Mean of 1 - cosine between draws of one cell, over that between cells.
    """
    pairs = [(one, two) for i, two in enumerate(draws) for one in draws[:i]]
    within = np.concatenate([cosines(one.vectors, two.vectors)[~one.lost & ~two.lost] for one, two in pairs])
    first = draws[0]
    unit = first.vectors[~first.lost].astype(np.float64)
    n = len(unit)
    between = float((np.square(unit.sum(axis=0)).sum() - np.square(unit).sum()) / max(1, n * (n - 1)))
    same = [(draw.nearest[:, :, None] == first.nearest[:, None, :]).any(axis=2).mean() for draw in draws[1:]]
    return {
        "cosine_mean": _mean(within),
        "cosine_sd": float(within.std()) if len(within) else float("nan"),
        "cosine_p1": float(np.quantile(within, 0.01)) if len(within) else float("nan"),
        "overlap": _mean(np.array(same)),
        "macro_f1": _spread([draw.labels for draw in draws], reference),
        "label_flips": _mean(np.array([(draw.labels != first.labels).mean() for draw in draws[1:]])),
        "between_cells": between,
        "share": (1 - _mean(within)) / (1 - between) if between < 1 else float("nan"),
    }


def _spread(labels: list[Texts], reference: Reference) -> float:
    """Largest less lowest macro-F1 of several labellings."""
    asked = reference.asked
    if not asked.any():
        return float("nan")
    found = [classification_scores(reference.labels[asked], given[asked])["macro_f1"] for given in labels]
    return max(found) - min(found)


def largest_difference(one: Floats, two: Floats) -> float:
    """Between numbers at the same place; infinite where only one of them is NaN."""
    if (np.isnan(one) != np.isnan(two)).any():
        return float("inf")
    return float(np.nanmax(np.abs(one.astype(np.float64) - two), initial=0.0))


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else float("nan")
