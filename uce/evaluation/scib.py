"""The scIB table of an embedding, by scib-metrics in a process of its own, with nothing dropped from its totals.

Metrics: Luecken et al. 2022 (scIB); BRAS: Rautenstrauch and Ohler 2025. `uce.evaluation.scib_worker` computes them.
Values are raw: they are never scaled against other embeddings. Of kBET a rounding fault is mended there.
"""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.neighbors import Neighbors
from uce.evaluation.results import NAN, Family, NotPossible, Score
from uce.evaluation.scib_process import Worker
from uce.evaluation.scib_quick import Codes, isolated_labels
from uce.evaluation.scib_worker import PACKAGE, PARTS

BIO = ("isolated_labels", "kmeans_nmi", "kmeans_ari", "silhouette_label", "clisi")
BATCH = ("bras", "ilisi", "kbet", "graph_connectivity", "pcr_comparison")
OUTSIDE = ("leiden_nmi", "leiden_ari")
METRICS: tuple[tuple[str, Family], ...] = (
    *((metric, "bio") for metric in (*BIO, *OUTSIDE)),
    *((metric, "batch") for metric in BATCH),
    ("scib_bio", "bio"),
    ("scib_batch", "batch"),
    ("scib_total", "total"),
)
FAMILY = dict(METRICS)
NEIGHBORS = 90
MINIMUM_CELLS = 200
MINIMUM_OF_LABEL = 10

_NOTES = {
    "leiden_nmi": "outside the totals: the resolution is chosen with the labels",
    "leiden_ari": "outside the totals: the resolution is chosen with the labels",
    "clisi": "near 1 for nearly everything: differences under 0.01 are ties",
    "graph_connectivity": "near 1 for many embeddings: differences under 0.01 are ties",
}


@dataclass(frozen=True, eq=False)
class Table:
    """The scIB table of one embedding.

    Attributes
    ----------
    scores
        Every metric of `METRICS`, in that order.
    details
        isolated_labels, kbet_skipped, implementation {metric: whose routine}, effective_batches,
        pcr_unclipped, version.
    """

    scores: tuple[Score, ...]
    details: dict[str, Any]


def need_package() -> None:
    """Check that scib-metrics can be imported, without importing it.

    Raises
    ------
    NotPossible
        It is not installed.
    """
    if find_spec("scib_metrics") is None:
        raise NotPossible("scib-metrics is not installed: pip install 'uce[eval]'")


def large_labels(labels: NDArray[np.str_]) -> tuple[NDArray[np.int64], list[dict[str, Any]]]:
    """The cells of labels with at least 10 cells, by position; and the other labels: [{label, cells}].

    Raises
    ------
    NotPossible
        Fewer than 200 cells are left.
    """
    names, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    small = sizes < MINIMUM_OF_LABEL
    rows = np.flatnonzero(~small[codes])
    if len(rows) < MINIMUM_CELLS:
        msg = f"needs {MINIMUM_CELLS} cells in labels of {MINIMUM_OF_LABEL} cells or more; there are {len(rows)}"
        raise NotPossible(msg)
    return rows, [{"label": str(names[i]), "cells": int(sizes[i])} for i in np.flatnonzero(small)]


def scib_table(
    vectors: NDArray[np.float32],
    labels: NDArray[np.str_],
    batches: NDArray[np.str_] | None,
    neighbors: Neighbors,
    worker: Worker,
    *,
    before: NDArray[np.float32] | str = "the data before integration were not given",
) -> Table:
    """All scIB metrics and their totals; no array is changed.

    Parameters
    ----------
    vectors
        (cells, dim) finite.
    labels, batches
        (cells,) of each cell.
    neighbors
        The 90 nearest other cells of each.
    before
        (cells, components) principal components of the data before integration, that PCR compares with; or why there
        are none.

    Raises
    ------
    RuntimeError
        The process that computes them ended.
    """
    label_names, label_codes = np.unique(labels, return_inverse=True)
    batch_names, batch_codes = np.unique(np.zeros(len(labels)) if batches is None else batches, return_inverse=True)
    excused = _excused(len(label_names), 0 if batches is None else len(batch_names), before)
    arrays: dict[str, NDArray[Any]] = {
        "vectors": np.asarray(vectors, np.float32),
        "labels": label_codes,
        "batches": batch_codes,
        "indices": neighbors.indices,
        "distances": neighbors.distances,
    }
    if not isinstance(before, str):
        arrays["before"] = before
    parts = [part for part, spec in PARTS.items() if next(iter(spec.columns.values())) not in excused]
    answer: dict[str, Any] = worker.ask(arrays, parts) if parts else {"parts": {}, "version": ""}
    details = _details(answer, label_names, isolated_labels(label_codes, batch_codes), len(batch_names))
    found = {metric: score for part in parts for metric, score in _scores_of(part, answer["parts"][part]).items()}
    noted = _noted({**excused, **found}, details, len(label_names), len(batch_names))
    sized = {m: replace(s, n_cells=len(vectors), n_labels=len(label_names)) for m, s in noted.items()}
    return Table(tuple(_with_totals(sized)[metric] for metric, _ in METRICS), details)


