"""The query among the reference: a UMAP coloured by label and by confidence; and how far the neighbours are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from uce.annotation.labelling import UNKNOWN, Labelling
from uce.evaluation.embeddings import Floats
from uce.evaluation.report.figures import ALARM, GREY, INK, WIDTH, categorical, new_figure, picture, short, style
from uce.evaluation.report.page import Picture
from uce.plotting import umap_coordinates

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CELLS = 6_000  # of each side
MOST_NAMES = 24
PALE = "#cfd4d8"
_QUERY = "#0072b2"


@dataclass(frozen=True)
class Maps:
    """The query among the reference: both panels in one picture, for a file, and one by one, for a page."""

    both: Picture
    labels: Picture
    confidence: Picture


def draw_query(found: Labelling, vectors: Floats, *, title: str, seed: int) -> Maps:
    """A UMAP of query and reference, reference in grey: query cells by label (crosses: unknown), and by confidence.

    Parameters
    ----------
    vectors
        (cells, dim) of the query cells that have a vector. At most 6,000 of each side are drawn, evenly spaced.
    """
    asked = np.unique(np.linspace(0, len(vectors) - 1, min(len(vectors), MOST_CELLS)).astype(int))
    known = found.reference.vectors[:: max(1, len(found.reference.vectors) // MOST_CELLS)]
    points = umap_coordinates(np.concatenate([known, vectors[asked]]), seed=seed)
    panels = [partial(panel, found, points, asked) for panel in (_by_label, _by_confidence)]
    named = f"{short(title, 60)}: {len(vectors):,} cells; reference in grey"
    names = min(MOST_NAMES, len(np.unique(found.guesses.labels[asked])) + 1)
    with style():
        return Maps(_drawn(panels, named, names), _drawn(panels[:1], named, names), _drawn(panels[1:], named, 4))


def _drawn(panels: Sequence[Callable[["Axes"], str]], title: str, names: int) -> Picture:
    """Panels beside each other, with room for a legend of `names` in two columns below."""
    figure = new_figure(3.4 + 0.085 * names, width=len(panels) * WIDTH)
    told = [draw(axes) for draw, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True)]
    if len(panels) > 1:
        figure.suptitle(title, fontsize=9)
    return picture(figure, f"UMAP of {title}. {' '.join(told)}", dots=True)


def _draw_reference(axes: "Axes", behind: Floats, *, size: float, title: str) -> None:
    axes.scatter(behind[:, 0], behind[:, 1], s=size, c=PALE, lw=0)
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[:].set_visible(False)
    axes.set_title(title)


def _by_confidence(found: Labelling, points: Floats, asked: NDArray[np.int64], axes: "Axes") -> str:
    behind, front, size = points[: -len(asked)], points[-len(asked) :], _size(len(points))
    word = "confidence" if found.calibrated else "share of the vote"
    _draw_reference(axes, behind, size=size, title=word)
    values = found.confidence[asked]
    drawn = axes.scatter(front[:, 0], front[:, 1], s=size, c=values, cmap="viridis", vmin=0, vmax=1, lw=0)
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.colorbar(drawn, ax=axes, orientation="horizontal", shrink=0.6, pad=0.02, aspect=30)
    return f"{word.capitalize()}: median {np.median(values):.2f}."


def _by_label(found: Labelling, points: Floats, asked: NDArray[np.int64], axes: "Axes") -> str:
    behind, front, size = points[: -len(asked)], points[-len(asked) :], _size(len(points))
    labels, unknown = found.guesses.labels[asked], found.unknown[asked]
    _draw_reference(axes, behind, size=size, title="label")
    names, counts = np.unique(labels[~unknown], return_counts=True)
    names = names[np.argsort(-counts, kind="stable")]
    for name, colour in zip(names, categorical(len(names)), strict=True):
        here = (labels == name) & ~unknown
        axes.scatter(
            front[here, 0], front[here, 1], s=size, color=colour, lw=0, label=f"{short(name)} ({here.sum():,})"
        )
    if unknown.any():
        crosses, told = front[unknown], f"{UNKNOWN} ({unknown.sum():,})"
        axes.scatter(crosses[:, 0], crosses[:, 1], s=9, color=INK, marker="x", lw=0.5, label=told)
    handles, texts = axes.get_legend_handles_labels()
    chosen = slice(None) if len(texts) <= MOST_NAMES else [*range(MOST_NAMES - 1), len(texts) - 1]
    handles, texts = (list(np.array(part, dtype=object)[chosen]) for part in (handles, texts))
    larger = float(np.sqrt(24 / size))  # dots that a reader can tell the colour of
    axes.legend(
        handles, texts, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, fontsize=7.5, markerscale=larger
    )
    return f"Labels: {', '.join(map(str, texts))}."


def _size(count: int) -> float:
    return float(np.clip(12_000 / max(1, count), 1.5, 14))


def draw_distances(found: Labelling) -> Picture:
    """Mean distance to the neighbours: of the query, and of reference cells to those of other donors."""
    with style():
        figure = new_figure(2.6)
        axes = figure.subplots()
        far = {"held-out reference": found.held_out.guesses.distances, "query": found.guesses.distances}
        top = float(max([np.quantile(values, 0.995) for values in far.values() if len(values)], default=1.0))
        edges = np.linspace(0, max(top, 1e-6), 41).tolist()
        for (name, values), colour in zip(far.items(), (GREY, _QUERY), strict=True):
            if len(values):
                weights = np.full(len(values), 1 / len(values))
                axes.hist(values, edges, weights=weights, color=colour, alpha=0.55, label=f"{name} ({len(values):,})")
        axes.set(xlabel="mean cosine distance to the nearest reference cells", ylabel="share of cells")
        axes.legend(fontsize=7)
        told = "; ".join(f"{name}: median {np.median(values):.3f}" for name, values in far.items() if len(values))
        return picture(figure, f"Histogram of distances to neighbours. {told}.")


def draw_composition(summary: Any) -> Picture:
    """Shares of the labels in the query (unknown cells hatched) and in the reference."""
    table = summary.head(30).iloc[::-1]
    with style():
        figure = new_figure(0.9 + 0.24 * len(table))
        axes = figure.subplots()
        places = np.arange(len(table))
        share, unknown = table["share"].fillna(0), table["share_unknown"].fillna(0)
        axes.barh(places + 0.2, share * (1 - unknown), 0.38, color=_QUERY, label="query")
        axes.barh(
            places + 0.2, share * unknown, 0.38, left=share * (1 - unknown), color="white", edgecolor=ALARM,
            hatch="////", lw=0.5, label="query, unknown",
        )  # fmt: skip
        axes.barh(places - 0.2, table["reference_share"], 0.38, color=GREY, label="reference")
        axes.set_yticks(places, [short(name, 30) for name in table["label"]], fontsize=7)
        axes.set(xlabel="share of the cells")
        axes.legend(fontsize=7, loc="lower right")
        return picture(figure, f"Share of each label. {_told(summary)}.")


def _told(summary: Any) -> str:
    lines: Sequence[Any] = summary.head(8).to_dict("records")
    return "; ".join(f"{line['label']} {line['share']:.0%}, reference {line['reference_share']:.0%}" for line in lines)
