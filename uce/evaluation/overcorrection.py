"""Were two data sets pulled together further than biology allows? Mixing alone rewards that; these checks do not."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.cells import Texts
from uce.evaluation.crossing import Crossing
from uce.evaluation.embeddings import Embedding, Floats
from uce.evaluation.lisi import Mixing, cilisi
from uce.evaluation.neighbors import find_neighbors
from uce.evaluation.probes import K, vote
from uce.evaluation.results import NAN, Findings, NotPossible, Score, Status
from uce.evaluation.scgraph import above_null, judge, judge_shuffled
from uce.evaluation.scores import classification_scores

ABSORBED_SHARE = 0.8
MOST_ABSORBED = 0.5
LARGEST_DROP = 0.03
MIN_CELLS = 5
NULLS = 5
STRUCTURE = ("cross_scgraph_first", "cross_scgraph_second")


def absorbed(vectors: Floats, labels: Texts, sides: Texts) -> list[dict[str, Any]]:
    """How far the labels that one side alone has have vanished into labels of the other side.

    A cell is absorbed if more than 80 % of its 15 nearest cells of both sides (cosine) are cells of one and the same
    label of the other side.

    Parameters
    ----------
    vectors, labels, sides
        (cells, dim), (cells,), (cells,): both sides together; `sides` has two values.

    Returns
    -------
    One dict per label of five cells or more that one side has: `label`, `side`, `cells`, `share` absorbed, `into` (the
    label of the other side that most of the absorbed cells fell into, "" if none).
    """
    names, codes = np.unique(labels, return_inverse=True)
    near = find_neighbors(vectors, K, metric="cosine").indices
    foreign = sides[near] != sides[:, None]
    found = []
    for code, name in enumerate(names.tolist()):
        rows = np.flatnonzero(codes == code)
        if len(rows) < MIN_CELLS or len(np.unique(sides[rows])) > 1:
            continue
        # (cells, labels) how many of the neighbours are of each label of the other side
        around = np.stack([(foreign[rows] & (codes[near[rows]] == other)).sum(axis=1) for other in range(len(names))])
        lost = around.max(axis=0) > ABSORBED_SHARE * near.shape[1]
        into = np.bincount(around.argmax(axis=0)[lost], minlength=len(names))
        found.append(
            {
                "label": name,
                "side": str(sides[rows[0]]),
                "cells": len(rows),
                "share": float(lost.mean()),
                "into": str(names[into.argmax()]) if lost.any() else "",
            }
        )
    return found


def within_f1(vectors: Floats, labels: Texts) -> float:
    """Macro-F1 of k-NN (15, cosine) in one data set, each cell left out in turn.

    Too good to be quoted, as cells of one donor vote for each other; good for comparing two spaces of the same cells.
    """
    return classification_scores(labels, vote(find_neighbors(vectors, K, metric="cosine"), labels).labels)["macro_f1"]


def within_drops(before: Floats, after: Floats, labels: Texts, sides: Texts) -> dict[str, tuple[float, float]]:
    """Side -> macro-F1 within it before and after a correction, over all labels of that side."""
    masks = {str(side): sides == side for side in np.unique(sides)}
    return {
        side: (within_f1(before[mine], labels[mine]), within_f1(after[mine], labels[mine]))
        for side, mine in masks.items()
    }


def mixing(vectors: Floats, labels: Texts, sides: Texts, rng: np.random.Generator) -> Mixing:
    """CiLISI with the side as batch, within the labels that both sides have.

    Raises
    ------
    NotPossible
        No shared label has ten cells.
    """
    shared = np.intersect1d(*(labels[sides == side] for side in np.unique(sides)))
    rows = np.isin(labels, shared)
    return cilisi(vectors[rows], labels[rows], sides[rows], rng)


def halves_mixing(vectors: Floats, labels: Texts, sides: Texts, rng: np.random.Generator) -> dict[str, float]:
    """Side -> mixing of two random halves of that side, called data sets: nothing can be mixed better than that.

    NaN for a side where no label has ten cells.
    """
    found = {}
    for side in np.unique(sides):
        mine = np.flatnonzero(sides == side)
        half: NDArray[np.str_] = rng.permutation(np.resize(["one", "other"], len(mine)))
        try:
            found[str(side)] = cilisi(vectors[mine], labels[mine], half, rng).cilisi_means
        except NotPossible:
            found[str(side)] = float("nan")
    return found


def judge_mixing(crossing: Crossing, embedding: Embedding) -> Findings:
    """Check 3 and 5: mixing within shared labels, beside what two halves of one data set reach."""
    pair = crossing.pair
    labels, sides = pair.joined.labels, pair.side_of
    rng = np.random.default_rng([crossing.settings.seed, 11])
    ceilings = halves_mixing(embedding.vectors, labels, sides, rng)
    ceiling = float(np.nanmean(list(ceilings.values()))) if np.isfinite(list(ceilings.values())).any() else NAN
    found = mixing(embedding.vectors, labels, sides, rng)
    note = "CiLISI of the data sets within shared labels; says nothing without the scores of biology"
    scores = (
        Score("cross_mixing", found.cilisi_means, "cross", note=note, better="neither", n_labels=len(found.labels)),
        Score(
            "cross_mixing_ceiling",
            ceiling,
            "cross",
            status="ok" if np.isfinite(ceiling) else "undefined",
            note="two random halves of one data set, called two; labels under 182 cells of it lower it",
            better="neither",
        ),
    )
    line = {"check": "mixing of two halves", "value": ceiling, "verdict": "ceiling", "note": _shown(ceilings)}
    dealt = f"{found.ceiling:.2f} if the data sets were dealt anew within labels"
    mixed = {"check": "mixing", "value": found.cilisi_means, "verdict": "read beside biology", "note": dealt}
    return Findings(scores, {"overcorrection": [mixed, line]})


def _shown(values: dict[str, float]) -> str:
    return "; ".join(f"{name} {value:.2f}" for name, value in values.items())


def judge_absorbed(crossing: Crossing, embedding: Embedding) -> Findings:
    """Check 1: labels that one side alone has must not vanish into labels of the other.

    Raises
    ------
    NotPossible
        There is no such label.
    """
    lines = absorbed(embedding.vectors, crossing.pair.joined.labels, crossing.pair.side_of)
    if not lines:
        raise NotPossible("every label of five cells is shared: none could be absorbed")
    value = float(np.mean([line["share"] for line in lines]))
    lost = [line for line in lines if line["share"] > MOST_ABSORBED]
    told = ", ".join(f"{line['label']} ({line['side']}) into {line['into']}" for line in lost)
    note = f"absorbed: {told}" if lost else "no label that one side alone has was absorbed"
    cells = sum(line["cells"] for line in lines)
    score = Score("cross_absorbed", value, "cross", note=note, better="lower", n_cells=cells, n_labels=len(lines))
    verdict = "over-corrected" if lost else "fine"
    line = {"check": "labels absorbed", "value": value, "verdict": verdict, "note": note, "labels": lines}
    return Findings((score,), {"overcorrection": [line]})


def judge_within(crossing: Crossing, embedding: Embedding) -> Findings:
    """Check 2: labels of one data set must not lie less apart than before anything was corrected.

    Raises
    ------
    NotPossible
        There is no space without a correction.
    """
    if crossing.before is None:
        raise NotPossible("needs ortholog-pca, the space before any correction, to compare with")
    drops = within_drops(crossing.before, embedding.vectors, crossing.pair.joined.labels, crossing.pair.side_of)
    value = max(before - after for before, after in drops.values())
    note = "; ".join(f"{side} {before:.3f} to {after:.3f}" for side, (before, after) in drops.items())
    score = Score("cross_within_drop", value, "cross", note=f"macro-F1 against ortholog-pca: {note}", better="lower")
    # Vectors of a network never were corrected: what they lack beside components, they lack for another reason.
    corrected = embedding.transductive or embedding.kind == "given"
    high = "over-corrected" if corrected else "labels less apart than in ortholog-pca"
    verdict = high if value > LARGEST_DROP else "fine"
    return Findings(
        (score,), {"overcorrection": [{"check": "labels within", "value": value, "verdict": verdict, "note": note}]}
    )


def judge_structure(crossing: Crossing, embedding: Embedding, *, number: int) -> Findings:
    """Check 4: labels of each data set must lie to each other as its own data say, by scGraph.

    Raises
    ------
    NotPossible
        The data of this side cannot say.
    """
    data = crossing.yardsticks[number]
    if isinstance(data, str):
        raise NotPossible(f"{crossing.pair.sides[number].name}: {data}")
    side = crossing.side(number, embedding.vectors)
    rng = np.random.default_rng([crossing.settings.seed, 12, number])
    null = judge_shuffled(side.vectors, side.labels, data, rng, times=NULLS).weighted
    value = above_null(judge(side.vectors, side.labels, data).weighted, null)
    metric = STRUCTURE[number]
    status: Status = "ok" if np.isfinite(value) else "undefined"
    note = f"scGraph within {side.name}, {len(data.labels)} labels; 0 is labels at random ({null:.2f} before that)"
    score = Score(metric, value, "cross", status=status, note=note, n_labels=len(data.labels))
    line = {"check": f"scGraph within {side.name}", "value": value, "verdict": "read beside ortholog-pca", "note": note}
    return Findings((score,), {"overcorrection": [line]})