def _excused(n_labels: int, n_batches: int, before: object) -> dict[str, Score]:
    """The metrics that have no value on such cells, whatever the vectors."""
    excused = {}
    if isinstance(before, str):
        excused["pcr_comparison"] = Score("pcr_comparison", NAN, "batch", status="skipped", note=before)
    if n_labels < 2:
        why = "there is one label only"
        excused |= {m: Score(m, NAN, "bio", status="undefined", note=why) for m in (*BIO, *OUTSIDE)}
    if n_batches < 2:
        why = "there is one batch only" if n_batches else "no batches were given"
        excused |= {m: Score(m, NAN, "batch", status="undefined", note=why) for m in BATCH}
    return excused


def _scores_of(part: str, answer: dict[str, Any]) -> dict[str, Score]:
    metrics = PARTS[part].columns.values()
    seconds = answer["seconds"] / len(metrics)
    if "error" in answer:
        return {m: Score(m, NAN, FAMILY[m], status="failed", note=answer["error"], seconds=seconds) for m in metrics}
    scores = {m: Score(m, answer["values"][m], FAMILY[m], seconds=seconds) for m in metrics}
    for metric, score in scores.items():
        if not np.isfinite(score.value):
            scores[metric] = replace(score, value=NAN, status="undefined", note=f"{PACKAGE} finds no number")
    return scores


def _details(answer: dict[str, Any], labels: NDArray[np.str_], isolated: Codes, n_batches: int) -> dict[str, Any]:
    values = {metric: value for part in answer["parts"].values() for metric, value in part.get("values", {}).items()}
    return {
        "isolated_labels": [str(labels[code]) for code in isolated],
        "kbet_skipped": [str(labels[code]) for code in values.get("kbet_skipped", [])],
        "implementation": {
            metric: found["implementation"]
            for part, found in answer["parts"].items()
            if "implementation" in found
            for metric in PARTS[part].columns.values()
        },
        # iLISI is the median of the batches that a cell effectively sees, brought to 0..1 by the number of batches.
        "effective_batches": 1 + values.get("ilisi", NAN) * (n_batches - 1),
        "pcr_unclipped": values.get("pcr_unclipped", NAN),
        "version": answer["version"],
    }


def _noted(scores: dict[str, Score], details: dict[str, Any], n_labels: int, n_batches: int) -> dict[str, Score]:
    """The same with what a reader must know about each."""
    notes = dict(_NOTES)
    isolated, skipped = details["isolated_labels"], details["kbet_skipped"]
    notes["isolated_labels"] = f"{len(isolated)} of {n_labels} labels are in the fewest batches"
    notes["ilisi"] = f"a cell sees {details['effective_batches']:.2f} of {n_batches} batches"
    if skipped:
        notes["kbet"] = f"{len(skipped)} of {n_labels} labels have one batch only and are left out"
    if abs(details["pcr_unclipped"]) < 1e-5:
        notes["pcr_comparison"] = "0 by construction: as much of batches as in the space compared with"
    elif details["pcr_unclipped"] < 0:
        notes["pcr_comparison"] = (
            f"{details['pcr_unclipped']:.3f} before the cut at 0: batches explain more than before"
        )
    for metric, by in details["implementation"].items():
        if by != PACKAGE:
            notes[metric] = "; ".join(filter(None, [notes.get(metric), f"by {by}, equal to {PACKAGE}"]))
    return {m: replace(s, note=notes.get(m, "")) if s.status == "ok" else s for m, s in scores.items()}


def _with_totals(scores: dict[str, Score]) -> dict[str, Score]:
    """The same with plain means of each family, and 0.6 bio + 0.4 batch; a total that lacks a member is undefined."""
    totals = {
        "scib_bio": _total("scib_bio", scores, dict.fromkeys(BIO, 1 / len(BIO))),
        "scib_batch": _total("scib_batch", scores, dict.fromkeys(BATCH, 1 / len(BATCH))),
    }
    totals["scib_total"] = _total("scib_total", {**scores, **totals}, {"scib_bio": 0.6, "scib_batch": 0.4})
    return {**scores, **totals}


def _total(name: str, scores: dict[str, Score], weights: dict[str, float]) -> Score:
    whole = replace(scores[next(iter(weights))], metric=name, family=FAMILY[name], headline=True, seconds=0.0)
    missing = [metric for metric in weights if scores[metric].status != "ok"]
    if missing:
        note = "without " + ", ".join(f"{m} ({scores[m].status}: {scores[m].note})" for m in missing)
        return replace(whole, value=NAN, status="undefined", note=note)
    value = sum(weight * scores[metric].value for metric, weight in weights.items())
    return replace(whole, value=float(value), status="ok", note="")
