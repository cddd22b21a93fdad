"""Labels of the query, what each is worth, and what the user must know: everything but reading and writing."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from uce.annotation.guessing import SMALL_LABEL, Flags, Guesses, Method, Numbers, guess, neighbours_for
from uce.annotation.reference import Reference
from uce.annotation.self_labelling import HeldOut, hold_out, shift_between, withheld_labels, without_label
from uce.annotation.trust import MIN_CELLS, Judge, Strangeness, fit_calibration, held_out_confidence
from uce.evaluation.calibration import ece, reliability
from uce.evaluation.cells import Texts
from uce.evaluation.embeddings import Floats
from uce.evaluation.scores import classification_scores

UNKNOWN = "unknown"
SHARE = 0.05
Unknown = Literal["auto", "off"] | float


@dataclass(frozen=True, eq=False)
class Labelling:
    """Labels of query cells; arrays are of the cells that have a vector, `there` says which these are.

    Attributes
    ----------
    there
        (query cells,) mask.
    confidence
        The probability that the best label is right, if `calibrated`, else its share of the vote.
    score
        How strange each is: one minus a conformal p-value, see `Strangeness`.
    unknown
        Whether the cell is called unknown.
    held_out
        The reference labelled by itself.
    held_out_confidence
        (held-out cells,) calibrated on other folds; NaN where not calibrated.
    withheld
        label -> (share called unknown, what the others were called), were the label missing from the reference.
    """

    reference: Reference
    method: Method
    k: int
    judge: Judge
    there: Flags
    guesses: Guesses
    confidence: Numbers
    score: Numbers
    unknown: Flags
    held_out: HeldOut
    held_out_confidence: Numbers
    withheld: dict[str, tuple[float, dict[str, float]]]

    @property
    def calibrated(self) -> bool:
        """Whether `confidence` is a probability, learned on held-out donors."""
        return self.judge.calibration is not None

    @property
    def share(self) -> float | None:
        """Of held-out, rightly labelled reference cells that may be called unknown; None: no cell is."""
        return self.judge.share

    @property
    def second(self) -> Texts:
        """(cells,) the second likeliest label, "" where there is none."""
        votes = self.guesses.votes
        if len(votes.classes) < 2:
            return np.full(len(self.confidence), "", np.str_)
        order = np.argsort(-votes.probabilities, axis=1, kind="stable")[:, 1]
        some = votes.probabilities[np.arange(len(order)), order] > 0
        return np.where(some, votes.classes[order], "")

    @property
    def margin(self) -> Numbers:
        """(cells,) share of the best label minus that of the second."""
        ordered = np.sort(self.guesses.votes.probabilities, axis=1)
        return np.asarray(ordered[:, -1] - (ordered[:, -2] if ordered.shape[1] > 1 else 0))


def label_cells(
    vectors: Floats, reference: Reference, *, method: Method = "knn", unknown: Unknown = "auto", seed: int = 0
) -> Labelling:
    """Label query cells by a reference, as sure as the reference's own held-out donors allow.

    Parameters
    ----------
    vectors
        (cells, dim) of the query; rows that are not finite get no label.
    unknown
        Share of held-out, rightly labelled reference cells that may be called unknown. `auto` is 0.05 where donors
        could be held out and `off` elsewhere: a threshold from cells of one donor calls most of another unknown.
    """
    k = neighbours_for(reference.labels)
    there = np.asarray(np.isfinite(vectors).all(axis=1))
    guesses = guess(np.ascontiguousarray(vectors[there]), reference, method=method, k=k)
    held_out = hold_out(reference, method=method, k=k, seed=seed)
    calibrated = held_out.donors and len(np.unique(held_out.folds)) > 1 and int(held_out.learnable.sum()) >= MIN_CELLS
    judge = Judge(
        fit_calibration(held_out, method) if calibrated else None,
        Strangeness.fit(held_out) if held_out.correct.any() else None,
        (SHARE if calibrated else None) if unknown == "auto" else None if unknown == "off" else unknown,
    )
    nothing = np.full(len(held_out.rows), np.nan)
    return Labelling(
        reference,
        method,
        k,
        judge,
        there,
        guesses,
        judge.confidence(guesses),
        judge.score(guesses),
        judge.unknown(guesses),
        held_out,
        held_out_confidence(held_out, method) if calibrated else nothing,
        {} if method != "knn" or judge.share is None else _withheld(reference, held_out, judge, k),
    )


def _withheld(
    reference: Reference, held_out: HeldOut, judge: Judge, k: int
) -> dict[str, tuple[float, dict[str, float]]]:
    """Every larger label taken out of the reference: how many of its cells are noticed, what the others become."""
    found = {}
    for label in withheld_labels(reference):
        guesses = without_label(reference, held_out, label, k=k)
        if not len(guesses.distances):
            continue
        unknown = judge.unknown(guesses)
        names, counts = np.unique(guesses.labels[~unknown], return_counts=True)
        order = np.lexsort((names, -counts))
        shares = {str(names[i]): float(counts[i] / len(unknown)) for i in order}
        found[label] = float(unknown.mean()), shares
    return found


def held_out_scores(found: Labelling) -> dict[str, Any]:
    """How right the reference is about its own held-out cells, and how true its confidence."""
    held_out, learnable = found.held_out, found.held_out.learnable
    scores: dict[str, Any] = {"cells": int(learnable.sum()), "not_learnable": int((~learnable).sum())}
    if learnable.any():
        right = held_out.correct[learnable]
        scores |= classification_scores(held_out.labels[learnable], held_out.guesses.labels[learnable])
        scores["ece_of_votes"] = ece(held_out.guesses.votes.confidence[learnable], right)
        if found.calibrated:
            judged = learnable & np.isfinite(found.held_out_confidence)
            scores["ece"] = ece(found.held_out_confidence[judged], held_out.correct[judged])
        unknown = found.judge.unknown(held_out.guesses)[learnable]
        scores["right_called_unknown"], scores["wrong_called_unknown"] = _mean(unknown[right]), _mean(unknown[~right])
    return scores


def _mean(values: Flags) -> float:
    return float(values.mean()) if len(values) else float("nan")


def curve(found: Labelling) -> list[dict[str, Any]]:
    """Bins of held-out cells by calibrated confidence, see `uce.evaluation.calibration.reliability`."""
    judged = found.held_out.learnable & np.isfinite(found.held_out_confidence)
    return reliability(found.held_out_confidence[judged], found.held_out.correct[judged], bins=10)


def shifts(found: Labelling) -> tuple[float, float]:
    """How much further neighbours of the query are than held-out ones (see `shift_between`); the most for one fold."""
    held_out = found.held_out
    far = held_out.guesses.distances
    usual = [
        shift_between(far[held_out.folds == fold], far[held_out.folds != fold]) for fold in np.unique(held_out.folds)
    ]
    return shift_between(found.guesses.distances, far), max([u for u in usual if np.isfinite(u)], default=float("nan"))


def small_labels(reference: Reference) -> dict[str, int]:
    """Labels with fewer than ten cells, and how many they have."""
    names, sizes = np.unique(reference.labels, return_counts=True)
    return {str(name): int(size) for name, size in zip(names, sizes, strict=True) if size < SMALL_LABEL}


def attractors(found: Labelling) -> dict[str, float]:
    """Labels of 1 % of the query or more, and ten cells, that are five times as common there as in the reference."""
    names, sizes = np.unique(found.reference.labels, return_counts=True)
    given = np.array([(found.guesses.labels == name).sum() for name in names])
    there = max(1, len(found.confidence))
    times: NDArray[np.float64] = (given / there) / (sizes / sizes.sum())
    often = (given >= max(10, 0.01 * there)) & (times > 5)
    return {str(name): float(t) for name, t in zip(names[often], times[often], strict=True)}
