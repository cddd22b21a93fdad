"""Every task on every row: failures as results, finished pieces kept, subsamples and copies brought together."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import uce
from uce.evaluation.alignment import check_columns
from uce.evaluation.candidates import Candidate, gather
from uce.evaluation.context import Settings
from uce.evaluation.controls import check_controls, make_controls
from uce.evaluation.embeddings import Embedding
from uce.evaluation.passes import Pass, merge
from uce.evaluation.reading import Judged
from uce.evaluation.records import describe, environment, hashes, versions
from uce.evaluation.results import EvalResult, Findings, Row
from uce.evaluation.saving import Pieces
from uce.evaluation.tasks import Task
from uce.evaluation.uncertainty import compare
from uce.progress import Progress, say


@dataclass
class _Found:
    """What the passes have found so far."""

    rows: list[Row] = field(default_factory=list)
    details: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    predictions: dict[str, dict[str, dict[str, NDArray[Any]]]] = field(default_factory=lambda: defaultdict(dict))
    seconds: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, candidate: Candidate, name: str, findings: Findings, number: int, seconds: float) -> None:
        self.rows += [Row(candidate.name, candidate.kind, name, score, number) for score in findings.scores]
        if number == 0:
            self.details[name][candidate.name] = findings.details
            self.predictions[name][candidate.name] = findings.predictions
            self.seconds[candidate.name][name] = round(seconds, 2)


def judge(
    judged: Judged,
    baselines: Sequence[str],
    tasks: Mapping[str, Task],
    settings: Settings,
    *,
    folder: Path | None = None,
    quiet: bool = False,
) -> EvalResult:
    """Judge what was read; with a folder, write the report into it.

    Raises
    ------
    StorageError
        The report cannot be written.
    """
    started = time.monotonic()
    inputs = hashes(judged.cells, judged.given)
    pieces = Pieces(folder, _plan(judged, settings, inputs))
    candidates = gather(judged, baselines, pieces, seed=settings.seed, copies=settings.seeds, quiet=quiet)
    candidates += _controls(judged, candidates, settings)
    banners = list(_doubts(judged, candidates))
    found, refused = _run_all(judged, candidates, tasks, settings, pieces, quiet=quiet)
    banners += refused.values()
    rows = merge(found.rows)
    banners += check_controls(rows)
    told = found.details.get("leakage", {}).values()
    leakage = next((details for details in told if details), {"status": "unknown", "rows": []})
    result = EvalResult(
        tuple(rows),
        {task: dict(by_name) for task, by_name in found.details.items()},
        {task: dict(by_name) for task, by_name in found.predictions.items()},
        _comparisons(found, refused, settings),
        {"name": judged.cells.name, **judged.facts},
        tuple(describe(one, judged.record_of(one.name)) for one in candidates if not one.copy),
        leakage,
        tuple(banners),
        environment(settings, inputs, found.seconds, time.monotonic() - started),
    )
    if folder is not None:
        from uce.evaluation.report import write_report

        result.write(folder)  # first: a fault in drawing must not lose the numbers
        say("drawing the report", quiet=quiet)
        draw = judged.draws[0]
        drawn = [c.embedding.take(draw) for c in candidates if c.embedding and not c.copy]
        shown = [embedding.finite() for embedding in drawn if embedding.any_finite]
        write_report(result, judged.cells.take(draw), shown, folder / "report.html")
        pieces.drop()
    return result


def _first(candidates: Sequence[Candidate]) -> Embedding | None:
    """Of the first row that has vectors."""
    return next((c.embedding for c in candidates if c.embedding is not None and c.embedding.any_finite), None)


def _doubts(judged: Judged, candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """What looks wrong with the columns, by their names and by the first row that has vectors."""
    return check_columns(judged.cells, _first(candidates))


def _controls(judged: Judged, candidates: Sequence[Candidate], settings: Settings) -> list[Candidate]:
    """The controls, shuffled after the first row that has vectors."""
    made = make_controls(judged.cells, _first(candidates), seed=settings.seed)
    return [Candidate(control.name, "control", control.title, control) for control in made]


def _run_all(
    judged: Judged,
    candidates: Sequence[Candidate],
    tasks: Mapping[str, Task],
    settings: Settings,
    pieces: Pieces,
    *,
    quiet: bool,
) -> tuple[_Found, dict[str, str]]:
    """All passes; and per row whose vectors do not belong to these labels, the words that refuse it."""
    found, refused = _Found(), {}
    # The same objects for every row: what a task keeps by them is found once.
    drawn = [judged.cells.take(draw) for draw in judged.draws] if len(judged.draws) > 1 else [judged.cells]
    passes = [
        Pass(number, candidate, judged.draws[number % len(drawn)], drawn[number % len(drawn)], settings)
        for number, candidate in _passes(judged, candidates, settings)
    ]
    # What is asked of the cells alone needs a row that has vectors; the controls always have.
    first = next(one for one in passes if one.candidate.embedding is not None and one.candidate.embedding.any_finite)
    asked = [[name for name, task in tasks.items() if _is_asked(task, one, first)] for one in passes]
    with Progress("evaluating", sum(map(len, asked)), unit="tasks", quiet=quiet) as progress:
        for one, names in zip(passes, asked, strict=True):
            if words := one.refused():
                refused[one.candidate.name] = words
            for name in names:
                progress.note(f"{one.candidate.name}: {name}")
                begun = time.monotonic()
                findings = pieces.findings(f"{one.key} {name}", partial(one.answer, tasks[name]))
                if one.candidate.name in refused and name != "collapse":
                    findings = _suspected(findings, refused[one.candidate.name])
                found.add(one.candidate, name, findings, one.number, time.monotonic() - begun)
                progress.advance(1)
            one.forget()
    return found, refused


def _passes(judged: Judged, candidates: Sequence[Candidate], settings: Settings) -> Iterator[tuple[int, Candidate]]:
    """Which row is judged how often: on every subsample, or, where all cells are judged, in every copy."""
    several = len(judged.draws) > 1
    for number in range(settings.seeds):
        for candidate in candidates:
            if number == candidate.copy or (candidate.copy is None and (several or number == 0)):
                yield number, candidate


def _is_asked(task: Task, one: Pass, first: Pass) -> bool:
    if task.of == "cells":
        return one is first
    return task.of == "embedding" or (one.candidate.kind == "own" and one.number == 0)


def _suspected(findings: Findings, words: str) -> Findings:
    scores = tuple(replace(s, status="suspect", note=words) if s.status == "ok" else s for s in findings.scores)
    return replace(findings, scores=scores)


def _comparisons(found: _Found, refused: Mapping[str, str], settings: Settings) -> tuple[dict[str, Any], ...]:
    """Paired differences between the first row that may be read and each other one, from the same held-out cells."""
    kinds = {row.embedding: row.kind for row in found.rows}
    predictions = {
        name: columns
        for name, columns in found.predictions.get("transfer", {}).items()
        if columns and name not in refused and kinds[name] != "control"
    }
    if len(predictions) < 2:
        return ()
    first = next(iter(predictions))
    # What another draw of the same cells' sentences changes is no difference between embeddings.
    drawn = [row.score.value for row in found.rows if (row.embedding, row.score.metric) == (first, "noise_macro_f1")]
    floor = float(np.nan_to_num(drawn[0])) if drawn else 0.0
    return tuple(compare(predictions, first, noise_floor=floor, draws=settings.bootstrap, seed=settings.seed))


def _plan(judged: Judged, settings: Settings, inputs: Mapping[str, str]) -> dict[str, Any]:
    reader = judged.cells.reader
    return {
        "uce": uce.__version__,
        "settings": asdict(settings),
        "inputs": dict(inputs),
        "columns": judged.facts["columns"],
        "model": reader.model.sha256 if reader else None,
        "table": reader.match.table.sha256 if reader else None,
        "computing": str(reader.settings) if reader else None,
        "packages": versions(),
    }
