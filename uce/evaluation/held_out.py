"""What probes say of cells whose group they have not seen: found once, read by transfer, calibration and unseen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.calibration import fit_isotonic, with_confidence, with_temperature
from uce.evaluation.cells import Texts
from uce.evaluation.context import Context
from uce.evaluation.embeddings import Embedding, Floats, Mask
from uce.evaluation.neighbors import Neighbors, find_neighbors
from uce.evaluation.probes import NARROW, K, Votes, centroid, fit_logistic, knn, narrow, sample_by_label, vote
from uce.evaluation.results import NotPossible
from uce.evaluation.splits import Split, grouped_folds, split_of

Numbers = NDArray[np.float64]
Rows = NDArray[np.int64]
DEEP = 50
_QUERIES = 2000  # training cells per fold that stand for held-out ones
_LEAST_QUERIES = 50


@dataclass(frozen=True, eq=False)
class Fold:
    """One fold: vectors fitted on its training cells, and who is near whom in them.

    Attributes
    ----------
    vectors
        (all cells, dim).
    train, test
        (all cells,) masks; `test` holds judged cells of a label that is in training.
    groups
        (all cells,) what is held out within the training cells.
    parts
        (training cells,) number of the part, of whole groups, that is held out of training together.
    neighbors
        (test cells, <= 50) nearest training cells, by position among all cells.
    inner, inner_neighbors
        Training cells asked as if held out, and their nearest 15 of other parts; empty where there are no two parts.
    """

    vectors: Floats
    train: Mask
    test: Mask
    groups: Texts
    parts: Rows
    neighbors: Neighbors
    inner: Rows
    inner_neighbors: Neighbors


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What was found for every judged cell by probes that had not seen its group.

    Attributes
    ----------
    split
        Who was held out with whom.
    rows, labels
        (judged cells,) position of each among all cells, and its label.
    classes
        (classes,) all labels, sorted.
    votes
        probe -> (judged cells, classes) probabilities; `knn`, `knn5`, `knn50`, `logistic`, `centroid`, `knn_pca50`,
        `logistic_pca50`.
    calibrated
        `knn` and `logistic` -> the same, calibrated on training groups that were held out within the fold; empty where
        there were none.
    folds
        In order; `rows` are their test cells.
    trouble
        Why the logistic regression is not to be trusted; "" where it converged in every fold.
    without_label
        Cells that are not judged since no training cell of their fold has their label.
    """

    split: Split
    rows: Rows
    labels: Texts
    classes: Texts
    votes: dict[str, Numbers]
    calibrated: dict[str, Numbers]
    folds: tuple[Fold, ...]
    trouble: str = ""
    without_label: int = 0

    def predicted(self, probe: str) -> Texts:
        """(judged cells,) labels that a probe gives."""
        return np.asarray(self.classes[self.votes[probe].argmax(axis=1)])

    def confidence(self, probe: str, *, calibrated: bool = False) -> Numbers:
        """(judged cells,) probability of that label; calibrated, it may be below that of another, but the label stays.

        Raises
        ------
        KeyError
            It could not be calibrated.
        """
        shares = (self.calibrated if calibrated else self.votes)[probe]
        return np.asarray(np.take_along_axis(shares, self.votes[probe].argmax(axis=1)[:, None], axis=1)[:, 0])


def held_out_of(context: Context, embedding: Embedding) -> HeldOut:
    """The held-out predictions of an embedding, made when first asked for.

    Raises
    ------
    NotPossible
        There is one label, or no group can be held out.
    """

    def make() -> HeldOut:
        return hold_out(embedding.fitted_on, context.cells.labels, split_of(context.cells, context.settings))

    return context.once(f"held out {embedding.name}", make)


def hold_out(fitted_on: Callable[[Mask], Floats], labels: Texts, split: Split) -> HeldOut:
    """Fit every probe on the training cells of every fold, and ask it about the cells held out.

    Calibration is nested: a part of the training groups is held out once more, k-NN votes of at most 2,000 of their
    cells are fitted by an isotonic curve, and logistic probabilities by a temperature.

    Parameters
    ----------
    fitted_on
        (mask of training cells) -> (cells, dim) vectors with everything fitted on those cells.
    labels
        (cells,).

    Raises
    ------
    NotPossible
        There is one label only, or no judged cell has a label that is in training.
    """
    classes = np.unique(labels)
    if len(classes) < 2:
        raise NotPossible(f"one label only ({classes[0]}): nothing can be told apart")
    folds = []
    for train, test in split:
        known = test & np.isin(labels, labels[train])
        if known.any():
            folds.append(_fold(fitted_on(train), labels, split, train, known))
    if not folds:
        raise NotPossible("no label occurs both in training and among the cells held out")
    wide = folds[0].vectors.shape[1] > NARROW < min(int(fold.train.sum()) for fold in folds)
    asked = [_ask(fold, labels, classes, wide) for fold in folds]
    rows = np.concatenate([np.flatnonzero(fold.test) for fold in folds])
    return HeldOut(
        split,
        rows,
        labels[rows],
        classes,
        _joined([votes for votes, _, _ in asked]),
        _joined([calibrated for _, calibrated, _ in asked]),
        tuple(folds),
        next((trouble for _, _, trouble in asked if trouble), ""),
        int(split.judged.sum()) - len(rows),
    )


