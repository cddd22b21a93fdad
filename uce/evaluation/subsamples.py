"""Which cells stand for many: a draw that keeps rare labels and batches."""

import numpy as np
from numpy.typing import NDArray


def stratified(
    labels: NDArray[np.str_], batches: NDArray[np.str_], size: int, rng: np.random.Generator, *, least: int = 50
) -> NDArray[np.int64]:
    """Positions of about `size` cells, sorted: each batch and label with its share, and `least` cells or all of it.

    Cells of common strata make room for the rare ones.
    """
    if len(labels) <= size:
        return np.arange(len(labels))
    strata = np.unique(np.char.add(np.char.add(batches, "\n"), labels), return_inverse=True)[1]
    sizes = np.bincount(strata)
    floor = np.minimum(sizes, min(least, max(1, size // len(sizes))))
    spare = sizes - floor
    wanted = floor + np.floor(spare * max(0, size - floor.sum()) / max(1, spare.sum())).astype(np.int64)
    order = rng.permutation(len(labels))
    order = order[np.argsort(strata[order], kind="stable")]
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    drawn = order[rank < np.repeat(wanted, sizes)]
    if len(drawn) > size:  # more strata than cells that are wanted
        drawn = rng.choice(drawn, size, replace=False)
    return np.sort(drawn)
