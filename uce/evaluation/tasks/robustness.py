"""Cells of our own model, embedded again with counts and genes taken away: how much of the answer stays.

About 23 times `settings.robustness_cells` cells are embedded.
"""

from dataclasses import replace

import numpy as np

from uce.evaluation.bench import (
    Bench,
    Point,
    draws,
    dropout,
    imaging,
    make_bench,
    panels,
    soup,
    thinning,
    without_variable,
)
from uce.evaluation.context import Context
from uce.evaluation.embeddings import Embedding
from uce.evaluation.invariance import Check, column_order, company, exchanged_genes, precision, ten_times
from uce.evaluation.results import Better, Family, Findings, Score
from uce.evaluation.robustness import noise_floor

_SPOILED = (
    "thinning_25_accuracy",
    "panel_1000_accuracy",
    "dropout_10_accuracy",
    "imaging_panel_accuracy",
    "without_variable_genes_accuracy",
    "ambient_10_accuracy",
)
_HEADLINE = ("thinning_25_accuracy", "panel_1000_accuracy")
_MUST_HOLD = ("permuted_genes_accuracy", "column_shuffle_max_difference", "company_max_difference")
METRICS: tuple[tuple[str, Family], ...] = tuple(
    (name, "robustness")
    for name in ("noise_floor", "noise_label_flips", "noise_macro_f1", "unspoiled_accuracy", *_SPOILED, *_MUST_HOLD)
)


def run(context: Context, embedding: Embedding) -> Findings:  # noqa: ARG001  its cells are embedded again
    """Spoil counts and genes, embed, compare; then what must hold whatever the cells."""
    bench = make_bench(context)
    whole = bench.point(100, bench.counts)
    thinner, fewer, lost = thinning(bench), panels(bench), dropout(bench)
    others = {
        "imaging_panel": imaging(bench),
        "without_variable_genes": without_variable(bench),
        "ambient": soup(bench),
    }
    floor = noise_floor(draws(bench), bench.reference)
    checks = (exchanged_genes(bench, whole["accuracy"]), column_order(bench), company(bench))
    points = (_at(thinner, 25), _at(fewer, 1000), _at(lost, 10), *others.values())
    scores = (
        _score(bench, "noise_floor", floor["share"], _floor_words(floor), better="lower"),
        _score(bench, "noise_label_flips", floor["label_flips"], better="lower"),
        _score(bench, "noise_macro_f1", floor["macro_f1"], better="lower"),
        _score(bench, "unspoiled_accuracy", whole["accuracy"]),
        *(_score(bench, name, p["accuracy"], p["note"]) for name, p in zip(_SPOILED, points, strict=True)),
        *(_checked(bench, check) for check in checks),
    )
    curves = {
        "thinning": [whole, *thinner],
        "panel": [whole | {"level": len(bench.genes)}, *fewer],
        "dropout": [whole | {"level": 0}, *lost],
    }
    details = {
        "curves": {name: [point for point in found if not point["note"]] for name, found in curves.items()},
        "others": others,
        "noise_floor": floor,
        "checks": [check.row() for check in (*checks, ten_times(bench), precision(bench))],
        "cells": len(bench.cells),
    }
    return Findings(scores, details)


def _at(points: list[Point], level: int) -> Point:
    return next(point for point in points if point["level"] == level)


def _score(bench: Bench, metric: str, value: float, note: str = "", *, better: Better = "higher") -> Score:
    """A number of these cells; where it is not there the note says what is missing."""
    score = Score(
        metric,
        value,
        "robustness",
        better=better,
        note=note,
        n_cells=len(bench.cells),
        n_labels=len(np.unique(bench.cells.labels)),
        n_groups=0 if bench.reference.groups is None else len(np.unique(bench.reference.groups)),
        headline=metric in _HEADLINE,
    )
    if np.isfinite(value):
        return score
    if note:
        return replace(score, status="skipped")
    return replace(score, status="undefined", note="needs two labels, one of them in two groups")


def _checked(bench: Bench, check: Check) -> Score:
    score = _score(bench, check.name, check.value, check.note, better="lower")
    return replace(score, status="suspect") if check.passed is False else score


def _floor_words(floor: dict[str, float]) -> str:
    return (
        f"two draws of one cell have cosine {floor['cosine_mean']:.4f} (1 % of cells below {floor['cosine_p1']:.4f}), "
        f"two cells {floor['between_cells']:.4f}"
    )
