"""Three shapes of a learning curve, which of them the runs show, and what the next doubling of the data would bring.

Everything is a function of sizes (K,) and of scores (seeds, K), NaN where a run is missing. x is a size over the
smallest one, and a shape has three parameters: flat is a; log is a + b ln x; plateau is a - b x^-c with b >= 0.
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Shape: TypeAlias = Literal["flat", "log", "plateau"]
SHAPES: tuple[Shape, ...] = ("flat", "log", "plateau")
POWERS = np.arange(1, 61) * 0.05  # c of a plateau
CLEAR = 2.0  # AICc by which one shape is better than another (Burnham and Anderson 2002)
_COUNTS: dict[Shape, int] = {"flat": 1, "log": 2, "plateau": 3}  # parameters


def fit(shape: Shape, x: Floats, y: Floats, weights: Floats) -> Floats:
    """(..., 3) parameters a, b, c of curves `y` (..., K) by weighted least squares.

    A plateau is found by the best c of a grid, each by linear least squares; one that would fall is made flat.

    Parameters
    ----------
    x, weights
        (K,) of the points of all curves.
    """
    flat = np.average(y, axis=-1, weights=weights)
    nothing = np.zeros_like(flat)
    if shape == "flat":
        return np.stack([flat, nothing, nothing], axis=-1)
    if shape == "log":
        start, slope = _line(np.log(x), y, weights)
        return np.stack([start, slope, nothing], axis=-1)
    candidates = []
    for power in POWERS.tolist():
        top, depth = _line(-(x**-power), y, weights)
        top, depth = np.where(depth < 0, flat, top), np.maximum(depth, 0)
        candidates.append(np.stack([top, depth, np.full_like(flat, power)], axis=-1))
    tried = np.stack(candidates)
    best = np.argmin(_misfit("plateau", tried, x, y, weights), axis=0)
    chosen: Floats = np.take_along_axis(tried, best[None, ..., None], axis=0)[0]
    return chosen


def _line(u: Floats, y: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weighted least squares of y on a constant and u: (...,) both coefficients."""
    middle = np.average(u, weights=weights)
    pull = weights * (u - middle)
    slope: Floats = y @ pull / (pull @ (u - middle))
    return np.average(y, axis=-1, weights=weights) - slope * middle, slope


def predict(shape: Shape, parameters: Floats, x: Floats) -> Floats:
    """(..., n) values at `x` (n,) of shapes with parameters (..., 3)."""
    a, b, c = (parameters[..., place, None] for place in range(3))
    bent: Floats = -(x**-c) if shape == "plateau" else np.log(x)
    values: Floats = a + b * bent
    return values


def gain(shape: Shape, parameters: Floats, x: float) -> Floats:
    """(...,) slope of the curve at `x` per doubling of the data."""
    a, b, c = (parameters[..., place] for place in range(3))
    slope: Floats = (b * c * x**-c if shape == "plateau" else b + 0 * a) * np.log(2)
    return slope


def _misfit(shape: Shape, parameters: Floats, x: Floats, y: Floats, weights: Floats) -> Floats:
    misfit: Floats = (y - predict(shape, parameters, x)) ** 2 @ weights
    return misfit


@dataclass(frozen=True)
class Choice:
    """Which shape the means over seeds have.

    Attributes
    ----------
    shape
        "undetermined" where log and plateau cannot be told apart.
    aicc
        Akaike's criterion of each shape, with the correction for few points; lower is better.
    missed
        By how much each shape, fitted to the other sizes, misses the mean of the largest.
    """

    shape: Shape | Literal["undetermined"]
    aicc: dict[Shape, float]
    missed: dict[Shape, float]

    @property
    def possible(self) -> tuple[Shape, ...]:
        """Shapes whose slope must be reckoned with: of flat curves that of a line, which need not be nothing."""
        if self.shape == "undetermined":
            return ("log", "plateau")
        return ("plateau",) if self.shape == "plateau" else ("log",)


def seed_weights(scores: Floats) -> Floats:
    """(K,) 1 / variance of the mean over seeds at each size, without what a seed has in common at all sizes.

    A variance of few seeds is itself noisy, so each is drawn half-way to the mean of all sizes.
    """
    seeds = np.count_nonzero(np.isfinite(scores), axis=0)
    rest = scores - np.nanmean(scores, axis=0)
    rest = rest - np.nanmean(rest, axis=1, keepdims=True)
    free = max(1, int(np.isfinite(rest).sum()) - scores.shape[0] - scores.shape[1] + 1)
    squares: Floats = np.nansum(rest**2, axis=0)
    pooled = max(float(squares.sum()) / free, 1e-12)
    weights: Floats = seeds / (0.5 * squares * scores.shape[1] / free + 0.5 * pooled)
    return weights


def choose(x: Floats, scores: Floats) -> Choice:
    """Choose a shape: better by 2 in AICc, and nearer to the largest size when that is left out.

    A curve is flat until another shape is better in both. Runs are the points of the criterion: their likelihood is
    that of the means times what no shape changes.
    """
    means, weights = np.nanmean(scores, axis=0), seed_weights(scores)
    runs = int(np.count_nonzero(np.isfinite(scores)))
    aicc: dict[Shape, float] = {}
    missed: dict[Shape, float] = {}
    for shape in SHAPES:
        count = _COUNTS[shape]
        misfit = float(_misfit(shape, fit(shape, x, means, weights), x, means, weights))
        aicc[shape] = misfit + 2 * count + 2 * count * (count + 1) / max(runs - count - 1, 1)
        before = fit(shape, x[:-1], means[:-1], weights[:-1])
        missed[shape] = float(abs(predict(shape, before, x[-1:])[0] - means[-1]))
    return Choice(_chosen(aicc, missed), aicc, missed)


def _chosen(aicc: dict[Shape, float], missed: dict[Shape, float]) -> Any:
    def beats(one: Shape, other: Shape) -> bool:
        return aicc[one] < aicc[other] - CLEAR and missed[one] < missed[other]

    rising = [shape for shape in ("log", "plateau") if aicc[shape] < aicc["flat"] - CLEAR]
    if not rising:
        return "flat"
    if beats("log", "plateau"):
        return "log"
    return "plateau" if beats("plateau", "log") else "undetermined"
