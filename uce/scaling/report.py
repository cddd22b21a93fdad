"""The report of a study: every run as a line of rows.csv, a table with verdicts, a picture, and all of it as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uce.config import config_to_dict
from uce.corpus.layout import write_rows
from uce.files import atomic_path, write_json
from uce.grid import DONE, read_rows
from uce.scaling.curves import Curve, curves_of, reference_means
from uce.scaling.settings import REFERENCES, Run, StudyConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#1f5fa8", "#d98b1f", "#3c8d5a", "#a8456b")
_REFERENCE_STYLES = {"chance": ":", "mean gene vectors": "-.", "own PCA": (0, (6, 2))}
_WARNING = (
    "The published point (10.1038/s41592-026-03120-y: the smallest size of which a run has over 95 % of the best "
    "score) is for comparison alone: of curves that rise without end it says the same."
)


def write_report(study: StudyConfig, runs: Sequence[Run], out: Path) -> Path:
    """Write `rows.csv`, `report.md`, `curves.png` and `verdict.json` of the runs there are; returns `report.md`."""
    records = {record["name"]: record for record in read_rows(out)}
    references = reference_means(records, REFERENCES)
    curves = curves_of(study, runs, records, chance=references.get("chance", 0.0))
    failed = {name: record["reason"] for name, record in records.items() if record["status"] != DONE}
    missing = [run.name for run in runs if run.name not in records]
    write_rows(out / "rows.csv", [_line(run, records.get(run.name, {})) for run in runs])
    _draw(study, curves, references, out / "curves.png")
    content = {
        "study": config_to_dict(study),
        "references": references,
        "curves": [_plain(curve) for curve in curves],
        "failed": failed,
        "missing": missing,
    }
    write_json(out / "verdict.json", content)
    fixed = {"Question": study.question, "Rule": study.rule, "Claim": study.claim}
    lines = [line for title, text in fixed.items() if text for line in (f"**{title}.** {text}", "")]
    lines += [*verdict_table(study, curves, references), "", _WARNING]
    if failed or missing:
        lines += ["", f"{len(failed)} runs failed, {len(missing)} are not done."]
        lines += [f"- {name}: {reason}" for name, reason in failed.items()]
    with atomic_path(out / "report.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return out / "report.md"


def _line(run: Run, record: Mapping[str, Any]) -> dict[str, object]:
    values = record.get("values", {})
    f1 = values.get("f1", {})
    about = {"learner": run.learner.name, "scheme": run.scheme, "size": run.size, "seed": run.seed}
    shown = {key: values.get(key, "") for key in ("cells", "datasets", "shown", "last_fifth")}
    mean = f"{np.mean(list(f1.values())):.4f}" if f1 else ""
    each = " ".join(f"{name}={score:.4f}" for name, score in sorted(f1.items()))
    end = {"status": record.get("status", "not done"), "seconds": record.get("seconds", "")}
    return about | shown | {"f1": mean, "of_each_dataset": each} | end | {"reason": record.get("reason", "")}


def verdict_table(study: StudyConfig, curves: Sequence[Curve], references: Mapping[str, float]) -> list[str]:
    """The lines of a Markdown table: a row per curve, then the scores that no size changes."""
    lines = [
        f"| learner | scheme | untrained | smallest | full | gain a doubling, 95 % over {study.seeds} seeds | "
        "over datasets | shape | verdict | saturated at | N95 | published point | last fifth of the updates |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for curve in curves:
        said = curve.verdict
        means = _means(curve)
        over = f"{said.over_units[0]:+.4f} to {said.over_units[1]:+.4f}" if said.over_units else ""
        limits = f"{said.gain:+.4f} ({said.lower:+.4f} to {said.upper:+.4f})" if said.choice else said.why
        cells = [
            curve.learner,
            curve.scheme,
            f"{curve.untrained.mean():.3f}" if len(curve.untrained) else "",
            f"{means[0]:.3f}",
            f"{means[-1]:.3f}",
            limits,
            over,
            said.choice.shape if said.choice else "",
            curve.said,
            *(f"{point:,.0f}" if point else "" for point in (curve.corrected, said.n95)),
            f"{curve.published:,.0f}" if np.isfinite(curve.published) else "",
            "" if curve.last_fifth is None else f"{curve.last_fifth:+.4f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if references:
        scores = ", ".join(f"{what} {score:.3f}" for what, score in references.items())
        lines += ["", f"Scores that no size changes: {scores}. Own PCA has seen the cells it is judged on."]
    return lines


def _means(curve: Curve) -> Any:
    """(K,) means over the seeds that are there, NaN where none is."""
    there = np.isfinite(curve.scores)
    sums = np.where(there, curve.scores, 0).sum(axis=0)
    return np.where(there.any(axis=0), sums / np.maximum(there.sum(axis=0), 1), np.nan)


def _plain(curve: Curve) -> dict[str, Any]:
    """A curve as JSON; what is not a number is None there."""
    content = asdict(curve) | {"missing": curve.missing}
    return {key: _value(value) for key, value in content.items()}


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _value(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | tuple | list):
        return [_value(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value


def _draw(study: StudyConfig, curves: Sequence[Curve], references: Mapping[str, float], path: Path) -> None:
    from matplotlib.figure import Figure

    learners = [learner.name for learner in study.learners]
    figure = Figure(figsize=(4.2 * len(learners), 3.8), layout="constrained", facecolor="white")
    panels = figure.subplots(1, len(learners), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, learners, strict=True):
        own = [curve for curve in curves if curve.learner == name]
        for curve, colour in zip(own, _COLOURS * len(own), strict=False):
            _draw_curve(axes, curve, colour)
        for what, score in references.items():
            style = _REFERENCE_STYLES.get(what, ":")
            axes.axhline(score, color="#8a8f98", linewidth=1, linestyle=style, label=f"{what} {score:.2f}")
        axes.set_title("\n".join([name, *(f"{curve.scheme}: {curve.said}" for curve in own)]), fontsize=9)
        axes.set_xscale("log")
        axes.set_xlim(own[0].sizes[0] / 3, own[0].sizes[-1] * 1.5)  # also where no run is done
        ticks = own[0].sizes[::-2]
        axes.set_xticks(ticks, [f"{size:,.0f}" for size in ticks])
        axes.minorticks_off()
        axes.set_xlabel(f"{study.axis} to learn from")
    lowest, highest = _range(curves, references)
    panels[0].set_ylim(lowest, highest)
    panels[0].set_ylabel("macro-F1 of cell types")
    panels[-1].legend(fontsize=7, frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def _range(curves: Sequence[Curve], references: Mapping[str, float]) -> tuple[float, float]:
    """Where all curves are seen well; chance is far below and has its number in the legend."""
    scores = np.concatenate([np.append(curve.scores, curve.untrained) for curve in curves])
    shown = [*scores[np.isfinite(scores)], *(score for what, score in references.items() if what != "chance")]
    lowest, highest = (min(shown), max(shown)) if shown else (0.0, 1.0)
    return lowest - 0.03, highest + 0.03


def _draw_curve(axes: "Axes", curve: Curve, colour: str) -> None:
    for seed in curve.scores:
        axes.plot(curve.sizes, seed, color=colour, alpha=0.3, linewidth=0.8)
    axes.plot(curve.sizes, _means(curve), color=colour, linewidth=1.8, marker="o", markersize=3, label=curve.scheme)
    if len(curve.untrained):  # left of all sizes, as size 0 has no logarithm
        start = curve.sizes[0] / 2
        axes.plot([start], [curve.untrained.mean()], color=colour, marker="x", linestyle="none")
        axes.annotate(
            "untrained", (start, curve.untrained.mean()), fontsize=6, xytext=(2, 4), textcoords="offset points"
        )
