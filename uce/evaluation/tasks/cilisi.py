"""Whether batches are mixed among cells of one label."""

from functools import partial

import numpy as np

from uce.evaluation import lisi
from uce.evaluation.context import Context
from uce.evaluation.embeddings import Embedding
from uce.evaluation.results import Family, Findings, NotPossible, Score
from uce.evaluation.uncertainty import Interval, interval_of_mean

METRICS: tuple[tuple[str, Family], ...] = (("cilisi", "batch"), ("cilisi_means", "batch"), ("cilisi_ceiling", "batch"))
_CEILING_NOTE = "CiLISI when the batches are dealt anew within every label: as high as unequal batches allow"


def run(context: Context, embedding: Embedding) -> Findings:
    """CiLISI with its attainable ceiling, an interval by groups, and the value of every label."""
    cells = context.cells
    if cells.batches is None or len(np.unique(cells.batches)) < 2:
        msg = "needs cells of two batches or more: name an obs column that has them with --batch-key"
        raise NotPossible(msg)
    mixing = lisi.cilisi(embedding.vectors, cells.labels, cells.batches, context.rng(103))
    interval = _interval(mixing, context)
    score = partial(Score, family="batch", n_cells=len(mixing.rows), n_labels=len(mixing.labels))
    scores = (
        score(
            "cilisi",
            mixing.cilisi,
            low=interval.low,
            high=interval.high,
            note=interval.note,
            n_groups=len(interval.groups),
            headline=True,
        ),
        score("cilisi_means", mixing.cilisi_means),
        score("cilisi_ceiling", mixing.ceiling, better="neither", note=_CEILING_NOTE),
    )
    return Findings(scores, _details(mixing, interval))


def _interval(mixing: lisi.Mixing, context: Context) -> Interval:
    groups, settings = context.cells.groups, context.settings
    if groups is None:
        return Interval(note="no groups to resample: no interval")
    return interval_of_mean(mixing.scores, groups[mixing.rows], draws=settings.bootstrap, seed=settings.seed)


def _details(mixing: lisi.Mixing, interval: Interval) -> dict[str, object]:
    return {
        "labels": [
            {
                "label": one.label,
                "cilisi": float(one.scores.mean()),
                "ceiling": one.ceiling,
                "cells": len(one.rows),
            }
            for one in mixing.labels
        ],
        "skipped": [{"label": label, "reason": reason} for label, reason in mixing.skipped],
        "groups": interval.groups,
        "k_rule": lisi.K_RULE,
    }
