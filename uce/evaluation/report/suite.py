"""One page, and one text, over many evaluations."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from uce.evaluation.combine import Standing, standings
from uce.evaluation.report import page as html
from uce.evaluation.report.figures import GREY, INK, draw_point, looks, new_figure, picture, short, style, words
from uce.files import atomic_path

if TYPE_CHECKING:
    from uce.evaluation.suite import SuiteResult

_HOW_TO_READ = (
    "The units are data sets: means and intervals are over them, and an interval needs six.",
    "A difference is the first row minus another one, on the sets where both have the number; positive is in favour of "
    "the first row, also where lower is better.",
    "Means of rows that could be judged on different numbers of sets are not comparable; differences are.",
    "Scores that are suspect, failed or skipped are in no mean; the page of each set says why.",
)
_CAPTION = "Mean over data sets; a fine stroke is one set; bars are 95 % intervals over sets, where there are six."
_SEEN = {"clean": "no", "unknown": "not known"}


def write_suite_report(result: "SuiteResult", path: Path) -> Path:
    """The combined page: pictures, standings, every set, what could not be judged."""
    table = result.table()
    if table.empty:
        top = [html.banner("No data set could be judged.")]
        return html.write_page(path, html.page(result.suite.name, top, [_problems(result)]))
    groups = _groups(result, table)
    sections = [
        html.section("Pictures", *(html.figure(_draw(group), group.title, _CAPTION, wide=True) for group in groups))
    ]
    for group in groups:
        sections.append(html.section(group.title, *(_standing_table(group.title, rows) for rows in group.standings)))
    sections += [_set_by_set(table), _sets(result), _problems(result)]
    sections.append(html.section("How to read this", html.bullets(_HOW_TO_READ)))
    top = [html.paragraph(sentence, look="verdict") for sentence in _verdicts(groups)]
    return html.write_page(path, html.page(result.suite.name, top, sections))


def write_summary(result: "SuiteResult", path: Path) -> None:
    """The same in Markdown, with its pictures as `.svg` beside it."""
    table = result.table()
    lines = [f"# {result.suite.name}", "", f"Model: `{result.suite.model}`. " + " ".join(_HOW_TO_READ), ""]
    if not table.empty:
        groups = _groups(result, table)
        lines += [*(f"- {sentence}" for sentence in _verdicts(groups)), ""]
        for group in groups:
            drawn = _draw(group)
            with atomic_path(path.with_name(f"{group.name}.svg")) as temporary:
                temporary.write_bytes(drawn.data)
            lines += [f"## {group.title}", "", f"![{drawn.alt}]({group.name}.svg)", "", _CAPTION, ""]
            for rows in group.standings:
                lines += [f"### {words(rows[0].metric)}", "", *_markdown(_NAMES, map(_cells, rows)), ""]
        lines += ["## Set by set", ""]
        for metric in _headline(table):
            frame = _wide(table, metric).round(3)
            body = [[name, *("" if np.isnan(v) else f"{v:.3f}" for v in row)] for name, row in _rows(frame)]
            lines += [f"### {words(metric)}", "", *_markdown(["", *map(str, frame.columns)], body), ""]
    lines += ["## Data sets", "", *_markdown(_SET_NAMES, _set_rows(result)), ""]
    lines += [f"- Not judged: {name}: {problem}" for name, problem in result.problems.items()]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


@dataclass(frozen=True, eq=False)
class _Group:
    """Some of the data sets: their scores, and how every row does in each headline metric."""

    name: str
    title: str
    table: pd.DataFrame
    standings: list[list[Standing]]


def _groups(result: "SuiteResult", table: pd.DataFrame) -> list[_Group]:
    """The sets that the model was not trained on, and all of them."""
    own = table[table["kind"] == "own"]["embedding"]
    first = "" if own.empty else str(own.iloc[0])
    parts = {"unseen": ("Sets not trained on", table[table["seen"] == "clean"]), "all": ("All sets", table)}
    groups = []
    for name, (title, part) in parts.items():
        found = [standings(part, metric, first, seed=result.suite.seed) for metric in _headline(table)]
        groups.append(_Group(name, f"{title} ({part['dataset'].nunique()})", part, [rows for rows in found if rows]))
    return [group for group in groups if group.standings]


def _headline(table: pd.DataFrame) -> list[str]:
    """The metrics that stand in the main picture and have a better side."""
    return list(dict.fromkeys(table[table["headline"] & (table["better"] != "neither")]["metric"]))


def _verdicts(groups: Sequence[_Group]) -> list[str]:
    """Per group, in words: how the first row stands against PCA and against the mean of gene vectors."""
    said = []
    for group in groups:
        by_metric = {rows[0].metric: {row.embedding: row for row in rows} for rows in group.standings}
        against = by_metric.get("knn_macro_f1", {})
        clauses = [_clause(name, against[name]) for name in ("pca", "mean-genes", "untrained") if name in against]
        if clauses:
            said.append(f"{group.title}: in labels by nearest neighbours the model is {'; '.join(clauses)}.")
    return said


def _clause(name: str, row: Standing) -> str:
    sure = not np.isnan(row.difference_low) and (row.difference_low > 0 or row.difference_high < 0)
    word = "ahead of" if row.difference > 0 else "behind"
    interval = "" if np.isnan(row.difference_low) else f", {row.difference_low:+.3f} to {row.difference_high:+.3f}"
    doubt = "" if sure else " (no more than chance would do)" if interval else " (too few sets for an interval)"
    sets = row.wins + row.ties + row.losses
    return f"{word} {name} by {abs(row.difference):.3f}{interval}{doubt}, better in {row.wins} of {sets} sets"


_NAMES = (
    "row",
    "kind",
    "sets",
    "mean",
    "interval",
    "rank",
    "first minus this",
    "its interval",
    "won/tied/lost",
    "p (Holm)",
)


def _cells(row: Standing) -> list[str]:
    def number(value: float, form: str = ".3f") -> str:
        return "" if np.isnan(value) else f"{value:{form}}"

    def span(low: float, high: float, form: str) -> str:
        return "" if np.isnan(low) else f"{low:{form}} to {high:{form}}"

    compared = not np.isnan(row.difference)
    return [
        row.embedding,
        row.kind,
        str(row.n_sets),
        number(row.mean),
        span(row.low, row.high, ".3f"),
        number(row.rank, ".1f"),
        number(row.difference, "+.3f"),
        span(row.difference_low, row.difference_high, "+.3f"),
        f"{row.wins}/{row.ties}/{row.losses}" if compared else "",
        number(row.p, ".3f"),
    ]


def _standing_table(title: str, rows: Sequence[Standing]) -> html.Html:
    better = {"lower": "lower is better", "higher": "higher is better"}.get(rows[0].better, "no better side")
    name = f"{words(rows[0].metric)} ({better}), {title[0].lower()}{title[1:]}"
    return html.table(name, _NAMES, [_sortable(row) for row in rows])


def _sortable(row: Standing) -> list[object]:
    shown = _cells(row)
    values: list[object] = [*shown]
    for place, value in ((2, row.n_sets), (3, row.mean), (5, row.rank), (6, row.difference), (9, row.p)):
        values[place] = html.Cell(value, shown[place])
    return values


def _draw(group: _Group) -> html.Picture:
    """Means of every row, a panel per metric, with intervals where there are any; every set as a faint stroke."""
    kinds = dict(zip(group.table["embedding"], group.table["kind"], strict=True))
    look = looks(kinds)
    part = [rows for rows in group.standings if len(rows) > 1]
    order = [name for name in kinds if any(row.embedding == name for rows in part for row in rows)]
    with style():
        columns = 2
        lines = -(-len(part) // columns)
        figure = new_figure(0.5 + lines * (0.55 + 0.16 * len(order)), width=7.6)
        panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
        for axes, rows in zip(panels, part, strict=False):
            wide = _wide(group.table, rows[0].metric)
            for row in rows:
                y = order.index(row.embedding)
                axes.plot(wide[row.embedding], np.full(len(wide), y), "|", color="#b9bec3", ms=6, mew=0.8, zorder=1)
                if not np.isnan(row.low):
                    axes.plot([row.low, row.high], [y, y], color=look[row.embedding].colour, lw=1.2, zorder=2)
                draw_point(axes, row.mean, y, look[row.embedding])
            arrow = {"lower": "← better", "higher": "better →"}.get(rows[0].better, "")
            axes.set_title(words(rows[0].metric))
            axes.set_xlabel(arrow, color=GREY, fontsize=7, loc="right" if rows[0].better == "higher" else "left")
            axes.set_yticks(range(len(order)), [short(name, 22) for name in order], color=INK)
            axes.invert_yaxis() if axes is panels[0] else None
            axes.grid(axis="x", color="#e8eaec", lw=0.6)
        for axes in panels[len(part) :]:
            axes.set_visible(False)
        alt = "; ".join(f"{words(r[0].metric)}: best {r[0].embedding} {r[0].mean:.3f}" for r in part)
        return picture(figure, f"Mean scores over data sets. {alt}")


def _wide(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    chosen = table[(table["metric"] == metric) & (table["status"] == "ok")]
    frame = chosen.pivot_table(index="dataset", columns="embedding", values="value", sort=False)
    order = list(dict.fromkeys(table["embedding"]))
    return frame[[name for name in order if name in frame]]


def _rows(frame: pd.DataFrame) -> list[tuple[str, list[float]]]:
    return [
        (str(name), [float(value) for value in row]) for name, row in zip(frame.index, frame.to_numpy(), strict=True)
    ]


def _set_by_set(table: pd.DataFrame) -> html.Section:
    blocks = []
    for metric in _headline(table):
        frame = _wide(table, metric)
        sign = -1 if table[table["metric"] == metric]["better"].iloc[0] == "lower" else 1
        judged = [name for name in frame if (table[table["embedding"] == name]["kind"] != "control").all()]
        rows = []
        for name, values in _rows(frame):
            best = max(
                (sign * v for c, v in zip(frame, values, strict=True) if c in judged and not np.isnan(v)), default=None
            )
            rows.append(
                [
                    name,
                    *(
                        html.Cell(v, look="best" if c in judged and sign * v == best else "")
                        for c, v in zip(frame, values, strict=True)
                    ),
                ]
            )
        blocks.append(html.table(words(metric), ["data set", *map(str, frame.columns)], rows))
    return html.section("Set by set", *blocks)


_SET_NAMES = ("data set", "cells judged", "labels", "trained on", "held out", "note")


def _set_rows(result: "SuiteResult") -> list[list[Any]]:
    notes = {entry.name: entry.note for entry in result.suite.datasets}
    return [
        [
            name,
            content["facts"]["judged"],
            content["facts"]["labels"],
            _SEEN.get(content["leakage"]["status"], "yes"),
            _split(content),
            notes[name],
        ]
        for name, content in result.results.items()
    ]


def _split(content: dict[str, Any]) -> str:
    """How labels were held out, or why they were not."""
    for details in content["details"].get("transfer", {}).values():
        if "split" in details:
            return str(details["split"])
    notes = [s["note"] for s in content["scores"] if s["task"] == "transfer" and s["status"] != "ok"]
    return notes[0] if notes else "not asked"


def _sets(result: "SuiteResult") -> html.Section:
    links = "".join(f'<li><a href="{escape(name)}/report.html">{escape(name)}</a></li>' for name in result.results)
    return html.section(
        "Data sets",
        html.table("Data sets", _SET_NAMES, _set_rows(result)),
        html.paragraph("The full report of each:"),
        html.Html(f"<ul>{links}</ul>"),
    )


def _problems(result: "SuiteResult") -> html.Section:
    if not result.problems:
        return html.section("Not judged", html.paragraph("Every data set of the suite was judged."))
    rows = [[name, problem] for name, problem in result.problems.items()]
    return html.section("Not judged", html.table("Not judged", ["data set", "why"], rows))


def _markdown(names: Sequence[str], rows: Any) -> list[str]:
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    return lines + [
        "| " + " | ".join(str(value).replace("|", "/").replace("\n", " ") for value in row) + " |" for row in rows
    ]
