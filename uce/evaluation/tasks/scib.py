"""The scIB table: whether biology is kept and batches are mixed."""

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from uce.evaluation.baselines import pca
from uce.evaluation.cells import Cells
from uce.evaluation.context import Context, Settings
from uce.evaluation.embeddings import Embedding, Floats
from uce.evaluation.neighbors import find_neighbors
from uce.evaluation.results import Findings, NotPossible
from uce.evaluation.scib import METRICS, NEIGHBORS, large_labels, need_package, scib_table
from uce.evaluation.scib_process import Worker

__all__ = ["METRICS", "run"]

# One process serves all embeddings of an evaluation, and ends when its settings are let go.
_workers: "WeakKeyDictionary[Settings, Worker]" = WeakKeyDictionary()
_before: "WeakKeyDictionary[Cells, Floats | str]" = WeakKeyDictionary()


def run(context: Context, embedding: Embedding) -> Findings:
    """The scIB table of an embedding."""
    need_package()
    rows, small = large_labels(context.cells.labels)
    before = _before_integration(context)
    if len(rows) < len(context.cells):
        cells, vectors = context.cells.take(rows), embedding.vectors[rows]
        neighbors = find_neighbors(vectors, NEIGHBORS)
        before = before if isinstance(before, str) else before[rows]
    else:
        cells, vectors, neighbors = context.cells, embedding.vectors, context.neighbors(embedding, NEIGHBORS)
    worker = _workers.setdefault(context.settings, Worker(context.settings.threads))
    table = scib_table(vectors, cells.labels, cells.batches, neighbors, worker, before=before)
    return Findings(table.scores, {**table.details, "left_out": small, "notes": _notes(vectors, small)})


def _before_integration(context: Context) -> Floats | str:
    """Principal components of the counts, or why there are none; found once for all embeddings."""
    if context.cells not in _before:
        try:
            _before[context.cells] = pca.embed(context.cells, None, context.settings.seed)
        except NotPossible as reason:
            _before[context.cells] = str(reason)
    return _before[context.cells]


def _notes(vectors: Floats, small: list[dict[str, Any]]) -> list[str]:
    notes = []
    if small:
        names = ", ".join(f"{entry['label']} ({entry['cells']})" for entry in small)
        notes.append(f"left out, as they have fewer than 10 cells: {names}")
    copies = len(vectors) - _distinct(vectors)
    if copies:
        notes.append(f"{copies} of {len(vectors)} vectors are copies of another")
    return notes


def _distinct(vectors: Floats) -> int:
    plain = np.ascontiguousarray(vectors + np.float32(0))  # -0 and 0 are one number
    return len(np.unique(plain.view(np.dtype((np.void, plain.dtype.itemsize * plain.shape[1])))))
