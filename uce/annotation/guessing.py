"""What neighbours (or a classifier) say of cells, and how far away the neighbours are."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from uce.annotation.reference import Reference
from uce.evaluation.cells import Texts
from uce.evaluation.embeddings import Floats
from uce.evaluation.neighbors import find_neighbors
from uce.evaluation.probes import PROBES, Votes, vote

Method = Literal["knn", "logistic"]
Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]

K = 15
MIN_K = 5
SMALL_LABEL = 10


@dataclass(frozen=True, eq=False)
class Guesses:
    """Of cells, before anything is known of how right they are.

    Attributes
    ----------
    votes
        Probabilities of the labels.
    distances
        (cells,) mean cosine distance to the k nearest reference cells.
    agreement
        (cells,) share of these that carry the likeliest label.
    """

    votes: Votes
    distances: Numbers
    agreement: Numbers

    @property
    def labels(self) -> Texts:
        """(cells,) the likeliest label."""
        return self.votes.labels


def neighbours_for(labels: Texts, k: int = K) -> int:
    """`k`, at most a third of the smallest label that has ten cells or more, but not below five.

    A label with fewer cells than neighbours could never win a vote.
    """
    sizes = np.unique(labels, return_counts=True)[1]
    usual = sizes[sizes >= SMALL_LABEL]
    return min(k, max(MIN_K, int(usual.min()) // 3)) if len(usual) else min(k, MIN_K)


def guess(vectors: Floats, reference: Reference, *, method: Method, k: int) -> Guesses:
    """Labels of `vectors` (cells, dim), which are finite.

    `knn`: the k nearest reference cells by cosine vote with 1 / distance, and a label's votes are divided by the square
    root of its number of cells, so that common labels do not win by number. `logistic`: see `uce.evaluation.probes`.
    """
    neighbors = find_neighbors(vectors, k, metric="cosine", among=reference.vectors)
    # A classifier needs cells, and two labels to tell apart.
    if method == "knn" or not len(vectors) or len(np.unique(reference.labels)) < 2:
        votes = balanced(vote(neighbors, reference.labels), reference.labels)
    else:
        groups = reference.labels if reference.groups is None else reference.groups
        votes = PROBES["logistic"](reference.vectors, reference.labels, groups, vectors)
    agreement = (reference.labels[neighbors.indices] == votes.labels[:, None]).mean(axis=1)
    return Guesses(votes, neighbors.distances.astype(np.float64).mean(axis=1), agreement)


def balanced(votes: Votes, labels: Texts) -> Votes:
    """Votes divided by the square root of the number of reference cells of each label."""
    sizes = np.unique(labels, return_counts=True)[1]
    shares = votes.probabilities / np.sqrt(sizes)
    return Votes(votes.classes, shares / shares.sum(axis=1, keepdims=True), votes.note)


def over_classes(votes: Votes, classes: Texts) -> Votes:
    """The same with a column for each of `classes`, zero for those that could not be voted for."""
    wide = np.zeros((len(votes.probabilities), len(classes)))
    wide[:, np.searchsorted(classes, votes.classes)] = votes.probabilities
    return Votes(classes, wide, votes.note)
