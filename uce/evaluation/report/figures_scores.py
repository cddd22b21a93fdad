"""Pictures of scores: one dot per embedding, bio against batch, paired differences, the table as a picture."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from uce.evaluation.report.figures import (
    ALARM,
    FAINT,
    GREY,
    INK,
    WIDTH,
    Look,
    draw_point,
    new_figure,
    picture,
    short,
    words,
)
from uce.evaluation.report.figures_names import near_labels
from uce.evaluation.report.page import Picture, number
from uce.evaluation.results import Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_READ = ("ok", "suspect")


def dot_plot(
    metric: str,
    scores: Mapping[str, Score],
    looks: Mapping[str, Look],
    *,
    reference: Sequence[str] = ("pca", "ortholog-pca"),
) -> Picture:
    """One metric of all embeddings, with intervals; what has no value is a cross with the reason.

    Parameters
    ----------
    scores
        Embedding -> its score, from top to bottom.
    reference
        The first of these that is there is drawn through as a dotted line.
    """
    rows = list(scores)
    figure = new_figure(0.62 + 0.205 * len(rows))
    axes = figure.subplots()
    axes.set_xlim(_limits(list(scores.values())))
    for name in [name for name in reference if name in scores and scores[name].status in _READ][:1]:
        axes.axvline(scores[name].value, color=GREY, lw=0.8, ls=":", zorder=0)
    for place, name in enumerate(rows):
        _draw_row(axes, place, scores[name], looks[name])
    axes.set(ylim=(len(rows) - 0.4, -0.6), yticks=range(len(rows)), title=words(metric))
    axes.set_yticklabels([short(name, 20) for name in rows])
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=5)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(_direction(next(iter(scores.values())).better), fontsize=7, color=GREY)
    return picture(
        figure, f"Dot plot of {words(metric)}. " + "; ".join(_told(name, scores[name]) for name in rows) + "."
    )


def _draw_row(axes: "Axes", place: int, score: Score, look: Look) -> None:
    low, high = axes.get_xlim()
    axes.axhline(place, color=FAINT, lw=0.5, zorder=0)
    if score.status not in _READ or not np.isfinite(score.value):
        axes.scatter([low + 0.02 * (high - low)], [place], marker="x", color=GREY, s=18, linewidths=1)
        reason = short(f"{score.status}: {score.note}" if score.note else score.status, 44)
        axes.text(
            low + 0.05 * (high - low), place, reason, va="center", fontsize=6.5, style="italic",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip
        return
    if np.isfinite(score.low) and np.isfinite(score.high):
        axes.plot([score.low, score.high], [place, place], color=look.colour, lw=1.8, alpha=0.55, solid_capstyle="butt")
    draw_point(axes, score.value, place, look, hatch="" if look.filled else "//////")
    suspect = score.status == "suspect"
    axes.text(
        1.015, place, number(score.value) + ("  !" if suspect else ""), transform=axes.get_yaxis_transform(),
        va="center", fontsize=7, color=ALARM if suspect else INK,
    )  # fmt: skip


def _limits(scores: Sequence[Score]) -> tuple[float, float]:
    """Of what can be read, with a margin; intervals are part of it."""
    read = [score for score in scores if score.status in _READ]
    values = np.array([value for score in read for value in (score.value, score.low, score.high)], dtype=float)
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    margin = 0.06 * max(float(np.ptp(values)), 0.05 * float(np.abs(values).max()), 1e-6)
    return float(values.min() - margin), float(values.max() + margin)


def _direction(better: str) -> str:
    return {"higher": "higher is better →", "lower": "← lower is better"}.get(better, "neither end is better")


def _told(name: str, score: Score) -> str:
    if score.status not in _READ:
        return f"{name} {score.status}"
    interval = f" ({number(score.low)} to {number(score.high)})" if np.isfinite(score.low) else ""
    return f"{name} {number(score.value)}{interval}{' suspect' if score.status == 'suspect' else ''}"


def scatter(
    points: Mapping[str, tuple[float, float]], looks: Mapping[str, Look], *, x: str, y: str, anchors: str = ""
) -> Picture:
    """Two scores of every embedding against each other, each point named; higher is better on both axes."""
    figure = new_figure(max(3.9, 0.19 * len(points) + 0.8), width=WIDTH + 0.3)
    axes = figure.subplots()
    values = np.array(list(points.values()), dtype=float).reshape(-1, 2)
    for axis, column in (("x", values[:, 0]), ("y", values[:, 1])):
        margin = 0.08 * max(float(np.ptp(column)), 0.02)
        getattr(axes, f"set_{axis}lim")(column.min() - margin, column.max() + margin)
    for name, (across, up) in points.items():
        draw_point(axes, across, up, looks[name], s=44)
    axes.set(xlabel=f"{x} →", ylabel=f"{y} →")
    axes.grid(color=FAINT, lw=0.4)
    axes.set_axisbelow(True)
    near_labels(axes, [(*points[name], name, looks[name].colour) for name in points])
    told = "; ".join(f"{name} {number(up)} and {number(across)}" for name, (across, up) in points.items())
    return picture(figure, f"Scatter of {y} (upwards) against {x} (to the right). {told}. {anchors}".strip())


def difference_plot(title: str, differences: Mapping[str, tuple[float, float, float, str]], first: str) -> Picture:
    """Paired differences with intervals: other embedding -> (difference, low, high, verdict in a word)."""
    figure = new_figure(0.75 + 0.22 * len(differences))
    axes = figure.subplots()
    axes.axvline(0, color=INK, lw=0.8)
    colours = {"better": "#0072b2", "worse": "#d55e00"}
    for place, (middle, low, high, verdict) in enumerate(differences.values()):
        colour = colours.get(verdict, GREY)
        axes.axhline(place, color=FAINT, lw=0.5, zorder=0)
        axes.plot([low, high], [place, place], color=colour, lw=2.2, solid_capstyle="butt")
        axes.scatter([middle], [place], color=colour, s=24, zorder=3)
        axes.text(
            1.015, place, verdict, transform=axes.get_yaxis_transform(), va="center", fontsize=7, color=colour,
            weight="normal" if colour == GREY else "bold",
        )  # fmt: skip
    reach = max((abs(v) for row in differences.values() for v in row[:3] if np.isfinite(v)), default=1.0) * 1.12 or 1.0
    axes.set(xlim=(-reach, reach), ylim=(len(differences) - 0.4, -0.6), yticks=range(len(differences)), title=title)
    axes.set_yticklabels([short(f"against {name}", 26) for name in differences])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"← the other is better     {short(first, 22)} is better →", fontsize=7, color=GREY)
    told = "; ".join(
        f"against {name} {number(row[0])} ({number(row[1])} to {number(row[2])}), {row[3]}"
        for name, row in differences.items()
    )
    return picture(figure, f"Paired differences of {title} between {first} and each other row: {told}.")


def score_picture(
    scores: Mapping[str, Mapping[str, Score]], metrics: Sequence[str], aggregates: Sequence[str]
) -> Picture:
    """The table of scores as a picture: a circle per metric, a bar per aggregate; raw values between 0 and 1.

    Parameters
    ----------
    scores
        Embedding -> metric -> score.
    """
    widths = [0.46] * len(metrics) + [0.95] * len(aggregates)
    lefts = np.concatenate([[0.0], np.cumsum(widths)])
    lefts[len(metrics) :] += 0.3  # names of the last metrics lean over
    names = list(scores)
    width, height = lefts[-1] + 1.75, 0.31 * len(names) + 1.35
    figure = new_figure(height, width=width)
    figure.set_layout_engine("none")
    axes = figure.add_axes((1.65 / width, 0.05 / height, lefts[-1] / width, 0.31 * len(names) / height))
    axes.set(xlim=(0, lefts[-1]), ylim=(len(names) - 0.5, -0.5), xticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_yticks(range(len(names)), [short(name, 22) for name in names])
    axes.tick_params(length=0)
    for place, name in enumerate(names):
        axes.axhline(place + 0.5, color=FAINT, lw=0.5)
        for i, metric in enumerate([*metrics, *aggregates]):
            draw = _draw_circle if i < len(metrics) else _draw_bar
            draw(axes, float(lefts[i]), widths[i], place, scores[name].get(metric))
    for i, metric in enumerate([*metrics, *aggregates]):
        axes.text(
            lefts[i] + (0.5 * widths[i] if i < len(metrics) else 0.12), -0.62, short(words(metric), 30), rotation=40,
            ha="left", va="bottom", fontsize=7.5, weight="bold" if i >= len(metrics) else "normal",
        )  # fmt: skip
    told = "; ".join(
        f"{name}: "
        + ", ".join(f"{words(m)} {number(s.value)}" for m in (*metrics, *aggregates) if (s := scores[name].get(m)))
        for name in names
    )
    return picture(figure, f"Table of raw scores as circles and bars. {told}.", trim=True)


def _listed(scores: Mapping[str, Score], metrics: Sequence[str]) -> str:
    return ", ".join(f"{words(metric)} {number(scores[metric].value)}" for metric in metrics if metric in scores)


def _draw_circle(axes: "Axes", left: float, width: float, place: int, score: Score | None) -> None:
    import matplotlib as mpl

    x = left + width / 2
    if score is None or score.status not in _READ or not np.isfinite(score.value):
        axes.text(x, place, "×" if score else "", ha="center", va="center", color=GREY, fontsize=8)
        return
    level = float(np.clip(score.value, 0, 1))
    colour = mpl.colormaps["Blues"](0.08 + 0.84 * level)
    edge = ALARM if score.status == "suspect" else "#8fa8c0"
    axes.scatter([x], [place], s=330, color=[colour], edgecolor=edge, lw=0.6)
    axes.text(x, place, f"{score.value:.2f}".replace("-", "−"), ha="center", va="center", fontsize=6.5,
              color="white" if level > 0.6 else INK)  # fmt: skip


def _draw_bar(axes: "Axes", left: float, width: float, place: int, score: Score | None) -> None:
    if score is None or score.status not in _READ or not np.isfinite(score.value):
        axes.text(left + 0.1, place, f"× {score.status}" if score else "", va="center", color=GREY, fontsize=6.5)
        return
    full = width - 0.5
    axes.barh(place, full, left=left + 0.08, height=0.62, color="#eef1f4", lw=0)
    axes.barh(place, full * float(np.clip(score.value, 0, 1)), left=left + 0.08, height=0.62, color="#0072b2", lw=0)
    axes.text(left + 0.12 + full, place, f"{score.value:.3f}".replace("-", "−"), va="center", fontsize=7)
