"""Whether cell types lie to each other as they do in the data."""

from dataclasses import asdict
from weakref import WeakKeyDictionary

import numpy as np

from uce.evaluation import scgraph
from uce.evaluation.cells import Cells
from uce.evaluation.context import Context
from uce.evaluation.embeddings import Embedding
from uce.evaluation.results import Family, Findings, Score

METRICS: tuple[tuple[str, Family], ...] = tuple(
    (f"scgraph_{name}", "structure")
    for name in ("weighted", "weighted_above_null", "weighted_cosine", "corr", "rank", "corr_offdiag", "rank_offdiag")
)
YARDSTICK_NOTE = "the yardstick is a PCA of every batch, which favours embeddings that are a PCA"
_NONE = "the distances between labels do not vary, or no label has a distance in the data"

_yardsticks: WeakKeyDictionary[Cells, scgraph.Yardstick] = WeakKeyDictionary()  # the same for every embedding


def run(context: Context, embedding: Embedding) -> Findings:
    """Score by scGraph, by the same with cosines, and above what labels dealt at random get."""
    data, labels = _yardstick(context.cells), context.cells.labels
    plain = scgraph.judge(embedding.vectors, labels, data)
    cosine = scgraph.judge(embedding.vectors, labels, data, metric="cosine")
    null = scgraph.judge_shuffled(embedding.vectors, labels, data, context.rng(104))
    values = asdict(plain) | {
        "weighted_above_null": scgraph.above_null(plain.weighted, null.weighted),
        "weighted_cosine": cosine.weighted,
    }
    n_cells = int(np.isin(labels, data.labels).sum())
    scores = tuple(
        _score(name, values[name.removeprefix("scgraph_")], n_cells, len(data.labels)) for name, _ in METRICS
    )
    return Findings(
        scores,
        {
            "batches": list(data.batches),
            "skipped": [{"batch": batch, "reason": reason} for batch, reason in data.skipped],
            "null": asdict(null),
            "cosine": asdict(cosine),
            "labels": list(data.labels),
            "yardstick": YARDSTICK_NOTE,
        },
    )


def _yardstick(cells: Cells) -> scgraph.Yardstick:
    if cells not in _yardsticks:
        batches = np.full(len(cells), "all cells") if cells.batches is None else cells.batches
        _yardsticks[cells] = scgraph.yardstick(cells.log_counts, cells.labels, batches)
    return _yardsticks[cells]


def _score(name: str, value: float, n_cells: int, n_labels: int) -> Score:
    headline = name == "scgraph_weighted"
    if not np.isfinite(value):
        return Score(
            name, float("nan"), "structure", status="undefined", note=_NONE, n_cells=n_cells, n_labels=n_labels
        )
    note = YARDSTICK_NOTE if headline else ""
    return Score(name, value, "structure", note=note, n_cells=n_cells, n_labels=n_labels, headline=headline)
