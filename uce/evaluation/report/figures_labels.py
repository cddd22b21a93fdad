"""Pictures of labels: who is taken for whom, dots per label and per donor, reliability, coverage."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.report.figures import (
    FAINT,
    GREY,
    INK,
    WIDTH,
    Look,
    draw_point,
    new_figure,
    picture,
    short,
)
from uce.evaluation.report.figures_names import end_labels
from uce.evaluation.report.page import Picture, number

Numbers = NDArray[np.float64]
MOST_LABELS, MOST_LINES = 40, 60


def clustered(confusion: Numbers) -> NDArray[np.int64]:
    """An order of labels in which those that are taken for each other stand beside each other.

    Parameters
    ----------
    confusion
        (labels, labels) counts, true x predicted.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage

    if len(confusion) < 3:
        return np.arange(len(confusion))
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    profiles = np.hstack([(shares + shares.T) / 2, 0.25 * np.eye(len(shares))])
    return np.asarray(leaves_list(linkage(profiles, "average", optimal_ordering=True)), dtype=np.int64)


def heat_map(
    shares: Numbers, rows: Sequence[str], columns: Sequence[str], *, title: str, across: str, down: str
) -> Picture:
    """Shares between 0 and 1 as shades of blue, with percentages; rows from top to bottom."""
    cell = 0.36 if len(columns) <= 14 else 0.23
    margin = 0.3 + 0.068 * max(len(short(name, 28)) for name in (*rows, ""))
    width = max(WIDTH, margin + 0.3 + cell * len(columns))
    figure = new_figure(1.0 + margin * 0.85 + cell * len(rows), width=width)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal", interpolation="nearest")
    axes.set_xticks(range(len(columns)), [short(name, 28) for name in columns])
    axes.tick_params(axis="x", rotation=55, labelsize=7)
    for text in axes.get_xticklabels():
        text.set(ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), [short(name, 28) for name in rows], fontsize=7)
    axes.tick_params(length=0)
    for row, column in np.argwhere(shares >= 0.045):
        share = shares[row, column]
        axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=6 if cell < 0.3 else 7,
                  color="white" if share > 0.6 else INK)  # fmt: skip
    axes.set(xlabel=across, ylabel=down)
    axes.set_title(title, loc="left")
    for spine in axes.spines.values():
        spine.set_visible(False)
    told = f"Heat map, {title}; {down} in rows, {across} in columns, in percent. {_largest(shares, rows, columns)}"
    return picture(figure, told, trim=True)


def _largest(shares: Numbers, rows: Sequence[str], columns: Sequence[str]) -> str:
    """The strongest entries that are not the label itself."""
    found = [
        (float(shares[i, j]), f"{rows[i]} as {columns[j]} {100 * shares[i, j]:.0f} %")
        for i, j in np.argwhere(shares >= 0.1)
        if rows[i] != columns[j]
    ]
    top = [text for _, text in sorted(found, reverse=True)[:8]]
    return (
        f"Most often mistaken: {'; '.join(top)}."
        if top
        else "No label is mistaken for another in a tenth of its cells."
    )


def confusion_map(labels: Sequence[str], confusion: Numbers, order: NDArray[np.int64], *, title: str) -> Picture:
    """True labels down, predicted labels across, each row as shares of its cells, in a given order of labels.

    Of more than 40 labels, those with most cells are shown, and all others together as one column.
    """
    confusion = np.asarray(confusion, dtype=float)
    totals = confusion.sum(axis=1)
    kept = set(np.argsort(-totals, kind="stable")[:MOST_LABELS])
    order = np.array([i for i in order if i in kept])
    shown = confusion[np.ix_(order, order)]
    names = [str(labels[i]) for i in order]
    columns = list(names)
    if len(order) < len(labels):
        shown = np.hstack([shown, (totals[order] - shown.sum(axis=1))[:, None]])
        columns.append("(other labels)")
    shares = shown / np.maximum(totals[order], 1)[:, None]
    return heat_map(shares, names, columns, title=title, across="predicted label", down="true label")


