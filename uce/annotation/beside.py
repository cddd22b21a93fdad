"""Is the model worth it? The same labels from principal components; and the markers of each label."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from uce.annotation.guessing import SMALL_LABEL, guess
from uce.annotation.labelling import Labelling
from uce.annotation.reference import Reference
from uce.annotation.self_labelling import HeldOut, hold_out
from uce.annotation.sources import Side
from uce.cells.counts import open_counts
from uce.cells.matching import match_species
from uce.errors import UceError
from uce.evaluation.baselines import BASELINES
from uce.evaluation.cells import Cells
from uce.evaluation.orthology import gene_pairs
from uce.evaluation.results import NotPossible
from uce.evaluation.scores import classification_scores
from uce.genes.tables import GeneTable

MAX_CELLS = 10_000  # of each side
MARKERS = 5
_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class Beside:
    """What principal components say of the same cells.

    Attributes
    ----------
    facts
        `genes` shared, query `cells` compared, `agreement` (share of them with the same best label), and `macro_f1` and
        `accuracy` of both on the same held-out reference cells.
    markers
        One line per label and marker: label, gene, and the shares of cells with a count of it: `reference` cells of the
        label, `query` cells so called, and `other_query` cells.
    rows, labels
        (query cells compared,) their positions among those that have a vector, and what the components call them.
    """

    facts: dict[str, Any]
    markers: pd.DataFrame
    rows: NDArray[np.int64]
    labels: NDArray[np.str_]


def compare(found: Labelling, query: Side, reference: Side, *, seed: int) -> Beside | str:
    """Label the query by principal components that are fitted on the reference; or, in words, why that cannot be."""
    try:
        return _compare(found, query, reference, seed)
    except (NotPossible, UceError) as reason:
        return str(reason)


def _compare(found: Labelling, query: Side, reference: Side, seed: int) -> Beside:
    chosen = _thinned(found.held_out.rows)
    asked = _thinned(np.arange(len(found.confidence)))
    if len(chosen) < SMALL_LABEL or not len(asked):
        raise NotPossible("too few cells to compare")
    known = found.reference.take(chosen)
    counts, genes = _shared(reference, known.rows, query, np.flatnonzero(found.there)[asked])
    ours, theirs = _held_out(found, known, counts, chosen, seed)
    guessed = _labels(found, known, counts, seed)
    facts: dict[str, Any] = {
        "genes": len(genes),
        "cells": len(asked),
        "agreement": float((guessed == found.guesses.labels[asked]).mean()),
    }
    for name, held_out in (("ours", ours), ("pca", theirs)):
        judged = held_out.learnable
        if judged.any():
            scores = classification_scores(held_out.labels[judged], held_out.guesses.labels[judged])
            facts[name] = {key: scores[key] for key in ("macro_f1", "accuracy")}
    markers = marker_table(counts, known.labels, found.guesses.labels[asked], genes)
    return Beside(facts, markers, asked, guessed)


def _thinned(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most `MAX_CELLS` of them, evenly spaced."""
    if len(rows) <= MAX_CELLS:
        return rows
    return rows[np.linspace(0, len(rows) - 1, MAX_CELLS).astype(np.int64)]


def _shared(
    reference: Side, reference_rows: NDArray[np.int64], query: Side, query_rows: NDArray[np.int64]
) -> tuple[csr_matrix, NDArray[np.str_]]:
    """Counts of both, the reference's cells first, in the genes they share; and the names of these genes."""
    known, table, there = _by_gene(reference, reference_rows)
    asked, other, measured = _by_gene(query, query_rows)
    pairs, source = gene_pairs(table, other, None)
    pairs = pairs[there[pairs[:, 0]] & measured[pairs[:, 1]]]
    if not len(pairs):
        raise NotPossible(f"the two have no gene in common ({source})")
    symbols, ids = table.symbols[pairs[:, 0]], table.ids[pairs[:, 0]]
    return vstack([known[:, pairs[:, 0]], asked[:, pairs[:, 1]]], format="csr"), np.where(symbols != "", symbols, ids)


