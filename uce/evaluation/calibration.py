"""Is a confidence of 0.8 right in 80 % of the cells? And how to make it so, on cells that were held out."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]
BINS = 15


def reliability(
    confidence: Numbers, correct: Flags, *, bins: int = BINS, equal: Literal["width", "mass"] = "width"
) -> list[dict[str, Any]]:
    """Bins of cells by confidence: mean `confidence`, share correct as `accuracy`, `count`; empty bins are left out.

    Parameters
    ----------
    confidence
        (cells,) in 0..1.
    correct
        (cells,) whether the label was right.
    equal
        Bins of equal `width` in confidence, or of equal `mass` of cells.
    """
    if equal == "width":
        number = np.minimum((confidence * bins).astype(int), bins - 1)
    else:
        number = np.empty(len(confidence), int)
        number[np.argsort(confidence, kind="stable")] = np.arange(len(confidence)) * bins // max(1, len(confidence))
    return [
        {
            "confidence": float(confidence[number == b].mean()),
            "accuracy": float(correct[number == b].mean()),
            "count": int((number == b).sum()),
        }
        for b in np.unique(number)
    ]


def ece(confidence: Numbers, correct: Flags, *, bins: int = BINS, equal: Literal["width", "mass"] = "width") -> float:
    """Expected calibration error: mean |confidence - accuracy| of bins, weighted by their cells (Guo et al. 2017)."""
    lines = reliability(confidence, correct, bins=bins, equal=equal)
    return float(
        sum(abs(line["confidence"] - line["accuracy"]) * line["count"] for line in lines) / max(1, len(confidence))
    )


def classwise_ece(probabilities: Numbers, codes: NDArray[np.int64], *, bins: int = BINS) -> float:
    """Mean over the classes of the equal-mass ECE of each class's probability (Nixon et al. 2019)."""
    return float(
        np.mean([ece(column, codes == c, bins=bins, equal="mass") for c, column in enumerate(probabilities.T)])
    )


def brier(probabilities: Numbers, codes: NDArray[np.int64]) -> float:
    """Mean squared distance between the probabilities and the truth, summed over the classes (0 best, 2 worst)."""
    return float(np.mean(((probabilities - np.eye(probabilities.shape[1])[codes]) ** 2).sum(axis=1)))


def log_loss(probabilities: Numbers, codes: NDArray[np.int64]) -> float:
    """Mean -log of the probability of the true class, which counts as 1e-3 at least."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(codes)), codes], 1e-3)).mean())


def fit_temperature(probabilities: Numbers, codes: NDArray[np.int64]) -> float:
    """The temperature T that makes softmax(log p / T) likeliest for the true classes of held-out cells."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_t: log_loss(with_temperature(probabilities, float(np.exp(log_t))), codes),
        bounds=(np.log(0.05), np.log(20)),
        method="bounded",
    )
    return float(np.exp(found.x))


def with_temperature(probabilities: Numbers, temperature: float) -> Numbers:
    """softmax(log p / T), rows sum to 1; the order of the classes stays."""
    from scipy.special import softmax

    return np.asarray(softmax(np.log(np.maximum(probabilities, 1e-12)) / temperature, axis=1))


def fit_isotonic(confidence: Numbers, correct: Flags) -> Callable[[Numbers], Numbers]:
    """A rising step function from the confidence of held-out cells to the share of them that is right.

    It stays 1 / (cells + 1) away from 0 and 1: so many cells cannot tell that none would ever be wrong.
    """
    from sklearn.isotonic import IsotonicRegression

    least = 1 / (len(confidence) + 1)
    fitted = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip").fit(
        confidence, correct.astype(float)
    )
    return lambda values: np.asarray(fitted.predict(values), dtype=np.float64)


def with_confidence(probabilities: Numbers, confidence: Numbers) -> Numbers:
    """The probabilities with `confidence` (cells,) for the likeliest class, the rest shared among the others."""
    best = probabilities.argmax(axis=1)
    others = probabilities + 1e-9
    others[np.arange(len(best)), best] = 0
    others *= ((1 - confidence) / np.maximum(others.sum(axis=1), 1e-300))[:, None]
    others[np.arange(len(best)), best] = confidence
    return others


def coverage_curve(confidence: Numbers, correct: Flags) -> tuple[Numbers, Numbers]:
    """(coverage, accuracy) of the most confident cells, for every number of them; equal confidence enters together."""
    order = np.argsort(-confidence, kind="stable")
    right, far = np.cumsum(correct[order]), np.arange(1, len(order) + 1)
    ends = np.append(np.diff(confidence[order]) != 0, True)
    return (far / len(order))[ends], (right / far)[ends]


def coverage_area(confidence: Numbers, correct: Flags) -> float:
    """Area under accuracy by coverage: its mean over all numbers of most confident cells (Geifman et al. 2019).

    Cells of equal confidence come in any order: each counts as the share of them that is right.
    """
    _, level, size = np.unique(-confidence, return_inverse=True, return_counts=True)
    share = np.bincount(level, correct) / size
    return float((np.cumsum(share[np.sort(level)]) / np.arange(1, len(level) + 1)).mean())


def coverage_at(confidence: Numbers, correct: Flags, accuracy: float = 0.95) -> float:
    """The largest share of cells, taken by falling confidence, of which `accuracy` is right; 0 if there is none."""
    coverage, reached = coverage_curve(confidence, correct)
    return float(coverage[reached >= accuracy].max(initial=0.0))
