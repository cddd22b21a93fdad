"""The course of a run as a picture: one panel for what belongs together, whatever the objective is.

Names say what belongs together: `loss_chance` is drawn beside `loss`, and `valid_loss` under both, dashed.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from uce.files import atomic_path
from uce.training.records import BOOKKEEPING, is_number, read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_UNDRAWN = ("step", "seconds", "seconds_left", "tokens_per_second")
_SHARES = ("mfu", "padding", "waiting")  # of 1, in one panel
_LOGARITHMIC = "grad_norm"  # where one spike would flatten the rest
_VALID = "valid_"
_NAME = re.compile(r"[A-Za-z]\w*")  # of a number; matplotlib reads more into others
_COLUMNS, _POINTS, _FEW = 3, 800, 40  # of points: so few could not be seen as a line
_COLOURS = ("#1f5fa8", "#8a8f98", "#d98b1f", "#3c8d5a", "#a8456b", "#6f5bb0")  # the first is that of the thing itself

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]  # steps and values


def draw_curves(run: Path) -> Path | None:
    """Draw `curves.png` of a run from its `metrics.jsonl`. None, and no picture, where nothing was logged yet.

    Raises
    ------
    StorageError
        It cannot be written.
    """
    from matplotlib.figure import Figure

    curves = _read_curves(run)
    groups = _group([name for name in curves if not name.startswith(_VALID)] + _only_valid(curves))
    if not groups:
        return None
    last = max(1.0, *(float(steps[-1]) for steps, _ in curves.values()))
    # The panel of the number to watch, which is logged first, is two wide.
    rows = -(-(len(groups) + 1) // _COLUMNS)
    width, height = 4.2 * _COLUMNS, 2.7 * rows + 0.5
    figure = Figure(figsize=(width, height), facecolor="white")
    # Fixed margins: a layout that measures every text takes longer than all the rest. All are in inches; those between
    # panels are asked for as shares of a panel, which is about 3.4 by 2.
    grid = figure.add_gridspec(
        rows,
        _COLUMNS,
        left=0.75 / width,
        right=1 - 0.1 / width,
        bottom=0.35 / height,
        top=1 - 0.6 / height,
        wspace=0.75 / 3.4,
        hspace=0.7 / 2.0,
    )
    for place, (title, names) in enumerate(groups.items(), start=1):
        row, column = divmod(place, _COLUMNS)
        axes = figure.add_subplot(grid[0, :2] if place == 1 else grid[row, column])
        _draw(axes, names, curves)
        _furnish(axes, title, last=last)
    dashed = ", dashed: validation" if any(name.startswith(_VALID) for name in curves) else ""
    figure.suptitle(
        f"{run.resolve().name}: {last:,.0f} steps{dashed}", fontsize=11, x=0.1 / width, y=1 - 0.08 / height, ha="left"
    )
    path = run / "curves.png"
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return path


def _read_curves(run: Path) -> dict[str, Curve]:
    """Every name that has a number, with its steps and values; a null in between is a gap."""
    lines = list(read_metrics(run))
    names = dict.fromkeys(name for line in lines for name in line if _NAME.fullmatch(name) and name not in _UNDRAWN)
    curves = {}
    for name in names:
        pairs = [(line["step"], line[name]) for line in lines if name in line]
        values = np.array([value if is_number(value) else np.nan for _, value in pairs], dtype=np.float64)
        if np.isfinite(values).any():
            curves[name] = _thin(np.array([step for step, _ in pairs], dtype=np.float64), values)
    return curves


def _thin(steps: NDArray[np.float64], values: NDArray[np.float64]) -> Curve:
    """Means of neighbours, where there are more points than can be seen."""
    starts = np.unique(np.linspace(0, len(steps), min(len(steps), _POINTS), endpoint=False).astype(np.int64))
    counts = np.diff(starts, append=len(steps))
    return np.add.reduceat(steps, starts) / counts, np.add.reduceat(values, starts) / counts


def _only_valid(curves: dict[str, Curve]) -> list[str]:
    """Names that were measured in validation alone, as the names they would have in training."""
    names = [name.removeprefix(_VALID) for name in curves if name.startswith(_VALID)]
    return [name for name in names if name not in curves]


def _group(names: Sequence[str]) -> dict[str, list[str]]:
    """Title to names that begin with the same word, in the order in which they were logged; bookkeeping comes last."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names, key=BOOKKEEPING.__contains__):
        title = "shares" if name in _SHARES else name if name in BOOKKEEPING else name.split("_")[0]
        groups.setdefault(title, []).append(name)
    return {names[0] if len(names) == 1 else title: names for title, names in groups.items()}


def _draw(axes: "Axes", names: Sequence[str], curves: dict[str, Curve]) -> None:
    for number, name in enumerate(names):
        style: dict[str, Any] = {"linewidth": 1.2 if number else 1.8, "zorder": 3 - number / 100}
        style["color"] = _COLOURS[number % len(_COLOURS)]
        if name in curves:
            marker = "." if len(curves[name][0]) < _FEW else ""
            axes.plot(*curves[name], marker=marker, markersize=4, label=name, **style)
        if (measured := _VALID + name) in curves:
            label = None if name in curves else measured
            axes.plot(*curves[measured], "o--", markersize=3, label=label, **style)
    if len(names) > 1:
        axes.legend(fontsize=7, framealpha=0.8, edgecolor="none")
    if _LOGARITHMIC in names and np.nanmax(curves[_LOGARITHMIC][1]) > 30 * np.nanmin(curves[_LOGARITHMIC][1]) > 0:
        axes.set_yscale("log")


def _furnish(axes: "Axes", title: str, *, last: float) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, fontsize=10, loc="left", fontweight="bold")
    axes.set_xlim(0, 1.02 * last)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(lambda step, _place: f"{step:,.0f}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, color="#999999")
