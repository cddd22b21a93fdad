"""What is asked of a space of two data sets in each direction, and what the answers are called."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.carrying import CARRIED, Side, carry, retrieve, unseen, within
from uce.evaluation.cells import Texts
from uce.evaluation.context import Settings
from uce.evaluation.crossing import Crossing
from uce.evaluation.embeddings import Embedding
from uce.evaluation.probes import Votes
from uce.evaluation.results import NAN, Findings, NotPossible, Score
from uce.evaluation.scores import classification_scores, confusion, per_label
from uce.evaluation.uncertainty import Interval, interval_of_f1, interval_of_mean

Direction = Literal["forward", "backward"]
CARRYING = ("knn_f1", "logistic_f1", "accuracy", "bound")
_NO_GROUPS = "no donors are known: no interval"


def judge_carrying(crossing: Crossing, embedding: Embedding, *, direction: Direction) -> Findings:
    """Macro-F1 and accuracy of labels carried over, beside what is reached within the data set they are carried to.

    With one shared label all of them are `undefined`: every answer would be right.
    """
    source, target = _ends(crossing, embedding, direction)
    shared, rows = crossing.pair.shared, target.of(crossing.pair.shared)
    votes = carry(source, target, shared)
    true = target.labels[rows]
    groups = None if target.groups is None else target.groups[rows]
    intervals = {name: _interval_f1(true, votes[name].labels, groups, crossing.settings) for name in CARRIED}
    intervals["accuracy"] = _interval_accuracy(true == votes["knn"].labels, groups, crossing.settings)
    tables = {name: _table(true, vote.labels) for name, vote in votes.items()}
    bound = within(target, shared) if len(shared) > 1 else NAN
    way = f"from {source.name} to {target.name}"
    scores = (
        _score("knn_f1", tables["knn"]["macro_f1"], intervals["knn"], way),
        _score("logistic_f1", tables["logistic"]["macro_f1"], intervals["logistic"], way, votes["logistic"].note),
        _score("accuracy", tables["knn"]["accuracy"], intervals["accuracy"], way),
        _score("bound", bound, Interval(), f"k-NN within {target.name}", target.split.title),
    )
    drawn = {
        "from": source.name,
        "to": target.name,
        "probe": "knn",
        **tables["knn"],
        "logistic": tables["logistic"],
        "bound": {"macro_f1": bound, "split": target.split.title, "watermark": target.split.watermark},
        "per_group": [{"group": group, "macro_f1": value} for group, value in intervals["knn"].groups.items()],
    }
    predictions = _predicted(crossing, direction, rows, votes)
    unfinished = bool(votes["logistic"].note)
    named = tuple(_named(one, direction, len(rows), shared, unfinished=unfinished) for one in scores)
    return Findings(named, {"directions": [drawn]}, predictions)


def judge_unseen(crossing: Crossing, embedding: Embedding, *, direction: Direction) -> Findings:
    """Whether labels that only the data set has that labels are carried to stand out, as AUROC.

    Raises
    ------
    NotPossible
        There is no such label.
    """
    source, target = _ends(crossing, embedding, direction)
    lines = unseen(source, target, crossing.pair.shared)
    if not lines:
        raise NotPossible(f"{target.name} has no label of ten cells that {source.name} lacks")
    score = Score(
        f"cross_unseen_auroc_{direction}",
        float(np.mean([line["auroc"] for line in lines])),
        "cross",
        note=f"labels of {target.name} that {source.name} lacks, mean over labels; .5 is chance",
        n_cells=sum(line["cells"] for line in lines),
        n_labels=len(lines),
    )
    return Findings((score,), {"unseen": [{"from": source.name, "to": target.name, **line} for line in lines]})


def judge_retrieval(crossing: Crossing, embedding: Embedding, *, direction: Direction) -> Findings:
    """Whether the centroid of a label finds its own among those of the other data set: mean of 1 / rank."""
    source, target = _ends(crossing, embedding, direction)
    lines = retrieve(source, target, crossing.pair.shared)
    value = float(np.mean([1 / line["rank"] for line in lines]))
    right = sum(line["rank"] == 1 for line in lines)
    among = f"among the {lines[0]['of']} labels of {source.name}"
    note = f"mean of 1 / rank of the right label {among}; first for {right} of {len(lines)}"
    score = Score(f"cross_retrieval_{direction}", value, "cross", note=note, n_labels=len(lines))
    return Findings((score,), {"retrieval": [{"from": source.name, "to": target.name, **line} for line in lines]})


def _ends(crossing: Crossing, embedding: Embedding, direction: Direction) -> tuple[Side, Side]:
    """Where labels come from and where they go."""
    first, second = (crossing.side(number, embedding.vectors) for number in (0, 1))
    return (first, second) if direction == "forward" else (second, first)


def _score(name: str, value: float, found: Interval, *words: str) -> Score:
    note = "; ".join(filter(None, (*words, found.note)))
    return Score(name, value, "cross", found.low, found.high, note=note, n_groups=len(found.groups))


def _named(score: Score, direction: Direction, n_cells: int, shared: tuple[str, ...], *, unfinished: bool) -> Score:
    facts = {**vars(score), "metric": f"cross_{score.metric}_{direction}", "headline": score.metric == "knn_f1"}
    facts |= {"n_cells": n_cells, "n_labels": len(shared)}
    if len(shared) < 2:
        lone = f"one shared label ({shared[0]}): every answer is right"
        facts |= {"value": NAN, "low": NAN, "high": NAN, "status": "undefined", "note": lone}
    elif score.metric == "logistic_f1" and unfinished:
        facts |= {"status": "suspect"}
    elif not np.isfinite(score.value):
        facts |= {"status": "undefined", "note": f"no cell has a label that the other folds know; {score.note}"}
    return Score(**facts)


def _interval_f1(true: Texts, said: Texts, groups: Texts | None, settings: Settings) -> Interval:
    if groups is None:
        return Interval(note=_NO_GROUPS)
    return interval_of_f1(true, said, groups, draws=settings.bootstrap, seed=settings.seed)


def _interval_accuracy(right: NDArray[np.bool_], groups: Texts | None, settings: Settings) -> Interval:
    if groups is None:
        return Interval(note=_NO_GROUPS)
    return interval_of_mean(right.astype(np.float64), groups, draws=settings.bootstrap, seed=settings.seed)


def _table(true: Texts, said: Texts) -> dict[str, Any]:
    labels, counts = confusion(true, said)
    scores = classification_scores(true, said)
    numbers = {"macro_f1": scores["macro_f1"], "accuracy": scores["accuracy"]}
    return {"labels": labels, "confusion": counts, "per_label": per_label(true, said), **numbers}


def _predicted(
    crossing: Crossing, direction: Direction, rows: NDArray[np.int64], votes: dict[str, Votes]
) -> dict[str, NDArray[Any]]:
    pair, cells = crossing.pair, crossing.pair.joined
    places, target = (rows + len(pair.first), pair.second) if direction == "forward" else (rows, pair.first)
    columns: dict[str, NDArray[Any]] = {
        "cell": cells.names[places],
        "fold": np.full(len(rows), f"to {target.name}"),
        "group": np.asarray(cells.groups)[places],
        "label": cells.labels[places],
    }
    for name in CARRIED:
        columns |= {f"{name}_label": votes[name].labels, f"{name}_confidence": votes[name].confidence}
    return columns