def _joined(parts: Sequence[dict[str, Numbers]]) -> dict[str, Numbers]:
    """What every fold has, of all folds."""
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0] if all(name in p for p in parts)}


def _fold(vectors: Floats, labels: Texts, split: Split, train: Mask, test: Mask) -> Fold:
    """Find neighbours in every inner part of the training cells, so that any part can be left out afterwards."""
    groups = _inner_groups(split, train)
    rows = np.flatnonzero(train)
    part_of = grouped_folds(labels[train], groups[train])
    inner = rows[_learnable(labels[train], part_of) & (len(rows) - np.bincount(part_of)[part_of] >= K)]
    inner = inner[sample_by_label(labels[inner], _QUERIES)]
    tested = np.flatnonzero(test)
    queries, of_test, of_inner = np.concatenate([tested, inner]), slice(0, len(tested)), slice(len(tested), None)
    lists, apart = [], []
    for part in np.unique(part_of):
        among = rows[part_of == part]
        near = _near(vectors, queries, among, DEEP)
        lists.append(Neighbors(near.indices[of_test], near.distances[of_test]))
        own = np.isin(inner, among)[:, None]
        far = np.where(own, np.float32(np.inf), near.distances[of_inner])
        apart.append(Neighbors(near.indices[of_inner], far))
    return Fold(vectors, train, test, groups, part_of, merged(lists, DEEP), inner, merged(apart, K))


def _inner_groups(split: Split, train: Mask) -> Texts:
    """What is held out within the training cells: the same as by the split, or donors where that is one group."""
    return split.groups if len(np.unique(split.groups[train])) > 1 else split.units


def _learnable(labels: Texts, parts: Rows) -> Mask:
    """Whether a cell's label occurs in another part than its own."""
    pairs = np.unique(np.stack([labels, parts.astype(np.str_)]), axis=1)[0]
    names, times = np.unique(pairs, return_counts=True)
    return np.isin(labels, names[times > 1])


def _near(vectors: Floats, queries: Rows, among: Rows, k: int) -> Neighbors:
    near = find_neighbors(vectors[queries], k, metric="cosine", among=vectors[among])
    return Neighbors(among[near.indices], near.distances)


def merged(lists: Sequence[Neighbors], k: int) -> Neighbors:
    """The k nearest of several lists, fewer where a cell has fewer."""
    indices = np.concatenate([near.indices for near in lists], axis=1)
    distances = np.concatenate([near.distances for near in lists], axis=1)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    indices, distances = np.take_along_axis(indices, order, 1), np.take_along_axis(distances, order, 1)
    k = int(np.isfinite(distances).sum(axis=1).min(initial=distances.shape[1]))
    return Neighbors(indices[:, :k], distances[:, :k])


def _ask(fold: Fold, labels: Texts, classes: Texts, wide: bool) -> tuple[dict[str, Numbers], dict[str, Numbers], str]:
    """(votes, calibrated votes, trouble of the logistic regression) of the test cells of a fold."""
    train, test = fold.train, fold.test
    known, groups = labels[train], fold.groups[train]
    votes = {"knn": _vote(fold.neighbors.first(K), labels, classes)}
    votes |= {f"knn{k}": _vote(fold.neighbors.first(k), labels, classes) for k in (5, DEEP)}
    calibrated = {}
    if (curve := _curve(fold, labels, classes)) is not None:
        calibrated["knn"] = with_confidence(votes["knn"], curve(votes["knn"].max(axis=1)))
    votes["centroid"] = centroid(fold.vectors[train], known, groups, fold.vectors[test]).over(classes)
    model = fit_logistic(fold.vectors[train], known, groups)
    said = model.votes(fold.vectors[test])
    votes["logistic"] = said.over(classes)
    if np.isfinite(model.temperature):
        cooled = with_temperature(said.probabilities, model.temperature)
        calibrated["logistic"] = Votes(said.classes, cooled).over(classes)
    if wide:
        small = narrow(fold.vectors, train)
        votes["knn_pca50"] = knn(small[train], known, groups, small[test]).over(classes)
        votes["logistic_pca50"] = fit_logistic(small[train], known, groups).votes(small[test]).over(classes)
    return votes, calibrated, said.note


def _curve(fold: Fold, labels: Texts, classes: Texts) -> Callable[[Numbers], Numbers] | None:
    """From the share of votes to the share that is right, by training cells asked as if held out."""
    if len(fold.inner) < _LEAST_QUERIES:
        return None
    shares = _vote(fold.inner_neighbors, labels, classes)
    return fit_isotonic(shares.max(axis=1), classes[shares.argmax(axis=1)] == labels[fold.inner])


def _vote(neighbors: Neighbors, labels: Texts, classes: Texts) -> Numbers:
    return vote(neighbors, labels).over(classes)
