"""Labels taken out of training one at a time: whether their cells are noticed, and what they are called."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.cells import Texts
from uce.evaluation.embeddings import Floats
from uce.evaluation.held_out import Fold, HeldOut, merged
from uce.evaluation.neighbors import Neighbors, find_neighbors
from uce.evaluation.probes import K, narrow, vote
from uce.evaluation.unknown import relative_distance, vote_scores

Numbers = NDArray[np.float64]
MOST_LABELS, LEAST_CELLS, LEAST_GROUPS = 20, 50, 2
SCORES = ("relative_distance", "doubt", "entropy", "margin", "mahalanobis")


@dataclass(frozen=True, eq=False)
class Withheld:
    """One label that was in no training set.

    Attributes
    ----------
    label
        Which.
    positive
        (cells,) whether a judged cell has it; the others have labels that were in training.
    scores
        name of an unknown score -> (cells,) high where a cell looks unknown.
    called
        (cells,) what k-NN calls the cells, which is wrong for all positive ones.
    """

    label: str
    positive: NDArray[np.bool_]
    scores: dict[str, Numbers]
    called: Texts

    def measures(self, score: str) -> dict[str, float]:
        """`auroc`, `aupr` and `fpr95` (false positives where 95 % of the positives are found) of an unknown score."""
        from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

        values = self.scores[score]
        wrong, found, _ = roc_curve(self.positive, values, drop_intermediate=False)
        return {
            "auroc": float(roc_auc_score(self.positive, values)),
            "aupr": float(average_precision_score(self.positive, values)),
            "fpr95": float(wrong[found >= 0.95].min()),
        }

    def destinations(self) -> dict[str, float]:
        """What the cells are called instead: label -> share, largest first."""
        names, times = np.unique(self.called[self.positive], return_counts=True)
        order = np.argsort(-times, kind="stable")
        return {str(names[i]): float(times[i] / times.sum()) for i in order}


def labels_to_withhold(labels: Texts, groups: Texts) -> list[str]:
    """Labels with 50 cells and 2 groups or more, the largest 20 first."""
    names, times = np.unique(labels, return_counts=True)
    order = np.argsort(-times, kind="stable")
    spread = [n for n in names[order] if len(np.unique(groups[labels == n])) >= LEAST_GROUPS]
    return [str(name) for name in spread if (labels == name).sum() >= LEAST_CELLS][:MOST_LABELS]


def withhold(held: HeldOut, labels: Texts, wanted: list[str]) -> Iterator[Withheld]:
    """Take each wanted label out of the training cells of every fold, and score all cells the fold judges.

    The neighbours, and what distance is usual, are of the remaining training cells alone; the components that
    `mahalanobis` looks at (more than 50 dimensions) are of all training cells. A label is passed over if a fold trains
    on no other.

    Parameters
    ----------
    labels
        (all cells,).
    """
    known = [_ready(fold, labels) for fold in held.folds]
    for label in wanted:
        if any(set(one.of_test) == {label} for one in known):
            continue
        parts = [_without(one, labels, label) for one in known]
        scores = {name: np.concatenate([part[0][name] for part in parts]) for name in SCORES}
        called = np.concatenate([part[1] for part in parts])
        yield Withheld(label, held.labels == label, scores, called)


@dataclass(frozen=True, eq=False)
class _Ready:
    """A fold with neighbours by the label they have, so that any label can be left out.

    Attributes
    ----------
    space
        (all cells, <= 50) its vectors, or their components.
    of_test
        Training label -> the nearest 15 cells of it, for every test cell.
    of_inner
        For every part of the training cells: those of its cells that are asked as if held out (rows), and the same for
        them, of the other parts.
    """

    fold: Fold
    space: Floats
    of_test: dict[str, Neighbors]
    of_inner: list[tuple[NDArray[np.int64], dict[str, Neighbors]]]


def _ready(fold: Fold, labels: Texts) -> _Ready:
    train, of_inner = np.flatnonzero(fold.train), []
    for part in np.unique(fold.parts):
        asked = np.intersect1d(fold.inner, train[fold.parts == part])
        of_inner.append((asked, _by_label(fold.vectors, asked, train[fold.parts != part], labels)))
    of_test = _by_label(fold.vectors, np.flatnonzero(fold.test), train, labels)
    return _Ready(fold, narrow(fold.vectors, fold.train), of_test, of_inner)


def _by_label(
    vectors: Floats, queries: NDArray[np.int64], among: NDArray[np.int64], labels: Texts
) -> dict[str, Neighbors]:
    """Label -> the nearest K of the rows `among` that have it, for every row of `queries`."""
    found = {}
    for label in np.unique(labels[among]):
        rows = among[labels[among] == label]
        near = find_neighbors(vectors[queries], K, metric="cosine", among=vectors[rows])
        found[str(label)] = Neighbors(rows[near.indices], near.distances)
    return found


def _left(lists: dict[str, Neighbors], label: str) -> Neighbors | None:
    """The nearest K cells of other labels than `label`."""
    others = [near for name, near in lists.items() if name != label]
    return merged(others, K) if others else None


def _without(one: _Ready, labels: Texts, label: str) -> tuple[dict[str, Numbers], Texts]:
    """(unknown scores, k-NN labels) of the test cells of a fold that has not seen a label."""
    near = _left(one.of_test, label)
    assert near is not None
    votes, far = vote(near, labels), near.distances[:, -1].astype(np.float64)
    rows, usual = _usual(one, labels, label, near.k)
    train = one.fold.train & (labels != label)
    scores = vote_scores(votes)
    scores["relative_distance"] = relative_distance(far, votes.labels, usual, labels[rows])
    scores["mahalanobis"] = mahalanobis(one.space[train], labels[train], one.space[one.fold.test])
    return scores, votes.labels


def _usual(one: _Ready, labels: Texts, label: str, k: int) -> tuple[NDArray[np.int64], Numbers]:
    """Training cells of other labels, and how far their k-th neighbour is when their part is held out."""
    rows, usual = [np.zeros(0, np.int64)], [np.zeros(0)]
    for asked, lists in one.of_inner:
        near, others = _left(lists, label), labels[asked] != label
        if near is not None and near.k >= k:
            rows.append(asked[others])
            usual.append(near.distances[others, k - 1].astype(np.float64))
    return np.concatenate(rows), np.concatenate(usual)


def mahalanobis(train: Floats, labels: Texts, queries: Floats) -> Numbers:
    """(queries,) squared distance to the nearest mean of a label, by the shrunk covariance within labels.

    Lee et al. 2018; the covariance is Ledoit and Wolf's (2004), pooled over the labels.
    """
    from sklearn.covariance import LedoitWolf

    classes, codes = np.unique(labels, return_inverse=True)
    sums = np.zeros((len(classes), train.shape[1]))
    np.add.at(sums, codes, train.astype(np.float64))
    means = sums / np.bincount(codes)[:, None]
    precision = LedoitWolf(assume_centered=True).fit(train - means[codes]).precision_
    root = np.linalg.cholesky(precision)
    there, centres = queries @ root, means @ root
    far = (there**2).sum(axis=1)[:, None] - 2 * there @ centres.T + (centres**2).sum(axis=1)
    return np.asarray(np.maximum(far.min(axis=1), 0), dtype=np.float64)
