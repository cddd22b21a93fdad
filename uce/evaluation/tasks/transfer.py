"""Are the labels of cells found from cells of other donors? Simple probes, whole groups held out."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.cells import Texts
from uce.evaluation.context import Context
from uce.evaluation.embeddings import Embedding
from uce.evaluation.held_out import HeldOut, held_out_of
from uce.evaluation.leakage import trained_on
from uce.evaluation.results import NAN, Family, Findings, Score
from uce.evaluation.scores import at_random, classification_scores, confusion, majority, per_label, top2_accuracy
from uce.evaluation.uncertainty import interval_of_f1, interval_of_mean

_PROBES = ("knn", "logistic", "centroid")
_EXTRA = ("knn5", "knn50", "knn_pca50", "logistic_pca50")
_SCORES = ("macro_f1", "accuracy", "balanced_accuracy", "weighted_f1", "kappa", "top2")
_HEADLINES = ("knn_macro_f1", "logistic_macro_f1")
NOT_TRAINED_ON = "_not_trained_on"
"""What the names of the headline scores end with when they are over cells that the weights have not seen."""
_LEAST_NEW = 50
_CONTROLS = ("majority_macro_f1", "random_macro_f1")
METRICS: tuple[tuple[str, Family], ...] = tuple(
    (metric, "transfer")
    for metric in (
        *(f"{probe}_{score}" for probe in _PROBES for score in _SCORES),
        *(f"{probe}_macro_f1" for probe in _EXTRA),
        *_CONTROLS,
    )
)


def run(context: Context, embedding: Embedding) -> Findings:
    """Judge the labels that probes give to cells of held-out groups, over all folds at once.

    Raises
    ------
    NotPossible
        There is one label, or no group can be held out.
    """
    held = held_out_of(context, embedding)
    scores = [score for probe in _PROBES for score in _of_probe(context, held, probe)]
    scores += [_extra(held, probe) for probe in _EXTRA]
    scores += _controls(context, held)
    scores += _not_trained_on(context, held)
    details = {
        "split": held.split.title,
        "watermark": held.split.watermark,
        "notes": [*held.split.notes, *_left_out(held)],
        "probes": {probe: _details(held, probe) for probe in _PROBES},
    }
    return Findings(tuple(scores), details, _predictions(context, held))


def _of_probe(context: Context, held: HeldOut, probe: str) -> Iterator[Score]:
    predicted, units, settings = held.predicted(probe), held.split.units[held.rows], context.settings
    values = classification_scores(held.labels, predicted)
    values["top2"] = top2_accuracy(held.labels, held.classes, held.votes[probe])
    right = (predicted == held.labels).astype(np.float64)
    intervals = {
        "macro_f1": interval_of_f1(held.labels, predicted, units, draws=settings.bootstrap, seed=settings.seed),
        "accuracy": interval_of_mean(right, units, draws=settings.bootstrap, seed=settings.seed),
    }
    trouble = held.trouble if probe == "logistic" else ""
    for name in _SCORES:
        metric, found = f"{probe}_{name}", intervals.get(name)
        low, high = (found.low, found.high) if found else (NAN, NAN)
        note = "; ".join(filter(None, (trouble, found.note if found else "", held.split.mark)))
        yield _score(held, metric, values[name], low=low, high=high, note=note, suspect=bool(trouble))


def _score(held: HeldOut, metric: str, value: float, *, suspect: bool = False, **more: Any) -> Score:
    if np.isnan(value):
        more |= {"status": "undefined", "note": "all judged cells have one label"}
    elif suspect:
        more |= {"status": "suspect"}
    return Score(
        metric,
        value,
        "transfer",
        n_cells=len(held.rows),
        n_groups=len(np.unique(held.split.units[held.rows])),
        n_labels=len(np.unique(held.labels)),
        headline=metric in _HEADLINES,
        **more,
    )


def _extra(held: HeldOut, probe: str) -> Score:
    metric = f"{probe}_macro_f1"
    if probe not in held.votes:
        note = "the embedding has no more than 50 dimensions, or a fold no more than 50 training cells"
        return Score(metric, NAN, "transfer", status="skipped", note=note)
    value = classification_scores(held.labels, held.predicted(probe))["macro_f1"]
    return _score(held, metric, value, note=held.split.mark)


def _controls(context: Context, held: HeldOut) -> Iterator[Score]:
    """What a guess without looking reaches: the commonest label of training, and labels drawn as they occur there."""
    rng, labels = context.rng(4, 1), context.cells.labels
    guesses: dict[str, list[Texts]] = {metric: [] for metric in _CONTROLS}
    for fold in held.folds:
        n = int(fold.test.sum())
        guesses["majority_macro_f1"].append(majority(labels[fold.train], n))
        guesses["random_macro_f1"].append(at_random(labels[fold.train], n, rng))
    for metric, parts in guesses.items():
        value = classification_scores(held.labels, np.concatenate(parts))["macro_f1"]
        yield _score(held, metric, value, better="neither", note="what a guess reaches")


def _not_trained_on(context: Context, held: HeldOut) -> Iterator[Score]:
    """The headline scores again, of the same predictions, over the cells that the weights have not seen."""
    seen = trained_on(context.cells, context.settings)[held.rows]
    if not seen.any():
        return
    told = f"the model was trained on {seen.sum():,} of {len(seen):,} judged cells"
    for headline in _HEADLINES:
        metric, new = f"{headline}{NOT_TRAINED_ON}", ~seen
        if new.sum() < _LEAST_NEW:
            note = f"{told}: fewer than {_LEAST_NEW} are left"
            yield Score(metric, NAN, "transfer", status="undefined", note=note, n_cells=int(new.sum()))
            continue
        predicted = held.predicted(headline.removesuffix("_macro_f1"))[new]
        value = classification_scores(held.labels[new], predicted)["macro_f1"]
        note = f"the same predictions over the other cells; {told}"
        yield replace(_score(held, metric, value, note=note), n_cells=int(new.sum()))


def _details(held: HeldOut, probe: str) -> dict[str, Any]:
    predicted = held.predicted(probe)
    names, counts = confusion(held.labels, predicted)
    units = held.split.units[held.rows]
    return {
        "labels": names,
        "confusion": counts,
        "per_label": per_label(held.labels, predicted),
        "per_group": [
            _of_group(str(unit), held.labels[units == unit], predicted[units == unit]) for unit in np.unique(units)
        ],
    }


def _of_group(name: str, true: Texts, predicted: Texts) -> dict[str, Any]:
    values = classification_scores(true, predicted)
    return {"group": name, "macro_f1": values["macro_f1"], "accuracy": values["accuracy"], "cells": len(true)}


def _predictions(context: Context, held: HeldOut) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {
        "cell": context.cells.names[held.rows],
        "fold": held.split.folds[held.rows],
        "group": held.split.units[held.rows],
        "label": held.labels,
    }
    for probe in _PROBES:
        columns[f"{probe}_label"] = held.predicted(probe)
        columns[f"{probe}_confidence"] = held.votes[probe].max(axis=1)
    return columns


def _left_out(held: HeldOut) -> Iterator[str]:
    if held.without_label:
        yield f"{held.without_label} cells are not judged: no training cell of another group has their label"
