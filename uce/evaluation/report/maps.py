"""UMAPs: a picture, not evidence."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.report.figures import WIDTH, categorical, new_figure, picture, short
from uce.evaluation.report.page import Html, Picture, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CELLS = 5_000
MOST_CATEGORIES = 40
OTHER = "#c9cdd1"

Texts = NDArray[np.str_]
Points = NDArray[np.float32]


class Categories:
    """Values of a column with a colour each, the most frequent first; beyond 40 values, the rest is one pale grey.

    Parameters
    ----------
    values
        (cells,) texts.
    """

    def __init__(self, values: Texts) -> None:
        names, counts = np.unique(values, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        self.names = [str(name) for name in names[order][:MOST_CATEGORIES]]
        self.counts = counts[order]
        self.colours = dict(zip(self.names, categorical(len(self.names)), strict=True))

    def legend(self) -> Html:
        """What the colours mean, with numbers of cells."""
        entries = [
            (self.colours[name], str(i + 1), f"{name} ({count:,})")
            for i, (name, count) in enumerate(zip(self.names, self.counts, strict=False))
        ]
        rest = self.counts[len(self.names) :]
        return legend([*entries, (OTHER, "", f"{len(rest)} more ({rest.sum():,})")] if len(rest) else entries)


def drawn_cells(n_cells: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions of at most 5,000 cells, sorted."""
    return np.arange(n_cells) if n_cells <= MOST_CELLS else np.sort(rng.choice(n_cells, MOST_CELLS, replace=False))


def draw_map(
    points: Points, values: Texts, categories: Categories, *, title: str, numbered: bool, order: NDArray[np.int64]
) -> Picture:
    """Cells as dots, coloured by a column.

    Parameters
    ----------
    points
        (cells, 2), NaN for cells without a vector.
    numbered
        Write the number of a category (see the legend) where most of its cells are: for labels, not for batches.
    order
        (cells,) in which dots are laid over each other; a random one hides no category.
    """
    figure = new_figure(WIDTH * 0.92)
    axes = figure.subplots()
    size = float(np.clip(9_000 / max(1, len(points)), 1.2, 16))
    colours = np.array([categories.colours.get(str(value), OTHER) for value in values])
    x, y = points[order].T
    axes.scatter(x, y, s=size, c=colours[order], linewidths=0)
    if numbered:
        _write_numbers(axes, [points[values == name] for name in categories.names])
    axes.set(xticks=[], yticks=[])
    axes.set_title(short(title, 60))
    axes.set_aspect("equal", adjustable="datalim")
    for spine in axes.spines.values():
        spine.set_visible(False)
    told = f"coloured by {len(categories.counts)} categories, the largest {short(categories.names[0], 60)}"
    return picture(figure, f"UMAP, {title}: {len(points):,} cells {told}.", dots=True)


def _write_numbers(axes: "Axes", kinds: list[Points]) -> None:
    """The number of every kind where most of it is; kinds with few cells go without where it is crowded."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2, foreground="white")]
    everything = np.concatenate(kinds)
    room = 0.035 * float(np.nanmax(np.nanmax(everything, axis=0) - np.nanmin(everything, axis=0)))
    taken: list[Points] = []
    for i, points in enumerate(kinds):
        middle = _middle(points)
        if middle is not None and all(np.abs(middle - other).max() > room for other in taken):
            taken.append(middle)
            x, y = map(float, middle)
            axes.text(x, y, str(i + 1), fontsize=7.5, weight="bold", ha="center", va="center", path_effects=halo)


def _middle(points: Points) -> Points | None:
    """The cell that is nearest to the median of its kind."""
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return None
    middle: Points = points[np.argmin(((points - np.median(points, axis=0)) ** 2).sum(axis=1))]
    return middle
