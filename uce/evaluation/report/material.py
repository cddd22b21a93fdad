"""An evaluation as a page needs it: rows in order, who is compared with whom, what could not be done."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from uce.evaluation.cells import Cells
from uce.evaluation.embeddings import Embedding
from uce.evaluation.report.figures import Look, between, looks, words
from uce.evaluation.report.page import Html, bullets, paragraph
from uce.evaluation.results import EvalResult, Score

READ = ("ok", "suspect")


@dataclass(frozen=True, eq=False)
class Material:
    """What the sections of a report are made from.

    Attributes
    ----------
    result
        The evaluation.
    cells
        The judged cells.
    embeddings
        Vectors of these cells, where there are any.
    seed
        Of the maps.
    """

    result: EvalResult
    cells: Cells
    embeddings: Sequence[Embedding]
    seed: int

    @cached_property
    def kinds(self) -> dict[str, str]:
        """Name -> kind of every row, in the order of the result: `own`, `given`, `baseline`, `control`."""
        return {str(entry["name"]): str(entry["kind"]) for entry in self.result.embeddings} | {
            row.embedding: row.kind for row in self.result.rows
        }

    @cached_property
    def looks(self) -> dict[str, Look]:
        """How each is drawn."""
        return looks(self.kinds)

    @cached_property
    def names(self) -> list[str]:
        """Of every row but the controls."""
        return [name for name, kind in self.kinds.items() if kind != "control"]

    @cached_property
    def scores(self) -> dict[str, dict[str, Score]]:
        """Metric -> embedding -> score, in the order of the result."""
        found: dict[str, dict[str, Score]] = {}
        for row in self.result.rows:
            found.setdefault(row.score.metric, {})[row.embedding] = row.score
        order = list(self.kinds)
        return {metric: dict(sorted(of.items(), key=lambda item: order.index(item[0]))) for metric, of in found.items()}

    @cached_property
    def headline(self) -> list[str]:
        """Metrics of the main picture; one that could be computed for nobody is not marked, but is named elsewhere."""
        return [metric for metric, of in self.scores.items() if any(score.headline for score in of.values())]

    @cached_property
    def tasks(self) -> list[str]:
        """That were asked."""
        return list(dict.fromkeys(row.task for row in self.result.rows))

    def metrics(self, task: str) -> list[str]:
        """Of a task, in order."""
        return list(dict.fromkeys(row.score.metric for row in self.result.rows if row.task == task))

    def details(self, task: str) -> dict[str, dict[str, Any]]:
        """Embedding -> details, of those that have any, controls left out."""
        found = self.result.details.get(task, {})
        return {name: found[name] for name in self.names if found.get(name)}

    def value(self, name: str, metric: str) -> float:
        """One number, NaN where there is none."""
        score = self.scores.get(metric, {}).get(name)
        return score.value if score is not None and score.status in READ else np.nan

    @cached_property
    def first(self) -> str:
        """The embedding that the report is about."""
        return self.names[0] if self.names else next(iter(self.kinds), "")

    @cached_property
    def best_baseline(self) -> str | None:
        """The one that carries labels best, for pictures that have room for one only."""
        values = {
            name: max(
                np.nan_to_num(self.value(name, metric), nan=-1.0)
                for metric in ("knn_macro_f1", "cross_knn_f1_forward", "scib_total")
            )
            for name in self.names
            if self.kinds[name] == "baseline"
        }
        values = {name: value for name, value in values.items() if value >= 0}
        return max(values, key=lambda name: values[name]) if values else None

    def featured(self, there: Sequence[str]) -> list[str]:
        """The first embedding and the best baseline, of those that are there."""
        wanted = [self.first, *([self.best_baseline] if self.best_baseline else [])]
        return [name for name in dict.fromkeys(wanted) if name in there] or list(there)[:1]

    def transductive(self) -> list[str]:
        """Rows that were fitted on the very cells they are judged on."""
        return [str(entry["name"]) for entry in self.result.embeddings if entry.get("transductive")]

    @cached_property
    def absent(self) -> dict[str, str]:
        """Rows without any number, all for the same reason -> the reason."""
        reasons: dict[str, set[str]] = {}
        for row in self.result.rows:
            score = row.score
            reasons.setdefault(row.embedding, set()).add(
                "" if score.status in READ else f"{score.status}{': ' + score.note if score.note else ''}"
            )
        return {name: next(iter(found)) for name, found in reasons.items() if len(found) == 1 and "" not in found}

    def told(self, name: str, score: Score) -> bool:
        """Whether a score needs words: not those of absent rows, and not controls for looking odd, as they should."""
        odd = score.status == "suspect" and self.kinds[name] == "control"
        return score.status != "ok" and name not in self.absent and not odd

    def missing(self, task: str) -> Html:
        """What could not be computed in a task, with the reasons in words, but for rows without any number."""
        reasons: dict[tuple[str, str], dict[str, list[str]]] = {}
        for row in self.result.rows:
            if row.task == task and self.told(row.embedding, row.score):
                by_name = reasons.setdefault((row.score.status, row.score.note), {})
                by_name.setdefault(row.embedding, []).append(row.score.metric)
        total = len(self.metrics(task))
        lines = [_told(status, note, by_name, total) for (status, note), by_name in reasons.items()]
        return Html(paragraph("Not everything could be had:", look="small") + bullets(lines)) if lines else Html("")


def _told(status: str, note: str, by_name: dict[str, list[str]], total: int) -> str:
    metrics = list(dict.fromkeys(metric for found in by_name.values() for metric in found))
    which = "everything" if len(metrics) == total else between([words(metric) for metric in metrics])
    return f"{between(list(by_name))}: {which} {status}{': ' + note if note else ''}"
