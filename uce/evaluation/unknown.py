"""Which cells are of no label that the training cells have: scores that should be high for them, and thresholds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.cells import Texts
from uce.evaluation.probes import Votes

Numbers = NDArray[np.float64]
SHARE = 0.05
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


def label_quantiles(
    values: Numbers, labels: Texts, share: float = SHARE, *, at_least: int = _LEAST
) -> tuple[dict[str, float], float]:
    """The value that a `share` of held-out cells exceeds, for each label with `at_least` cells, and over all cells.

    Conformal: the ceil((n + 1)(1 - share))-th smallest of n values, so that a further cell of the same distribution
    exceeds it with a probability of `share` at most (Vovk et al. 2005); infinite where n is too small for that.
    """
    pooled = _conformal(values, share)
    names, times = np.unique(labels, return_counts=True)
    return {str(n): _conformal(values[labels == n], share) for n in names[times >= at_least]}, pooled


def _conformal(values: Numbers, share: float) -> float:
    rank = int(np.ceil((len(values) + 1) * (1 - share)))
    return float(np.sort(values)[rank - 1]) if 0 < rank <= len(values) else float("inf")


@dataclass(frozen=True)
class Thresholds:
    """Above which a score makes a cell unknown.

    Attributes
    ----------
    by_label
        For the predicted label, where it had enough held-out cells.
    pooled
        For all others.
    share
        Of held-out, rightly labelled cells that are called unknown.
    """

    by_label: dict[str, float]
    pooled: float
    share: float

    def unknown(self, scores: Numbers, predicted: Texts) -> NDArray[np.bool_]:
        """(cells,) whether a cell with this score and this predicted label is called unknown."""
        return np.asarray(scores > self.of(predicted))

    def of(self, predicted: Texts) -> Numbers:
        """(cells,) the threshold that applies."""
        return np.asarray([self.by_label.get(str(label), self.pooled) for label in predicted], dtype=np.float64)


def choose_thresholds(
    scores: Numbers, predicted: Texts, correct: NDArray[np.bool_], share: float = SHARE
) -> Thresholds:
    """Thresholds at which a `share` of the held-out cells that were labelled rightly is called unknown."""
    by_label, pooled = label_quantiles(scores[correct], predicted[correct], share)
    return Thresholds(by_label, pooled, share)


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