def label_dots(
    values: Mapping[str, Mapping[str, float]],
    sizes: Mapping[str, int],
    looks: Mapping[str, Look],
    *,
    title: str,
    across: str,
    chance: float | None = None,
) -> Picture:
    """One line per label, the largest first (60 at most), and on it one marker per embedding.

    Parameters
    ----------
    values
        Embedding -> label -> value; what has none is left out.
    sizes
        Label -> cells.
    """
    labels = sorted(sizes, key=lambda label: (-sizes[label], label))[:MOST_LINES]
    title += f" (the largest {MOST_LINES} of {len(sizes)})" if len(labels) < len(sizes) else ""
    figure = new_figure(1.1 + 0.19 * len(labels) + 0.16 * ((len(values) + 1) // 2))
    axes = figure.subplots()
    for place, label in enumerate(labels):
        there = [row[label] for row in values.values() if np.isfinite(row.get(label, np.nan))]
        axes.axhline(place, color=FAINT, lw=0.5, zorder=0)
        if there:
            axes.plot([min(there), max(there)], [place, place], color="#b9c0c6", lw=1.4, zorder=1)
        axes.text(
            1.015,
            place,
            f"{sizes[label]:,}",
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=6.5,
            color=GREY,
        )
    for name in reversed(list(values)):
        row = values[name]
        for place, label in enumerate(labels):
            if np.isfinite(row.get(label, np.nan)):
                # Baselines are larger and below, so that one that is hit exactly is still seen.
                draw_point(axes, row[label], place, looks[name], s=36 if looks[name].colour == GREY else 17)
    if chance is not None:
        axes.axvline(chance, color=GREY, lw=0.8, ls=":")
    axes.set(xlim=(-0.03, 1.03), ylim=(len(labels) - 0.4, -0.6), yticks=range(len(labels)), title=title)
    axes.set_yticklabels([short(label, 28) for label in labels], fontsize=7)
    axes.set_xlabel(across)
    axes.text(1.015, -0.9, "cells", transform=axes.get_yaxis_transform(), va="bottom", fontsize=6.5, color=GREY)
    axes.tick_params(axis="y", length=0)
    _name_below(figure, list(values), looks)
    told = "; ".join(
        f"{label} " + ", ".join(f"{name} {number(row[label])}" for name, row in values.items() if label in row)
        for label in labels
    )
    return picture(figure, f"{title}, {across}. {told}.")


def _name_below(figure: Any, names: Sequence[str], looks: Mapping[str, Look]) -> None:
    """A legend below the picture."""
    from matplotlib.lines import Line2D

    entries = [
        Line2D([], [], ls="", marker=looks[name].marker, mfc=looks[name].face, mec=looks[name].colour, ms=5)
        for name in names
    ]
    figure.legend(
        entries, [short(name, 24) for name in names], loc="outside lower center", ncols=2, fontsize=7, handletextpad=0.3
    )


def strips(values: Mapping[str, Mapping[str, float]], looks: Mapping[str, Look], *, title: str, across: str) -> Picture:
    """One line per embedding, on it one dot per group, and a bar at their median."""
    names = list(values)
    figure = new_figure(0.75 + 0.27 * len(names))
    axes = figure.subplots()
    for place, name in enumerate(names):
        there = np.array([value for value in values[name].values() if np.isfinite(value)])
        axes.axhline(place, color=FAINT, lw=0.5, zorder=0)
        for value in there:
            draw_point(axes, value, place, looks[name], s=20, alpha=0.7)
        if len(there):
            middle = float(np.median(there))
            axes.plot([middle, middle], [place - 0.36, place + 0.36], color=INK, lw=1.6, zorder=4)
            axes.text(1.015, place, number(middle), transform=axes.get_yaxis_transform(), va="center", fontsize=7)
    axes.set(ylim=(len(names) - 0.4, -0.6), yticks=range(len(names)), title=title, xlabel=across)
    axes.set_yticklabels([short(name, 22) for name in names])
    axes.tick_params(axis="y", length=0)
    told = "; ".join(
        f"{name} " + ", ".join(f"{group} {number(value)}" for group, value in values[name].items()) for name in names
    )
    return picture(figure, f"{title}, {across}. {told}.")


def reliability(
    stages: Mapping[str, Sequence[Mapping[str, float]]], colour: str, *, title: str, across: str = "confidence"
) -> Picture:
    """How often a label is right, by how sure the probe was; below, how many cells were that sure.

    Parameters
    ----------
    stages
        Title (`before`, `after`) -> bins with `confidence`, `accuracy`, `count`.
    """
    figure = new_figure(3.1)
    panels = figure.subplots(2, len(stages), sharex=True, sharey="row", squeeze=False, height_ratios=[3, 1])
    told = []
    for column, (stage, bins) in enumerate(stages.items()):
        above, below = panels[:, column]
        filled = [entry for entry in bins if entry["count"]]
        x, y, count = (np.array([float(e[key]) for e in filled]) for key in ("confidence", "accuracy", "count"))
        above.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
        above.plot(x, y, color=colour, lw=0.8, alpha=0.5)
        above.scatter(
            x, y, s=3 + 70 * count / max(1, count.max(initial=1)), color=colour, lw=0, zorder=3, clip_on=False
        )
        above.set(xlim=(0, 1), ylim=(0, 1.03), title=stage)
        below.bar(x, count, width=0.045, color=colour, alpha=0.5)
        below.set(xlabel=across, xticks=[0, 0.5, 1])
        told.append(f"{stage}: " + ", ".join(f"{number(a)} right at {number(b)}" for a, b in zip(y, x, strict=True)))
    panels[0, 0].set_ylabel("share that is right")
    panels[1, 0].set_ylabel("cells")
    figure.suptitle(title, fontsize=8.5, fontweight="bold", x=0.02, ha="left")
    return picture(figure, f"Reliability diagram, {title}. {'; '.join(told)}.")


def coverage(curves: Mapping[str, Sequence[Mapping[str, float]]], looks: Mapping[str, Look], *, title: str) -> Picture:
    """Accuracy among the cells whose label is surest, for every share of cells that is answered."""
    figure = new_figure(3.4)
    axes = figure.subplots()
    ends, told = [], []
    for name, curve in curves.items():
        x, y = (np.array([float(point[key]) for point in curve]) for key in ("coverage", "accuracy"))
        axes.plot(x, y, color=looks[name].colour, lw=1.4, ls=looks[name].line)
        ends.append((float(x[-1]), float(y[-1]), name, looks[name].colour))
        told.append(f"{name} {number(float(y[-1]))} at all cells")
    axes.axhline(0.95, color=GREY, lw=0.8, ls=":")
    axes.set(xlim=(0, 1), xlabel="share of cells that get a label, the surest first", ylabel="accuracy among them")
    axes.set_title(title)
    end_labels(axes, ends)
    return picture(figure, f"{title}: accuracy against coverage. {'; '.join(told)}.")
