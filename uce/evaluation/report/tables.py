"""The numbers behind the pictures: every score, what is missing and why, the environment, how to run it again."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from uce.evaluation.report.figures import words
from uce.evaluation.report.material import READ, Material
from uce.evaluation.report.page import Cell, Html, Section, bullets, code, heading, paragraph, section, table
from uce.evaluation.results import Score

_LIMITS = (
    "Labels are what the authors of the data called their cells. An embedding that disagrees with them may be right.",
    "Batches and donors are confounded with biology wherever a donor has a type, a disease or a tissue of its own.",
    "Intervals are over the donors of this data set. They say nothing about another tissue, assay or species.",
    "Scores depend on the labels that were chosen: fewer, broader labels give higher scores to everything.",
    "Mixing of batches is no merit alone: noise mixes best. Read it only beside what is kept of biology.",
    "A UMAP is a picture. No distance, size or gap in it is evidence.",
    "Rows that are marked as fitted on these cells have seen them; zero-shot rows have not. They answer different "
    "questions.",
    "Nothing here says whether a type is missing from the labels, or whether a doublet was called a type.",
)

_STATUSES = (
    "ok: the number may be read.",
    "suspect: it was computed, but a check says not to trust it.",
    "undefined: there is no such number, as with one label.",
    "skipped: it cannot be computed on these cells; the reason says what would make it possible.",
    "failed: an error. It stopped nothing else, and no total was formed over the gap.",
)


def numbers(material: Material) -> Section:
    """Headline table, comparisons, every score, who is in the rows."""
    return section("Tables", *_all_tables(material))


def _all_tables(material: Material) -> Iterable[Html]:
    yield headline_table(material)
    if material.result.comparisons:
        yield _records("Comparisons", material.result.comparisons)
    yield _rows_table(material)
    yield _missing(material, "Failed and suspect", ("failed", "suspect"))
    yield _missing(material, "Skipped and undefined", ("skipped", "undefined"))
    yield _every_score(material)
    yield heading("Statuses")
    yield bullets(_STATUSES)


def headline_table(material: Material) -> Html:
    """Embeddings by headline metrics, the best of those that are no control in bold."""
    best = {metric: _best(material, metric) for metric in material.headline}
    rows = [
        [
            name,
            material.kinds[name],
            *(_score_cell(material, metric, name, best[metric]) for metric in material.headline),
        ]
        for name in material.kinds
    ]
    return table("Headline scores", ["embedding", "kind", *(words(metric) for metric in material.headline)], rows)


def _best(material: Material, metric: str) -> float:
    scores = [score for name, score in material.scores[metric].items() if name in material.names]
    values = [score.value for score in scores if score.status == "ok"]
    if not values or scores[0].better == "neither":
        return np.nan
    return max(values) if scores[0].better == "higher" else min(values)


def _score_cell(material: Material, metric: str, name: str, best: float) -> Cell:
    score = material.scores[metric].get(name)
    if score is None:
        return Cell(None)
    if score.status not in READ:
        return Cell(score.value, shown=score.status, look=score.status)
    interval = f"{score.low:.3f} to {score.high:.3f}" if np.isfinite(score.low) else ""
    look = "suspect" if score.status == "suspect" else "best" if score.value == best and name in material.names else ""
    return Cell(score.value, note=interval, look=look)


def _every_score(material: Material) -> Html:
    names = [
        "embedding",
        "kind",
        "task",
        "metric",
        "value",
        "low",
        "high",
        "between draws",
        "status",
        "note",
        "better",
        "cells",
        "groups",
        "labels",
    ]
    rows = [[row.embedding, row.kind, row.task, row.score.metric, *_fields(row.score)] for row in material.result.rows]
    return table("Every score", names, rows)


def _fields(score: Score) -> list[object]:
    status = Cell(score.status, look=score.status if score.status != "ok" else "")
    counts = [value or None for value in (score.n_cells, score.n_groups, score.n_labels)]
    draws = [value for value in score.by_subsample if np.isfinite(value)]
    spread = f"{min(draws):.3f} to {max(draws):.3f}" if draws else ""
    return [score.value, score.low, score.high, spread, status, score.note, score.better, *counts]


def _missing(material: Material, title: str, statuses: tuple[str, ...]) -> Html:
    """One line per row, task and reason, with all the metrics it holds for."""
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for row in material.result.rows:
        if row.score.status in statuses:
            key = (row.embedding, row.task, row.score.status, row.score.note)
            found.setdefault(key, []).append(row.score.metric)
    if not found:
        return paragraph(f"{title}: none.")
    rows = [
        [name, task, Cell(status, look=status), note, _which(metrics, material.metrics(task))]
        for (name, task, status, note), metrics in found.items()
    ]
    return table(title, ["embedding", "task", "status", "why", "metrics"], rows)


def _which(metrics: list[str], every: list[str]) -> str:
    return f"all {len(every)}" if len(metrics) == len(every) > 1 else ", ".join(metrics)


def _rows_table(material: Material) -> Html:
    """What was judged: width, cells, what was left out, whether it has seen the cells."""
    rows = [
        [
            entry["name"],
            entry["kind"],
            entry.get("title", ""),
            entry.get("dim") or None,
            entry.get("cells") or None,
            entry.get("left_out", 0),
            "yes" if entry.get("transductive") else "no",
            Cell(entry.get("seconds")),
            entry.get("note", ""),
        ]
        for entry in material.result.embeddings
    ]
    names = [
        "embedding",
        "kind",
        "what it is",
        "width",
        "cells",
        "left out",
        "fitted on these cells",
        "seconds",
        "note",
    ]
    return table("Rows", names, rows)


def _records(title: str, records: Iterable[Mapping[str, Any]]) -> Html:
    records = list(records)
    keys = [key for key in dict.fromkeys(key for record in records for key in record) if not _nested(records, key)]
    keys.sort(key=lambda key: ("other", "first", "metric").index(key) if key in ("other", "first", "metric") else 9)
    return table(
        title, [key.replace("_", " ") for key in keys], [[record.get(key) for key in keys] for record in records]
    )


def _nested(records: list[Mapping[str, Any]], key: str) -> bool:
    return any(isinstance(record.get(key), dict | list | tuple) for record in records)


def cells_left_out(material: Material) -> Section:
    """Which cells were judged, and which were not."""
    facts = material.result.facts
    rows: list[list[object]] = [["in the file", facts.get("cells")], ["without a label", facts.get("without_label")]]
    rows += [[f"without a value in {column}", count] for column, count in (facts.get("lacking") or {}).items()]
    rows.append(["judged", facts.get("judged")])
    if (facts.get("subsamples") or 1) > 1:
        rows.append([f"in each of {facts['subsamples']} draws, by batch and label", facts.get("cells_of_one")])
    rows += [
        [f"without a finite vector in {entry['name']}", entry["left_out"]]
        for entry in material.result.embeddings
        if entry.get("left_out")
    ]
    return section("Cells, and cells left out", table("Cells", ["cells", "number"], rows))


def provenance(material: Material) -> Section:
    """Versions, hashes, settings, and the command."""
    environment = material.result.environment
    rows = [[name, str(value)] for name, value in _flat(environment) if not name.startswith("seconds by task")]
    seconds = environment.get("seconds_by_task") or {}
    tasks = list(dict.fromkeys(task for by_task in seconds.values() for task in by_task))
    times = [[name, *(by_task.get(task) for task in tasks)] for name, by_task in seconds.items()]
    again = command(material)
    blocks = [heading("To run it again"), code(again)] if again else []
    blocks += [table("Environment", ["what", "value"], rows)]
    blocks += [table("Seconds by task", ["embedding", *tasks], times)] if times else []
    return section("How it was made", *blocks)


def _flat(values: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{before} {key}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, name)
        else:
            yield name, value


def command(material: Material) -> str:
    """The command that makes this report; "" where it is not known."""
    environment, facts = material.result.environment, material.result.facts
    if environment.get("command"):
        return str(environment["command"])
    if not facts.get("file"):
        return ""
    parts = ["uce", "eval", str(facts["file"])]
    for role, column in (facts.get("columns") or {}).items():
        parts += [f"--{role}-key", str(column)]
    by_kind = {kind: [name for name, k in material.kinds.items() if k == kind] for kind in ("own", "given", "baseline")}
    for option, names in (
        ("--model", by_kind["own"][:1]),
        ("--embeddings", by_kind["given"]),
        ("--baselines", by_kind["baseline"]),
    ):
        parts += [option, ",".join(names)] if names else []
    settings = environment.get("settings") or {}
    for name in ("max_cells", "seeds", "seed"):
        parts += [f"--{name.replace('_', '-')}", str(settings[name])] if name in settings else []
    return shlex.join([*parts, "-o", "report"])


def limits(_: Material) -> Section:
    """What this does not show."""
    return section("What this does not show", bullets(_LIMITS))
