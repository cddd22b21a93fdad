"""Was the model trained on these cells? Cells found in its training manifest, and datasets of the same name."""

from typing import Any

import numpy as np

from uce.evaluation.context import Context
from uce.evaluation.embeddings import Embedding
from uce.evaluation.leakage import Leak, Overlap, find_overlap, manifests, names_of, same_names
from uce.evaluation.results import Family, Findings, NotPossible, Score, unavailable

METRICS: tuple[tuple[str, Family], ...] = (("cell_overlap", "leakage"), ("near_overlap", "leakage"))


def run(context: Context, embedding: Embedding) -> Findings:  # noqa: ARG001  of the cells, whatever their vectors
    """See `find_leakage`."""
    return find_leakage(context)


def find_leakage(context: Context) -> Findings:
    """The worst that any manifest shows; `unknown` where there is none, or where one cannot be compared."""
    cells = context.cells
    found: list[Overlap] = []
    rows: list[dict[str, Any]] = []
    doubts: list[str] = []
    known = manifests(cells, context.settings)
    for place, manifest in known.items():
        try:
            overlap = find_overlap(cells, manifest)
            found.append(overlap)
            evidence = overlap.rows
        except NotPossible as reason:
            doubts.append(f"{place}: {reason}")
            named = zip(manifest.datasets, same_names(names_of(cells), manifest.datasets), strict=True)
            evidence = [{"dataset": dataset["dataset"], "named": name} for dataset, name in named if name]
        rows += [{"manifest": place, **row} for row in evidence]
        doubts += [f"{place}: the manifest lacks {manifest.lacking}"] if manifest.lacking else []
    if not known:
        doubts.append(_without_manifest(context))
    seen = np.zeros((2, len(cells)), dtype=bool)
    for overlap in found:
        seen |= np.array([overlap.exact, overlap.any])
    n = int(seen[1].sum())
    status = _status(bool(seen.any()), bool(rows), doubts)
    note = "; ".join(doubts) if status == "unknown" else _words(status, f"{n:,} of {len(cells):,}", rows)
    details: dict[str, Any] = {"status": status, "note": note, "rows": rows, "manifests": list(known)}
    details |= {"doubts": doubts, "share": n / len(cells), "cells": n}
    if not found:
        return Findings(unavailable(METRICS, "skipped", "; ".join(doubts)), details)
    return Findings(
        tuple(
            Score(name, float(mask.mean()), family, note=note, better="lower", n_cells=len(cells))
            for (name, family), mask in zip(METRICS, [seen[0], seen[1]], strict=True)
        ),
        details,
    )


def _status(cells: bool, named: bool, doubts: list[str]) -> Leak:
    if cells:
        return "cell-overlap"
    if named:
        return "dataset-overlap"
    return "unknown" if doubts else "clean"


def _without_manifest(context: Context) -> str:
    reader = context.cells.reader
    if reader is None:
        return f"no model is known whose training could be looked up: {context.cells.why_no_reader}"
    return (
        f"{reader.model.name} has no training manifest, so nobody can tell which cells it was trained on; "
        "give one with --manifest"
    )


def _words(status: Leak, share: str, rows: list[dict[str, Any]]) -> str:
    names = ", ".join(sorted({str(row["dataset"]) for row in rows}))
    if status == "cell-overlap":
        return f"{share} cells were trained on ({names})"
    if status == "dataset-overlap":
        return f"a dataset of the same name or accession was trained on ({names}), though no cell of these was found"
    return "none of these cells, and no dataset of their name, was trained on"
