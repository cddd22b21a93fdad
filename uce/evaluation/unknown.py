"""Which cells are of no label that the training cells have: scores that should be high for them."""

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.cells import Texts
from uce.evaluation.probes import Votes

Numbers = NDArray[np.float64]
_LEAST = 20  # cells of a label for a percentile of its own


def vote_scores(votes: Votes) -> dict[str, Numbers]:
    """`doubt` (1 - the top probability), `entropy` (nats) and `margin` (1 - top + second) of cells; high: unknown."""
    from scipy.special import entr

    ordered = np.sort(votes.probabilities, axis=1)
    second = ordered[:, -2] if ordered.shape[1] > 1 else np.zeros(len(ordered))
    return {
        "doubt": 1 - ordered[:, -1],
        "entropy": np.asarray(entr(votes.probabilities).sum(axis=1)),
        "margin": 1 - ordered[:, -1] + second,
    }


def relative_distance(distances: Numbers, predicted: Texts, held_out: Numbers, labels: Texts) -> Numbers:
    """Distance to the k-th neighbour over the 95th percentile of it among training cells of the predicted label.

    Parameters
    ----------
    distances, predicted
        (cells,) of the cells in question.
    held_out, labels
        (training cells,) the same distance of training cells to training cells of other groups, and their labels.
        Labels with fewer than 20 such cells take the percentile of all; without any, the distances stay as they are.
    """
    if not len(held_out):
        return distances
    pooled = float(np.quantile(held_out, 0.95))
    names, times = np.unique(labels, return_counts=True)
    usual = {str(n): float(np.quantile(held_out[labels == n], 0.95)) for n in names[times >= _LEAST]}
    scale = np.asarray([usual.get(str(label), pooled) for label in predicted])
    return np.asarray(distances / np.maximum(scale, 1e-12))
