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

    The neighbours are those of the remaining training cells, exactly. A label is passed over if a
    fold trains on no other.

    Parameters
    ----------
    labels
        (all cells,).
    """
    known = [(fold, narrow(fold.vectors, fold.train), _by_label(fold, labels)) for fold in held.folds]
    for label in wanted:
        if any(set(lists) == {label} for _, _, lists in known):
            continue
        parts = [_without(fold, space, lists, labels, label) for fold, space, lists in known]
        scores = {name: np.concatenate([part[0][name] for part in parts]) for name in SCORES}
        called = np.concatenate([part[1] for part in parts])
        yield Withheld(label, held.labels == label, scores, called)


def _without(
    fold: Fold, space: Floats, lists: dict[str, Neighbors], labels: Texts, label: str
) -> tuple[dict[str, Numbers], Texts]:
    near = merged([lists[name] for name in lists if name != label], K)
    votes = vote(near, labels)
    # Training cells asked as if held out, but for those of the label: how far is usual?
    known = labels[fold.inner] != label
    usual = fold.inner_neighbors.distances[known, : near.k].astype(np.float64)
    scores = vote_scores(votes)
    scores["relative_distance"] = relative_distance(
        near.distances[:, -1].astype(np.float64), votes.labels, usual[:, -1], labels[fold.inner[known]]
    )
    train = fold.train & (labels != label)
    scores["mahalanobis"] = mahalanobis(space[train], labels[train], space[fold.test])
    return scores, votes.labels


def _by_label(fold: Fold, labels: Texts) -> dict[str, Neighbors]:
    """Training label -> the nearest K cells of it, for every test cell: without one label, the others are left."""
    queries, found = fold.vectors[fold.test], {}
    for label in np.unique(labels[fold.train]):
        rows = np.flatnonzero(fold.train & (labels == label))
        near = find_neighbors(queries, K, metric="cosine", among=fold.vectors[rows])
        found[str(label)] = Neighbors(rows[near.indices], near.distances)
    return found


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
