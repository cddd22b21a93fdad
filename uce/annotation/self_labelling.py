"""The reference labelled by itself: every donor by the others, which tells how far a label can be trusted."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from uce.annotation.guessing import Flags, Guesses, Method, Numbers, guess, over_classes
from uce.annotation.reference import Reference
from uce.evaluation.cells import Texts
from uce.evaluation.embeddings import Floats
from uce.evaluation.probes import Votes
from uce.evaluation.splits import Split, make_split
from uce.evaluation.subsamples import stratified

MAX_CELLS = 20_000  # more held-out cells tell nothing more
MOST_LABELS = 20


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Reference cells, each labelled by the cells of other donors.

    Attributes
    ----------
    split
        What was held out; with its `watermark` set, cells at random, for want of donors.
    rows
        (cells,) positions in the reference.
    labels
        (cells,) their true labels.
    learnable
        (cells,) whether another donor has a cell of this label at all; the others can only be wrong.
    """

    split: Split
    rows: NDArray[np.int64]
    labels: Texts
    guesses: Guesses
    learnable: Flags

    @property
    def folds(self) -> NDArray[np.int64]:
        """(cells,) number of the fold."""
        return self.split.folds[self.rows]

    @property
    def correct(self) -> Flags:
        """(cells,) whether the guess is right."""
        return np.asarray(self.guesses.labels == self.labels)

    @property
    def donors(self) -> bool:
        """Whether whole donors were held out."""
        return not self.split.watermark


def hold_out(
    reference: Reference, *, method: Method, k: int, seed: int, fitted_on: Callable[[Flags], Floats] | None = None
) -> HeldOut:
    """Label every donor of the reference (or one fold of cells, where donors are not known) by the others.

    Parameters
    ----------
    fitted_on
        For vectors that something was fitted for: (mask of the cells to fit on) -> vectors of all cells.
    """
    split = make_split(reference.labels, groups=reference.groups, random_split=True, seed=seed)
    groups = reference.labels if reference.groups is None else reference.groups
    asked = np.zeros(len(reference.labels), bool)
    asked[stratified(reference.labels, groups, MAX_CELLS, np.random.default_rng(seed))] = True
    classes = np.unique(reference.labels)
    parts = [(np.zeros(0, np.int64), _empty(classes), np.zeros(0, bool))]
    for train, test in split:
        rows = np.flatnonzero(test & asked)
        if len(rows) and train.any():
            vectors = reference.vectors if fitted_on is None else fitted_on(train)
            known = replace(reference, vectors=vectors).take(train)
            guesses = guess(vectors[rows], known, method=method, k=k)
            parts.append((rows, guesses, np.isin(reference.labels[rows], known.labels)))
    rows = np.concatenate([rows for rows, _, _ in parts])
    order = np.argsort(rows, kind="stable")
    learnable = np.concatenate([known for _, _, known in parts])[order]
    guesses = _joined([guesses for _, guesses, _ in parts], classes, order)
    return HeldOut(split, rows[order], reference.labels[rows[order]], guesses, learnable)


def _empty(classes: Texts) -> Guesses:
    return Guesses(Votes(classes, np.zeros((0, len(classes)))), np.zeros(0), np.zeros(0))


def _joined(parts: list[Guesses], classes: Texts, order: NDArray[np.int64] | slice) -> Guesses:
    """Guesses about different cells as one, over all `classes`."""
    votes = np.concatenate([over_classes(part.votes, classes).probabilities for part in parts])[order]
    distances, agreement = (
        np.concatenate([getattr(part, name) for part in parts])[order] for name in ("distances", "agreement")
    )
    notes = " ".join(sorted({part.votes.note for part in parts} - {""}))
    return Guesses(Votes(classes, votes, notes), distances, agreement)


def without_label(reference: Reference, held_out: HeldOut, label: str, *, k: int) -> Guesses:
    """What neighbours say of the held-out cells of `label` when the reference has no cell of it."""
    classes = np.unique(reference.labels)
    parts = [_empty(classes)]
    for train, test in held_out.split:
        rows = held_out.rows[test[held_out.rows] & (held_out.labels == label)]
        others = reference.take(train & (reference.labels != label))
        if len(rows) and len(others.labels):
            parts.append(guess(reference.vectors[rows], others, method="knn", k=k))
    return _joined(parts, classes, slice(None))


def withheld_labels(reference: Reference) -> list[str]:
    """The labels worth asking about: the largest ones, of ten cells at least, where another label remains."""
    names, sizes = np.unique(reference.labels, return_counts=True)
    order = np.lexsort((names, -sizes))
    chosen = [str(names[i]) for i in order[:MOST_LABELS] if sizes[i] >= 10]
    return chosen if len(names) > 1 else []


def shift_between(first: Numbers, second: Numbers) -> float:
    """How much larger `first` is than `second`, 0 (not at all) to 1; NaN where one is empty.

    The one-sided Kolmogorov-Smirnov distance: the most by which its distribution function lies below the other's.
    """
    from scipy.stats import ks_2samp

    if not len(first) or not len(second):
        return float("nan")
    return float(ks_2samp(first, second, alternative="less", method="asymp").statistic)
