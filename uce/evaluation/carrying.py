"""Labels carried from one data set to another that shares some of them: what arrives, and what has no place to go."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.cells import Texts
from uce.evaluation.embeddings import Floats
from uce.evaluation.neighbors import find_neighbors
from uce.evaluation.probes import PROBES, K, Votes, knn, vote
from uce.evaluation.scores import classification_scores
from uce.evaluation.splits import Split
from uce.evaluation.unknown import relative_distance

CARRIED = ("knn", "logistic")
MIN_UNSEEN = 10


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two data sets in a space that both are in.

    Attributes
    ----------
    name
        Of the data set.
    vectors
        (cells, dim).
    labels
        (cells,) harmonised.
    groups
        (cells,) donors or what stands for them, or None.
    split
        Of the cells with a shared label, in their order: how they are held out within the data set.
    """

    name: str
    vectors: Floats
    labels: Texts
    groups: Texts | None
    split: Split

    def of(self, labels: Sequence[str]) -> NDArray[np.int64]:
        """Positions of the cells with one of these labels."""
        return np.flatnonzero(np.isin(self.labels, labels))


def carry(source: Side, target: Side, shared: Sequence[str]) -> dict[str, Votes]:
    """What probes that know the shared labels of `source` say of all cells of `target` that have one of these labels.

    `knn` and `logistic`, as within a data set; the strength of the second is chosen on held-out groups of the source.
    """
    train, test = source.of(shared), target.of(shared)
    return {
        name: PROBES[name](source.vectors[train], source.labels[train], source.split.units, target.vectors[test])
        for name in CARRIED
    }


def within(side: Side, shared: Sequence[str]) -> float:
    """Macro-F1 of k-NN inside a data set, groups held out: what labels carried from elsewhere can hope for.

    Only cells whose label the other folds know are judged.
    """
    rows = side.of(shared)
    vectors, labels = side.vectors[rows], side.labels[rows]
    true, said = [], []
    for train, test in side.split:
        known = test & np.isin(labels, labels[train])
        if known.any():
            true.append(labels[known])
            said.append(knn(vectors[train], labels[train], side.split.units[train], vectors[known]).labels)
    if not true:
        return float("nan")
    return classification_scores(np.concatenate(true), np.concatenate(said))["macro_f1"]


def unseen(source: Side, target: Side, shared: Sequence[str]) -> list[dict[str, Any]]:
    """How well cells of labels that only `target` has stand out among its other cells, seen from `source`.

    The score is the relative distance (see `unknown.relative_distance`) to the 15th neighbour among the source's cells
    of shared labels. One dict per label of ten cells or more: `label`, `cells`, `auroc`, and in `called` the share of
    its cells that k-NN gives each shared label.
    """
    from sklearn.metrics import roc_auc_score

    names, times = np.unique(target.labels[~np.isin(target.labels, shared)], return_counts=True)
    names = names[times >= MIN_UNSEEN]
    if not len(names):
        return []
    train = source.of(shared)
    vectors, labels = source.vectors[train], source.labels[train]
    near = find_neighbors(target.vectors, K, metric="cosine", among=vectors)
    said = vote(near, labels).labels
    own = find_neighbors(vectors, K, metric="cosine").distances[:, -1].astype(np.float64)
    scores = relative_distance(near.distances[:, -1].astype(np.float64), said, own, labels)
    known, found = target.of(shared), []
    for name in names.tolist():
        rows = np.flatnonzero(target.labels == name)
        positive = np.repeat([False, True], [len(known), len(rows)])
        auroc = float(roc_auc_score(positive, scores[np.concatenate([known, rows])]))
        kinds, calls = np.unique(said[rows], return_counts=True)
        called = dict(zip(kinds.tolist(), (calls / len(rows)).tolist(), strict=True))
        found.append({"label": name, "cells": len(rows), "auroc": auroc, "called": called})
    return found


def retrieve(source: Side, target: Side, shared: Sequence[str]) -> list[dict[str, Any]]:
    """Rank of the right label among all labels of `source`, by cosine of its centroid to that of each shared label.

    Labels that only the source has are in the way, as they would be for a user. One dict per shared label: `label`,
    `rank` (1 is right), `of` (labels there were), `first` (the nearest label).
    """
    names = np.unique(source.labels)
    candidates = np.stack([_centroid(source, name) for name in names])
    found = []
    for label in shared:
        near = candidates @ _centroid(target, label)
        order = np.argsort(-near, kind="stable")
        rank = int(np.flatnonzero(names[order] == label)[0]) + 1
        found.append({"label": str(label), "rank": rank, "of": len(names), "first": str(names[order[0]])})
    return found


def _centroid(side: Side, label: str) -> NDArray[np.float64]:
    vectors = side.vectors[side.labels == label].astype(np.float64)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    mean = (vectors / np.where(norms > 0, norms, 1)).mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12))
