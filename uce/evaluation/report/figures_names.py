"""Names of points in a picture: beside their points where there is room, or in the right margin; none on another."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.report.figures import INK, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, float, str, str]
"""Where (x, y), the name, and the colour of the line that leads to it."""
_LETTERS = 7
_GAP = 7.0
"""Points of length between the middle of a marker and its name."""
_AIR = np.array([-3.0, -1.0, 3.0, 1.0])
"""Room around a name, and inside the frame."""
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1), (2, 1), (2, -1), (-2, 1), (-2, -1))
_RINGS = (1.0, 1.5, 2.2, 3.0, 4.0, 5.4, 7.6, 10.0)

# (left, bottom, right, top)
_Box = NDArray[np.float64]


def near_labels(axes: "Axes", points: Sequence[Point]) -> None:
    """Write names beside their points; one that has to stand further away is tied to its point by a fine line.

    The most crowded points choose first. Of the places around a point each takes the one where its name and its line
    cover least of what is there, and then the nearest. Limits of the axes must be final.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # settles the layout, and so where on the paper the points are
    scale = figure.dpi / 72
    spots = axes.transData.transform([(x, y) for x, y, _, _ in points])
    frame = np.asarray(axes.bbox.extents) - scale * _AIR
    sheet = _Sheet(frame, spots, 5 * scale, [], [])
    crowd = (np.linalg.norm(spots[:, None] - spots[None], axis=2) < 60 * scale).sum(axis=1)
    for place in np.argsort(-crowd, kind="stable").tolist():
        x, y, name, colour = points[place]
        text = axes.annotate(short(name, 20), (x, y), (0, 0), textcoords="offset points", fontsize=_LETTERS, color=INK)
        text.set_in_layout(False)
        size = np.array([text.get_window_extent().width, text.get_window_extent().height])
        around = [_at(spots[place], size, side, ring * _GAP * scale) for ring in _RINGS for side in _SIDES]
        best = min(around, key=partial(sheet.cost, place))
        text.set_position(tuple((best[:2] - spots[place]) / scale))
        sheet.names.append(best + scale * _AIR)
        line = _line(spots[place], best)
        if _length(line) > 1.6 * _GAP * scale:
            sheet.lines.append(line)
            axes.plot(*axes.transData.inverted().transform(line.reshape(2, 2)).T, color=colour, lw=0.5, zorder=1)


@dataclass(frozen=True, eq=False)
class _Sheet:
    """What is on the paper: its frame, points (with half the width of a marker), names, and the lines to them."""

    frame: _Box
    spots: NDArray[np.float64]
    half: float
    names: list[_Box]
    lines: list[_Box]

    def cost(self, place: int, box: _Box) -> float:
        """How bad a box is for the name of a point: what it and its line cover, then how far it is.

        Worst is to cover a name, a point or the frame; then to cross a line; then to be nearer to another point.
        """
        line = _line(self.spots[place], box)
        others = np.delete(self.spots, place, axis=0)
        markers = [np.concatenate([spot - self.half, spot + self.half]) for spot in others]
        outside = bool((box[:2] < self.frame[:2]).any() or (box[2:] > self.frame[2:]).any())
        hidden = outside + sum(_overlap(box, other) for other in [*self.names, *markers])
        crossed = sum(_crosses(line, other) for other in [*self.names, *markers])
        crossed += sum(_crosses(other, box) + _meet(line, other) for other in self.lines)
        nearer = sum(_length(_line(spot, box)) < _length(line) + self.half for spot in others)
        return 4000.0 * hidden + 800.0 * crossed + 25.0 * nearer + _length(line)


def _at(spot: _Box, size: _Box, side: tuple[int, int], far: float) -> _Box:
    """The box of a name on one side of a point."""
    low = spot + far * np.array(side) / np.hypot(*side) + size * (np.sign(side) - 1) / 2
    return np.concatenate([low, low + size])


def _line(spot: _Box, box: _Box) -> _Box:
    """From a point to the nearest place of the box of its name."""
    return np.concatenate([spot, np.clip(spot, box[:2], box[2:])])


def _length(line: _Box) -> float:
    return float(np.hypot(*(line[2:] - line[:2])))


def _overlap(one: _Box, two: _Box) -> bool:
    return bool((one[:2] < two[2:]).all() and (two[:2] < one[2:]).all())


def _crosses(line: _Box, box: _Box) -> bool:
    """Whether a line runs through a box."""
    along = line[:2] + np.linspace(0, 1, 33)[:, None] * (line[2:] - line[:2])
    return bool(((along > box[:2]) & (along < box[2:])).all(axis=1).any())


def _meet(one: _Box, two: _Box) -> bool:
    """Whether two lines cross."""
    return _apart(one, two[:2], two[2:]) and _apart(two, one[:2], one[2:])


def _apart(line: _Box, first: _Box, second: _Box) -> bool:
    """Whether two points lie on different sides of a line."""
    (a, b), along = line[:2], line[2:] - line[:2]
    sides = [along[0] * (point[1] - b) - along[1] * (point[0] - a) for point in (first, second)]
    return bool(sides[0] * sides[1] < 0)


def end_labels(axes: "Axes", points: Sequence[Point], *, at: float = 1.03) -> None:
    """Write names in the right margin, none on another, each tied to its point (x, y, name, colour) by a fine line."""
    low, high = axes.get_ylim()
    order = sorted(points, key=lambda point: point[1])
    figure = axes.get_figure(root=True)
    assert figure is not None
    line = 0.18 / figure.get_figheight() * (high - low)
    gap = min((high - low) / max(1, len(order)), line)
    heights = _spread([point[1] for point in order], gap, low, high)
    for (x, y, name, colour), height in zip(order, heights, strict=True):
        axes.annotate(
            short(name, 20),
            (x, y),
            (at, (height - low) / (high - low)),
            textcoords="axes fraction",
            va="center",
            fontsize=_LETTERS,
            color=INK,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5, "shrinkA": 1, "shrinkB": 3},
        )


def _spread(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Sorted heights moved apart to at least `gap`, kept between `low` and `high` as far as they fit."""
    placed = np.asarray(heights, dtype=float)
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    placed[-1:] = np.minimum(placed[-1:], high)
    for i in range(len(placed) - 2, -1, -1):
        placed[i] = min(placed[i], placed[i + 1] - gap)
    return list(np.maximum(placed, low - gap))
