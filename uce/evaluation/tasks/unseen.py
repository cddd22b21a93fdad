"""Are cells of a type that the training cells lack noticed? Every label in turn is taken out of training."""

from typing import Any

import numpy as np

from uce.evaluation.context import Context
from uce.evaluation.embeddings import Embedding
from uce.evaluation.held_out import held_out_of
from uce.evaluation.results import Better, Family, Findings, NotPossible, Score
from uce.evaluation.withheld import SCORES, labels_to_withhold, withhold

HEADLINE = "relative_distance"
_NAMES = ("unseen_auroc", "unseen_aupr", "unseen_fpr95", "unseen_auroc_worst5")
METRICS: tuple[tuple[str, Family], ...] = tuple((name, "unseen") for name in _NAMES)


def run(context: Context, embedding: Embedding) -> Findings:
    """Score how unknown the cells of each withheld label look among cells of labels that were in training.

    The score is one for all embeddings, chosen beforehand: the distance to the 15th neighbour, relative to what is
    usual for the label that the cell is given. The details hold the others.

    Raises
    ------
    NotPossible
        There are not three labels, one of them with 50 cells in two groups; or no group can be held out.
    """
    held = held_out_of(context, embedding)
    labels = context.cells.labels
    wanted = labels_to_withhold(held.labels, held.split.units[held.rows])
    if not wanted or len(held.classes) < 3:
        raise NotPossible("needs three labels, and one of them with 50 judged cells in two groups or more")
    lines: list[dict[str, Any]] = []
    others: dict[str, list[float]] = {score: [] for score in SCORES}
    for one in withhold(held, labels, wanted):
        cells = int(one.positive.sum())
        lines.append({"label": one.label, "cells": cells, **one.measures(HEADLINE), "called": one.destinations()})
        for score in SCORES:
            others[score].append(one.measures(score)["auroc"])
    if not lines:
        raise NotPossible("a fold trains on the withheld label alone: nothing else can be called")
    means = {name: float(np.mean([line[name] for line in lines])) for name in ("auroc", "aupr", "fpr95")}
    worst = sorted(line["auroc"] for line in lines)[:5]
    values = {**{f"unseen_{name}": value for name, value in means.items()}, "unseen_auroc_worst5": np.mean(worst)}
    scores = tuple(_score(name, float(values[name]), len(held.rows), len(lines), held.split.mark) for name in _NAMES)
    averages = {score: float(np.mean(found)) for score, found in others.items()}
    return Findings(scores, {"labels": lines, "score": HEADLINE, "auroc_by_score": averages})


def _score(name: str, value: float, n_cells: int, n_labels: int, note: str) -> Score:
    better: Better = "lower" if name == "unseen_fpr95" else "higher"
    headline = name == "unseen_auroc"
    return Score(name, value, "unseen", better=better, headline=headline, n_cells=n_cells, n_labels=n_labels, note=note)
