"""In which order cells enter a subset: a permutation for each scheme and seed, of which every subset is a beginning.

So a larger subset holds the smaller ones, and nothing depends on how many cells are asked for.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from uce.corpus.writing import cell_order

BOXES = 0.01  # of a sketch: covering boxes, as a share of the cells (DenAdel et al. 2026)
_NARROWED = 40  # halvings of the side of a box

Order = npt.NDArray[np.int64]


def random_order(seed: int, cells: int) -> Order:
    """(cells,) every cell alike."""
    return cell_order(seed, "subset", cells)


def in_turns(groups: npt.NDArray[Any], order: Order) -> Order:
    """(cells,) `order` again, but one cell of every group in each round, as long as it has any.

    So each beginning has equally many cells of every group, and all of a group that has fewer: what the smaller groups
    leave of their quota is shared by the others.

    Parameters
    ----------
    groups
        (cells,) by cell, not by place in the order.
    """
    _, code = np.unique(groups[order], return_inverse=True)
    together = np.argsort(code, kind="stable")
    counts = np.bincount(code)
    turn = np.empty(len(order), dtype=np.int64)
    turn[together] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return order[np.argsort(turn, kind="stable")]


def boxes(vectors: npt.NDArray[np.floating[Any]], wanted: int) -> Order:
    """(cells,) the box of a grid of equal cubes that each of `vectors` (cells, dim) lies in.

    The side is halved between too many and too few until about `wanted` boxes hold cells: the covering of geometric
    sketching (Hie et al., Cell Systems 2019), which draws boxes alike however many cells they hold.
    """
    apart = vectors - vectors.min(axis=0)
    low, high = 0.0, float(apart.max()) + 1.0
    filled = np.zeros(len(vectors), dtype=np.int64)
    for _ in range(_NARROWED):
        side = (low + high) / 2
        filled = np.unique(np.floor(apart / side), axis=0, return_inverse=True)[1].ravel()
        found = int(filled.max()) + 1
        if found == wanted:
            break
        low, high = (low, side) if found < wanted else (side, high)
    return filled.astype(np.int64)


def spiked(inside: npt.NDArray[np.bool_], order: Order, share: float) -> Order:
    """`order` with cells of `inside` (cells,) at a share of the places, spread evenly; it ends where either run out."""
    given, others = order[inside[order]], order[~inside[order]]
    due = np.floor(np.arange(len(order) + 1) * share + 1e-9).astype(np.int64)
    takes = np.diff(due).astype(bool)
    theirs, ours = np.cumsum(takes), np.cumsum(~takes)
    length = int(np.searchsorted((theirs > len(given)) | (ours > len(others)), True))
    mixed = np.empty(length, dtype=np.int64)
    mixed[takes[:length]] = given[: np.count_nonzero(takes[:length])]
    mixed[~takes[:length]] = others[: np.count_nonzero(~takes[:length])]
    return mixed