def _by_gene(side: Side, rows: NDArray[np.int64]) -> tuple[csr_matrix, GeneTable, NDArray[np.bool_]]:
    """(cells, genes of the table) counts, the table, and which of its genes the file has."""
    options, species = side.given.options, list(side.record["species"])
    if len(species) != 1:
        raise NotPossible(f"{side.given.name} has cells of several species")
    with open_counts(
        side.given.data,
        layer=options.layer,
        use_raw=options.use_raw,
        policy=options.counts_policy,
        genome=options.genome,
    ) as counts:
        matches, _ = match_species(
            counts,
            species=species[0],
            gene_column=options.gene_column,
            encoder=str(side.record["gene_vectors"]),
            min_coverage=0.0,
        )
        match = next(iter(matches.values()))
        columns = np.flatnonzero(match.resolution.rows >= 0)
        genes = match.resolution.rows[columns]
        shape = (len(counts.var), len(match.table))
        sums = csr_matrix((np.ones(len(columns), np.float32), (columns, genes)), shape=shape)
        parts = [csr_matrix((0, shape[1]), dtype=np.float32)]
        for start in range(0, counts.n_cells, _BLOCK):
            here = rows[(rows >= start) & (rows < start + _BLOCK)] - start
            if len(here):
                parts.append(counts.read(start, start + _BLOCK)[here].astype(np.float32) @ sums)
    return vstack(parts, format="csr"), match.table, np.isin(np.arange(shape[1]), genes)


def _held_out(
    found: Labelling, known: Reference, counts: csr_matrix, chosen: NDArray[np.int64], seed: int
) -> tuple[HeldOut, HeldOut]:
    """The reference labelled by itself: by the model's vectors, and by components fitted on the other folds."""
    cells = _cells(counts[: len(known.labels)], known.labels)
    same = len(chosen) == len(found.reference.labels)
    ours = found.held_out if same else hold_out(known, method=found.method, k=found.k, seed=seed)
    return ours, hold_out(
        known,
        method=found.method,
        k=found.k,
        seed=seed,
        fitted_on=lambda train: BASELINES["pca"].embed(cells, train, seed),
    )


def _labels(found: Labelling, known: Reference, counts: csr_matrix, seed: int) -> NDArray[np.str_]:
    """Labels of the query's cells by principal components that are fitted on the reference."""
    n = len(known.labels)
    train = np.arange(counts.shape[0]) < n
    vectors = BASELINES["pca"].embed(_cells(counts, np.full(counts.shape[0], "")), train, seed)
    return guess(vectors[n:], replace(known, vectors=vectors[:n]), method=found.method, k=found.k).labels


def _cells(counts: csr_matrix, labels: NDArray[np.str_]) -> Cells:
    return Cells("cells", np.arange(counts.shape[0]).astype(object), labels, counts=counts)


def marker_table(
    counts: csr_matrix, labels: NDArray[np.str_], called: NDArray[np.str_], genes: NDArray[np.str_]
) -> pd.DataFrame:
    """The five genes of every label that stand out most in the reference, and how many query cells have them.

    A gene stands out by its mean log1p CP10k in the label less that in the label where it is next highest.

    Parameters
    ----------
    counts
        (reference cells, then query cells; genes).
    labels, called
        Of the reference cells, and of the query cells.
    """
    n = len(labels)
    log_counts, seen = _cells(counts, np.full(counts.shape[0], "")).log_counts[:n], counts > 0
    names, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    members = csr_matrix((1 / sizes[codes], (codes, np.arange(n))), shape=(len(names), n))
    means = (members @ log_counts).toarray()
    lines = []
    for code, name in enumerate(names.tolist()):
        others = np.delete(means, code, axis=0).max(axis=0, initial=0.0)
        lead = means[code] - others
        best = np.argsort(-lead, kind="stable")[:MARKERS]
        best = best[lead[best] > 0] if sizes[code] >= SMALL_LABEL else best[:0]
        rows = {"reference": np.flatnonzero(labels == name), "query": n + np.flatnonzero(called == name)}
        rows["other_query"] = n + np.flatnonzero(called != name)
        shares = {role: _shares(seen[there][:, best]) for role, there in rows.items()}
        lines += [
            {"label": name, "gene": genes[gene], **{role: share[i] for role, share in shares.items()}}
            for i, gene in enumerate(best)
        ]
    return pd.DataFrame(lines, columns=["label", "gene", "reference", "query", "other_query"])


def _shares(seen: Any) -> NDArray[np.float64]:
    """(genes,) share of the cells with a count; NaN without cells."""
    if not seen.shape[0]:
        return np.full(seen.shape[1], np.nan)
    return np.asarray(seen.mean(axis=0), np.float64).ravel()
