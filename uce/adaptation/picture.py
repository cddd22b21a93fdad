"""The scores of an adaptation as bars."""

from pathlib import Path

from uce.adaptation.scoring import Scores
from uce.evaluation.report.figures import new_figure, style
from uce.files import atomic_path

_COLOURS = {"pca": "#8a8f98", "base": "#56b4e9", "adapted": "#0072b2"}
_READINGS = {"classifier": "classifier", "knn": "nearest cells"}


def draw_scores(scores: Scores, path: Path, *, title: str) -> Path:
    """Draw macro-F1 of the held-out cells, a bar for each way, as PNG.

    Raises
    ------
    StorageError
        It cannot be written.
    """
    with style():
        figure = new_figure(0.5 + 0.34 * len(scores.lines), width=5.4)
        axes = figure.add_subplot()
        names = [f"{line['vectors']}, {_READINGS[line['reading']]}" for line in scores.lines]
        values = [line["macro_f1"] for line in scores.lines]
        bars = axes.barh(names, values, color=[_COLOURS[line["vectors"]] for line in scores.lines])
        axes.bar_label(bars, fmt="%.3f", padding=3)
        axes.set_xlim(0, 1.1)
        axes.invert_yaxis()
        axes.set_xlabel(f"macro-F1 of {scores.asked:,} held-out cells")
        axes.set_title(title, loc="left")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=130, format="png", metadata={"Software": None})
    return path
