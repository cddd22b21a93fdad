"""What was found, for people and for the record: columns of cells, a line per label, sentences."""

from typing import Any

import numpy as np
import pandas as pd

from uce.annotation.labelling import (
    UNKNOWN,
    Labelling,
    curve,
    held_out_scores,
    shifts,
)
from uce.annotation.sources import Side
from uce.annotation.trust import EVEN
from uce.evaluation.scores import confusion, per_label


def columns_of(found: Labelling, prefix: str) -> dict[str, Any]:
    """Columns of the query's cells, in order; text columns are categories, NaN where a cell has no vector."""
    guesses, names = found.guesses, np.unique(found.reference.labels)
    confidence = "confidence" if found.calibrated else "vote_share"
    labels = np.where(found.unknown, UNKNOWN, guesses.labels)
    every = {
        "label": _categories(found, labels, [*names, UNKNOWN], missing=UNKNOWN),
        "best_label": _categories(found, guesses.labels, names),
        confidence: _spread(found, found.confidence),
        "label_2": _categories(found, found.second, names),
        "margin": _spread(found, found.margin),
        UNKNOWN: _spread(found, found.unknown, missing=True),
        "unknown_score": _spread(found, found.score),
        "nn_agreement": _spread(found, guesses.agreement),
        "nn_distance": _spread(found, guesses.distances),
        "nn_distance_pct": _spread(found, 100 * found.judge.distance_rank(guesses)),
    }
    return {f"{prefix}_{name}": column for name, column in every.items()}


def _spread(found: Labelling, values: Any, missing: Any = np.nan) -> Any:
    """Over all cells of the query."""
    column = np.full(len(found.there), missing, dtype=bool if values.dtype == bool else np.float64)
    column[found.there] = values
    return column


def _categories(found: Labelling, values: Any, names: Any, missing: str | None = None) -> pd.Categorical:
    texts = np.full(len(found.there), missing, dtype=object)
    texts[found.there] = [value if value else None for value in values.tolist()]
    return pd.Categorical(texts, categories=list(dict.fromkeys(str(name) for name in names)))


def summary_of(found: Labelling) -> pd.DataFrame:
    """One line per label of the reference, commonest in the query first.

    Columns: `label`; query `cells` with this best label, their `share`, `mean_confidence` and `share_unknown`;
    `reference_cells` and `reference_share`; on held-out reference cells `recall`, `precision`, `f1` and `confused_with`
    (the labels that its cells were given instead, with their share); `noticed_if_missing` (share of its cells that
    would be called unknown if the reference had no such label) and `taken_for` (what the others would be called).
    """
    held_out, guessed = found.held_out, found.guesses.labels
    known = held_out.learnable
    scores = {line["label"]: line for line in per_label(held_out.labels[known], held_out.guesses.labels[known])}
    confused = _confusions(found)
    lines = []
    for label in np.unique(found.reference.labels).tolist():
        here, count = guessed == label, int((found.reference.labels == label).sum())
        line = scores.get(label, {})
        noticed, taken = found.withheld.get(label, (np.nan, {}))
        lines.append(
            {
                "label": label,
                "cells": int(here.sum()),
                "share": _mean(here),
                "mean_confidence": _mean(found.confidence[here]),
                "share_unknown": _mean(found.unknown[here]),
                "reference_cells": count,
                "reference_share": count / len(found.reference.labels),
                **{name: float(line.get(name, np.nan)) for name in ("recall", "precision", "f1")},
                "confused_with": _shares(confused.get(label, {})),
                "noticed_if_missing": noticed,
                "taken_for": _shares(taken),
            }
        )
    table = pd.DataFrame(lines)
    return table.sort_values(["cells", "label"], ascending=[False, True], ignore_index=True)


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _confusions(found: Labelling) -> dict[str, dict[str, float]]:
    """Label -> the other labels that its held-out cells were given, and their shares, largest first."""
    known = found.held_out.learnable
    if not known.any():
        return {}
    labels, counts = confusion(found.held_out.labels[known], found.held_out.guesses.labels[known])
    shares = {}
    for label, row in zip(labels, counts, strict=True):
        others = sorted((-n, other) for other, n in zip(labels, row, strict=True) if n and other != label)
        shares[label] = {other: -n / max(1, sum(row)) for n, other in others}
    return shares


def _shares(shares: dict[str, float], most: int = 3) -> str:
    return ", ".join(f"{label} {share:.0%}" for label, share in list(shares.items())[:most] if share >= 0.005)


def facts_of(found: Labelling, query: Side, reference: Side, warnings: list[str], **given: str) -> dict[str, Any]:
    """The record for `uns`: what labels rest on. No clock, no folder; equal runs give equal records."""
    import uce

    record, strange = reference.record, found.share
    shift, usual = shifts(found)
    bins = curve(found) if found.calibrated else []
    return {
        "version": uce.__version__,
        **given,
        "query": query.given.name,
        "reference": reference.given.name,
        "reference_cells": len(found.reference.labels),
        "left_out": found.reference.left_out,
        **{name: str(record[name]) for name in ("model", "model_sha256", "gene_vectors", "precision")},
        "method": found.method,
        "k": found.k,
        "thresholds": {} if strange is None else {"score": 1 - strange, "confidence": EVEN},
        "calibrated": found.calibrated,
        "split": found.held_out.split.title,
        "held_out": held_out_scores(found),
        "reliability": {name: np.array([b[name] for b in bins]) for name in ("confidence", "accuracy", "count")},
        "shift": {"query": shift, "between_donors": usual},
        "warnings": np.array(warnings, dtype=object),
        "summary": summary_of(found),
    }


def sentences(found: Labelling, facts: dict[str, Any]) -> list[str]:
    """What a person is told on the way."""
    scores = facts["held_out"]
    said = [f"reference: {len(found.reference.labels):,} cells, {facts['summary'].shape[0]} labels{_left_out(found)}"]
    if "macro_f1" in scores:
        said.append(
            f"held out ({facts['split']}): {scores['accuracy']:.1%} of {scores['cells']:,} reference cells right, "
            f"macro-F1 {scores['macro_f1']:.2f}"
        )
    if found.calibrated and "ece" in scores:
        said.append(
            f"confidence: the probability that the label is right for a cell of a further donor of the reference; on "
            f"held-out donors it is off by {scores['ece']:.3f} on average"
        )
    if found.share is not None:
        said.append(
            f"unknown: {_mean(found.unknown):.1%} of the query, which are stranger than {1 - found.share:.0%} of the "
            f"rightly labelled held-out cells, or more likely wrong than right. Held out, this takes "
            f"{scores.get('right_called_unknown', np.nan):.1%} of the right labels and "
            f"{scores.get('wrong_called_unknown', np.nan):.1%} of the wrong ones, and so it would of a further donor "
            f"of the reference; a new assay or tissue breaks this"
        )
    pca = facts["pca"]
    if "skipped" in pca:
        said.append(f"principal components beside it: not compared, {pca['skipped']}")
    else:
        held_out = [
            f"{name} {pca[key]['macro_f1']:.2f}" for key, name in (("ours", "the model"), ("pca", "they")) if key in pca
        ]
        said.append(
            f"principal components beside it: {pca['agreement']:.0%} of {pca['cells']:,} query cells get the same label"
            + (f"; held-out macro-F1: {', '.join(held_out)}" if held_out else "")
        )
    return said


def _left_out(found: Labelling) -> str:
    words = [f"{count:,} {reason}" for reason, count in found.reference.left_out.items()]
    return f"; left out: {', '.join(words)}" if words else ""
