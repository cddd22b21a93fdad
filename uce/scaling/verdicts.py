"""Is a learning curve still rising? Said in one word, by the interval of the gain per doubling of the data.

"saturated" is said only if the upper 95 % limit of the gain per doubling is below a declared margin, "still growing"
only if the lower limit is above nothing, and "undetermined" otherwise. The limits are those of a t interval over seeds,
each with a fit of its own: resampling a handful of seeds gives intervals that are far too short.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from uce.scaling.fits import Choice, Floats, Shape, choose, fit, gain, seed_weights

Word: TypeAlias = Literal["saturated", "still growing", "undetermined"]
# Fixed with the planted curves of docs/results/scaling.md, which has what they give there.
MARGIN = 0.005  # of the score, per doubling
FEWEST_SIZES, FEWEST_SEEDS, FEWEST_UNITS = 5, 3, 5
FARTHEST = 4.0  # times the largest size: nothing is said of more data than that
_DRAWS = 2000


@dataclass(frozen=True)
class Verdict:
    """What a curve shows.

    Attributes
    ----------
    word
        The verdict.
    why
        In a few words, for people.
    choice
        The shape; None where there are too few runs to say anything.
    gain, lower, upper
        Of the score per doubling at the largest size, and its 95 % limits over seeds. Where two shapes are possible,
        the limits hold for both.
    over_units
        95 % limits over what was evaluated on (datasets or donors), None where these are too few.
    n95
        Size at which 95 % of all that training can bring is reached, of a plateau alone; None where it lies beyond four
        times the largest size.
    """

    word: Word
    why: str
    choice: Choice | None = None
    gain: float = float("nan")
    lower: float = float("nan")
    upper: float = float("nan")
    over_units: tuple[float, float] | None = None
    n95: float | None = None

    @property
    def told(self) -> str:
        """The word for a table; a curve that falls is saturated by the rule, which is not all that is to be said."""
        return f"{self.word} (falls)" if self.upper < 0 else self.word


def judge(
    sizes: Floats, scores: Floats, *, floor: float, units: Floats | None = None, margin: float = MARGIN, seed: int = 0
) -> Verdict:
    """Judge the curve of several seeds.

    Parameters
    ----------
    sizes
        (K,) sizes, rising.
    scores
        (seeds, K), NaN where a run is missing. A seed takes part where all its sizes are there, or all but one.
    floor
        What is had without training: the score of the untrained encoder, or chance where that is higher.
    units
        (seeds, K, units) scores of single datasets or donors, whose means are `scores`.
    seed
        Of the resampling of units.
    """
    sizes, scores, units, short = _usable(sizes, scores, units)
    if len(sizes) < FEWEST_SIZES or len(scores) < FEWEST_SEEDS:
        why = f"{len(sizes)} sizes and {len(scores)} seeds, where {FEWEST_SIZES} and {FEWEST_SEEDS} are the fewest"
        return Verdict("undetermined", why + short)
    x = sizes / sizes[0]
    choice = choose(x, scores)
    gains = {shape: seed_gains(shape, x, scores) for shape in choice.possible}
    limits = {shape: t_interval(values) for shape, values in gains.items()}
    lower, upper = min(low for low, _ in limits.values()), max(high for _, high in limits.values())
    middle = float(np.mean([values.mean() for values in gains.values()]))
    endless = "log" in limits and limits["log"][0] > 0  # growth that does not end, however slow
    word: Word = "saturated" if upper < margin and not endless else "still growing" if lower > 0 else "undetermined"
    over = unit_interval(choice.possible, x, units, seed=seed) if units is not None else None
    n95 = reached_at(x, scores, floor=floor) if choice.shape == "plateau" else None
    why = f"{choice.shape}; {middle:+.4f} a doubling ({lower:+.4f} to {upper:+.4f}), margin {margin:g}{short}"
    return Verdict(word, why, choice, middle, lower, upper, over, n95 * float(sizes[0]) if n95 else None)


def _usable(sizes: Floats, scores: Floats, units: Floats | None) -> tuple[Floats, Floats, Floats | None, str]:
    """Sizes with a run, seeds with a curve to fit, and a clause on the other seeds."""
    there = np.isfinite(scores).any(axis=0)
    whole = np.count_nonzero(np.isnan(scores[:, there]), axis=1) <= 1
    short = f"; {int((~whole).sum())} seeds have too few runs" if not whole.all() else ""
    kept = units[whole][:, there] if units is not None else None
    return sizes[there], scores[whole][:, there], kept, short


def seed_gains(shape: Shape, x: Floats, scores: Floats) -> Floats:
    """(..., seeds) gain per doubling at the largest size, of a fit to each curve of `scores` (..., seeds, K) by itself.

    Points count alike: weights that several seeds share would make their fits depend on each other.
    """
    fitted = np.empty((*scores.shape[:-1], 3))
    for place in range(scores.shape[-2]):
        curves = scores[..., place, :]
        there = np.isfinite(curves).reshape(-1, len(x)).all(axis=0)
        fitted[..., place, :] = fit(shape, x[there], curves[..., there], np.ones(int(there.sum())))
    return gain(shape, fitted, float(x[-1]))


def t_interval(values: Floats) -> tuple[float, float]:
    """95 % limits of the mean of (n,) values."""
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def unit_interval(shapes: tuple[Shape, ...], x: Floats, units: Floats, *, seed: int) -> tuple[float, float] | None:
    """95 % limits of the mean gain when the units (seeds, K, units) are drawn anew, all curves fitted every time.

    None where the units are too few for that. All seeds and sizes have the same units in a draw.
    """
    count = units.shape[-1]
    if count < FEWEST_UNITS:
        return None
    drawn = np.random.Generator(np.random.PCG64(seed)).integers(0, count, (_DRAWS, count))
    means = np.stack([units[..., which].mean(axis=-1) for which in drawn])
    limits = [np.quantile(seed_gains(shape, x, means).mean(axis=-1), [0.025, 0.975]) for shape in shapes]
    return float(min(low for low, _ in limits)), float(max(high for _, high in limits))


def reached_at(x: Floats, scores: Floats, *, floor: float) -> float | None:
    """Where, in x, the plateau of the seeds' mean has risen by 95 % of its height above `floor`; up to four times x.

    At a flat curve or where the plateau is not above `floor` there is no such size.
    """
    means = np.nanmean(scores, axis=0)
    top, depth, power = fit("plateau", x, means, seed_weights(scores)).tolist()
    height = top - floor
    if depth <= 0 or height <= 0:
        return None
    found = float((depth / (0.05 * height)) ** (1 / power))
    return found if found <= FARTHEST * x[-1] else None
