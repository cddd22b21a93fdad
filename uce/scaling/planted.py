"""Learning curves whose truth is known, and what each statistic makes of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from uce.scaling.fits import Floats, Shape, gain, predict
from uce.scaling.saturation import SHARE, corrected_point, published_point
from uce.scaling.verdicts import judge

DOUBLING = 500 * 2.0 ** np.arange(8)  # sizes of a study of ours, in cells
PUBLISHED = np.array([1, 10, 25, 50, 75, 100]) * 10_000.0  # shares of 1, 10, 25, ... 100 %
QUARTER = 0.25  # of the data: what was published is a saturation at this or less


@dataclass(frozen=True)
class Truth:
    """A curve and the noise of its runs.

    Attributes
    ----------
    shape, parameters
        As in `uce.scaling.fits`, x being the size over the smallest of `sizes`.
    noise
        Standard deviation of a run about the curve, and of what the runs of one seed have in common.
    floor
        Score of the untrained encoder.
    """

    name: str
    shape: Shape
    parameters: tuple[float, float, float]
    noise: float
    sizes: tuple[float, ...] = tuple(DOUBLING)
    seeds: int = 5
    floor: float = 0.5

    @property
    def curve(self) -> Floats:
        """(K,) true scores."""
        x = np.array(self.sizes) / self.sizes[0]
        return predict(self.shape, np.array(self.parameters), x)

    @property
    def gain(self) -> float:
        """True gain per doubling at the largest size."""
        return float(gain(self.shape, np.array(self.parameters), self.sizes[-1] / self.sizes[0]))

    @property
    def point(self) -> float | None:
        """The size by which a plateau has 95 % of its height above the untrained encoder; None of a rise without end.

        Inside the sizes it is one of them, the next above.
        """
        if self.shape == "log":
            return None
        enough = self.curve - self.floor >= SHARE * (self.parameters[0] - self.floor)
        return self.sizes[int(np.argmax(enough))] if enough.any() else None

    def draw(self, random: np.random.Generator) -> Floats:
        """(seeds, K) scores of a study."""
        common = random.standard_normal((self.seeds, 1))
        return self.curve + self.noise * (common + random.standard_normal((self.seeds, len(self.sizes))))


def _log(start: float, decade: float, noise: float, **others: Any) -> Truth:
    """A rise by `decade` for ten times the data."""
    name = f"log-linear from {start:.2f}, {decade:+.3f} a decade"
    return Truth(name, "log", (start, decade / np.log(10), 0.0), noise, **others)


def _plateau(top: float, depth: float, power: float, noise: float) -> Truth:
    name = f"plateau {top:.2f} - {depth:.2f} x^-{power:g}"
    return Truth(name, "plateau", (top, depth, power), noise)


def _flat(level: float, noise: float) -> Truth:
    return Truth(f"flat at {level:.2f}", "flat", (level, 0.0, 0.0), noise)


TRUTHS = (
    _log(0.80, 0.015, 0.005, sizes=tuple(PUBLISHED)),
    _log(0.80, 0.020, 0.020, sizes=tuple(PUBLISHED)),
    _log(0.60, 0.010, 0.005, sizes=tuple(PUBLISHED)),
    *(_log(0.60, decade, noise) for decade in (0.010, 0.020, 0.050) for noise in (0.005, 0.010, 0.020)),
    *(_plateau(0.80, 0.10, 1.0, noise) for noise in (0.005, 0.010, 0.020)),
    *(_plateau(0.80, 0.20, 1.0, noise) for noise in (0.005, 0.010, 0.020)),
    _plateau(0.80, 0.10, 0.5, 0.005),
    *(_flat(0.70, noise) for noise in (0.005, 0.010, 0.020)),
)


@dataclass(frozen=True)
class Outcome:
    """What came of many studies of one truth; shares of them.

    Attributes
    ----------
    published, corrected
        Called saturated at a quarter of the data or less, by the published point, and by verdict and corrected point.
    saturated, growing, undetermined
        The verdicts.
    shape
        The true shape was chosen.
    held
        The limits of the gain hold the true one.
    near
        Of the studies called saturated: the corrected point is the true one, or a step of the sizes from it. NaN where
        there is no true one, or no such study.
    """

    published: float
    corrected: float
    saturated: float
    growing: float
    undetermined: float
    shape: float
    held: float
    near: float


def try_truth(truth: Truth, *, repeats: int, seed: int = 0) -> Outcome:
    """Draw a truth many times, and apply both statistics."""
    random = np.random.Generator(np.random.PCG64(seed))
    sizes = np.array(truth.sizes)
    early = QUARTER * sizes[-1]
    words, points, corrected, shapes, held = [], [], [], [], []
    for _ in range(repeats):
        scores = truth.draw(random)
        verdict = judge(sizes, scores, floor=truth.floor)
        words.append(verdict.word)
        shapes.append(verdict.choice is not None and verdict.choice.shape == truth.shape)
        held.append(verdict.lower <= truth.gain <= verdict.upper)
        points.append(published_point(sizes, scores))
        corrected.append(corrected_point(sizes, scores, verdict, floor=truth.floor))
    found = [point for point in corrected if point is not None]
    return Outcome(
        published=float(np.mean(np.array(points) <= early)),
        corrected=sum(point <= early for point in found) / repeats,
        saturated=words.count("saturated") / repeats,
        growing=words.count("still growing") / repeats,
        undetermined=words.count("undetermined") / repeats,
        shape=float(np.mean(shapes)),
        held=float(np.mean(held)),
        near=_near(sizes, found, truth.point),
    )


def _near(sizes: Floats, found: list[float], true: float | None) -> float:
    if true is None or not found:
        return float("nan")
    steps = np.searchsorted(sizes, found) - np.searchsorted(sizes, true)
    return float(np.mean(np.abs(steps) <= 1))


def planted_table(truths: tuple[Truth, ...] = TRUTHS, *, repeats: int = 500, seed: int = 0) -> str:
    """Markdown: a row per truth, what each statistic makes of it in `repeats` studies of five seeds."""
    head = (
        "| truth | gain a doubling | sizes | noise | published: saturated at <= 25 % | corrected: the same | saturated "
        "| still growing | undetermined | shape found | limits hold | point within a step |\n" + "|---" * 12 + "|"
    )
    lines = [head]
    for truth in truths:
        outcome = try_truth(truth, repeats=repeats, seed=seed)
        shares = [
            f"{value:.0%}" if np.isfinite(value) else ""
            for value in (
                outcome.published,
                outcome.corrected,
                outcome.saturated,
                outcome.growing,
                outcome.undetermined,
                outcome.shape,
                outcome.held,
                outcome.near,
            )
        ]
        lines.append(
            " | ".join([f"| {truth.name}", f"{truth.gain:.4f}", str(len(truth.sizes)), f"{truth.noise:g}", *shares])
            + " |"
        )
    return "\n".join(lines)
