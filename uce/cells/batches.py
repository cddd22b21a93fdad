"""Cells grouped into batches of equal length, so that no batch holds padding."""

from typing import Any

import numpy as np
import numpy.typing as npt


def length_batches(
    lengths: npt.NDArray[np.integer[Any]], *, max_tokens: int, max_cells: int
) -> list[npt.NDArray[np.int64]]:
    """Positions of the cells of each batch; every cell with a length above 0 is in exactly one.

    All cells of a batch have the same length. Longest first, so that a batch too large for the memory fails at once;
    within a length the cells keep their order. A pure function of its arguments.

    Parameters
    ----------
    lengths
        (cells,) tokens of each sentence; cells of length 0 are in no batch.
    max_tokens
        Most tokens in a batch; a longer sentence is a batch by itself.
    max_cells
        Most cells in a batch.
    """
    if max_tokens < 1 or max_cells < 1:
        msg = f"max_tokens={max_tokens}, max_cells={max_cells}; give whole numbers from 1."
        raise ValueError(msg)
    lengths = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-lengths, kind="stable").astype(np.int64)
    order = order[lengths[order] > 0]
    groups = np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1)
    batches = []
    for group in groups:
        size = max(1, min(max_cells, max_tokens // int(lengths[group[0]]))) if len(group) else 1
        batches += [group[first : first + size] for first in range(0, len(group), size)]
    return batches
