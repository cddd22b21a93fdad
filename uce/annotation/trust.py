"""From held-out cells: what a vote is worth (calibration), and what is too strange to be any label of the reference."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from uce.annotation.guessing import Flags, Guesses, Method, Numbers
from uce.annotation.self_labelling import HeldOut
from uce.evaluation.calibration import fit_isotonic, fit_temperature, with_temperature
from uce.evaluation.cells import Texts
from uce.evaluation.probes import Votes

EVEN = 0.5
MIN_CELLS = 40  # held-out cells of a label, for a threshold of its own

Calibration = Callable[[Votes], Numbers]


def fit_calibration(held_out: HeldOut, method: Method, kept: Flags | None = None) -> Calibration:
    """A function from votes to the probability that the likeliest label is right, fitted on held-out cells.

    Isotonic regression of being right on the top share of the vote for `knn` (Zadrozny and Elkan 2002), one temperature
    for `logistic` (Guo et al. 2017). Cells whose label no other donor has are not used: it promises nothing on them.

    Parameters
    ----------
    kept
        (held-out cells,) which to fit on; all if left out.
    """
    used = held_out.learnable if kept is None else held_out.learnable & kept
    votes = held_out.guesses.votes
    if method == "logistic":
        codes = np.searchsorted(votes.classes, held_out.labels[used])
        temperature = fit_temperature(votes.probabilities[used], codes)
        return lambda asked: with_temperature(asked.probabilities, temperature).max(axis=1)
    curve = fit_isotonic(votes.confidence[used], held_out.correct[used])
    least = 1 / (int(used.sum()) + 2)  # no number of cells makes anything certain
    return lambda asked: np.clip(curve(asked.confidence), least, 1 - least)


def held_out_confidence(held_out: HeldOut, method: Method) -> Numbers:
    """(held-out cells,) the calibrated confidence of each, by a curve fitted on the other folds; NaN without one."""
    confidence = np.full(len(held_out.rows), np.nan)
    votes = held_out.guesses.votes
    for fold in np.unique(held_out.folds):
        here = held_out.folds == fold
        if (held_out.learnable & ~here).any():
            asked = Votes(votes.classes, votes.probabilities[here])
            confidence[here] = fit_calibration(held_out, method, ~here)(asked)
    return confidence


@dataclass(frozen=True, eq=False)
class Ranks:
    """Where a value lies among those of the held-out cells that were rightly given the same label.

    Attributes
    ----------
    by_label
        Sorted values of each label with 40 such cells or more.
    pooled
        Sorted values of all, for the other labels.
    """

    by_label: dict[str, Numbers]
    pooled: Numbers

    @classmethod
    def of(cls, values: Numbers, labels: Texts) -> "Ranks":
        """Of held-out, rightly labelled cells."""
        names, sizes = np.unique(labels, return_counts=True)
        return cls({str(n): np.sort(values[labels == n]) for n in names[sizes >= MIN_CELLS]}, np.sort(values))

    def __call__(self, values: Numbers, labels: Texts) -> Numbers:
        """(cells,) share of n + 1 held-out values that are smaller, 0 to n / (n + 1)."""
        shares = np.empty(len(values))
        for label in np.unique(labels):
            here, known = labels == label, self.by_label.get(str(label), self.pooled)
            shares[here] = np.searchsorted(known, values[here], side="left") / (len(known) + 1)
        return shares


@dataclass(frozen=True, eq=False)
class Strangeness:
    """How much stranger a cell is than held-out cells that were rightly given its label.

    A cell is strange if its neighbours are far, or if they disagree: the larger of the two ranks, ranked again. So the
    score is one minus a conformal p-value (Vovk et al. 2005): of cells like the held-out ones, and rightly labelled, a
    share of `s` at most scores 1 - s or more.
    """

    distance: Ranks
    doubt: Ranks
    both: Ranks

    @classmethod
    def fit(cls, held_out: HeldOut) -> "Strangeness":
        """On the held-out cells that were labelled rightly."""
        right, labels = held_out.correct, held_out.labels[held_out.correct]
        far, doubt = held_out.guesses.distances[right], 1 - held_out.guesses.votes.confidence[right]
        ranks = Ranks.of(far, labels), Ranks.of(doubt, labels)
        either = np.maximum(ranks[0](far, labels), ranks[1](doubt, labels))
        return cls(*ranks, Ranks.of(either, labels))

    def score(self, guesses: Guesses) -> Numbers:
        """(cells,) 0 to just below 1; high is strange."""
        labels = guesses.labels
        far, doubt = self.distance(guesses.distances, labels), self.doubt(1 - guesses.votes.confidence, labels)
        return self.both(np.maximum(far, doubt), labels)


@dataclass(frozen=True, eq=False)
class Judge:
    """What held-out cells teach about the labels of others.

    Attributes
    ----------
    calibration
        None where no donors could be held out.
    strangeness
        None where no held-out cell was labelled rightly.
    share
        Of held-out, rightly labelled cells that may be called unknown; None: no cell is.
    """

    calibration: Calibration | None
    strangeness: Strangeness | None
    share: float | None

    def confidence(self, guesses: Guesses) -> Numbers:
        """(cells,) probability that the likeliest label is right; its share of the vote if nothing was calibrated."""
        if self.calibration is None or not len(guesses.distances):
            return guesses.votes.confidence
        return self.calibration(guesses.votes)

    def score(self, guesses: Guesses) -> Numbers:
        """(cells,) see `Strangeness`; NaN without one."""
        nothing = np.full(len(guesses.distances), np.nan)
        return nothing if self.strangeness is None else self.strangeness.score(guesses)

    def distance_rank(self, guesses: Guesses) -> Numbers:
        """(cells,) share of held-out cells of the label that were nearer to their neighbours; NaN without any."""
        nothing = np.full(len(guesses.distances), np.nan)
        return nothing if self.strangeness is None else self.strangeness.distance(guesses.distances, guesses.labels)

    def unknown(self, guesses: Guesses) -> Flags:
        """(cells,) whether a cell is called unknown: it is too strange, or its label more likely wrong than right."""
        if self.share is None:
            return np.zeros(len(guesses.distances), bool)
        strange = self.score(guesses) >= 1 - self.share
        return strange if self.calibration is None else strange | (self.confidence(guesses) < EVEN)
