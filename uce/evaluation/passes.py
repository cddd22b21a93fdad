"""One row on one draw of the cells, asked every task; and the mean of several such passes."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.alignment import check_alignment
from uce.evaluation.candidates import Candidate
from uce.evaluation.cells import Cells
from uce.evaluation.context import Context, Settings
from uce.evaluation.embeddings import Embedding
from uce.evaluation.results import Findings, NotPossible, Row, unavailable
from uce.evaluation.tasks import Task


class Pass:
    """One row on one draw of the cells; what it needs is made when it is first asked, and forgotten after the last."""

    def __init__(
        self, number: int, candidate: Candidate, draw: NDArray[np.int64], cells: Cells, settings: Settings
    ) -> None:
        self.number, self.candidate = number, candidate
        self._draw, self._cells, self._settings = draw, cells, settings
        self._made: tuple[Context, Embedding] | None = None

    @property
    def key(self) -> str:
        """What its pieces are kept by."""
        return f"{self.number} {self.candidate.name} {self.candidate.copy}"

    def material(self) -> tuple[Context, Embedding]:
        """The context and the embedding, without cells that have no finite vector.

        Raises
        ------
        NotPossible
            There are no vectors.
        """
        if self.candidate.embedding is None:
            raise NotPossible(self.candidate.note)
        if self._made is None:
            embedding = self.candidate.embedding.take(self._draw).finite()
            self._made = Context(self._cells, self._settings).of(embedding), embedding
        return self._made

    def forget(self) -> None:
        """Let go of what was made."""
        self._made = None

    def refused(self) -> str:
        """Why these rows do not belong to these labels; "" where they do, or nobody claims it."""
        if self.candidate.kind in ("baseline", "control") or self.candidate.embedding is None:
            return ""
        try:
            context, embedding = self.material()
        except NotPossible:
            return ""
        return check_alignment(context, embedding)

    def answer(self, task: Task) -> Findings:
        """The findings of a task, whatever happens in it."""
        if self.candidate.status == "failed":
            return Findings(unavailable(task.metrics, "failed", self.candidate.note))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of libraries; what a reader must know is in the scores' notes
                return task.run(*self.material())
        except NotPossible as reason:
            return Findings(unavailable(task.metrics, "skipped", str(reason)))
        except Exception as error:  # one question that breaks must not take the others with it
            return Findings(unavailable(task.metrics, "failed", f"{type(error).__name__}: {error}"))


def merge(rows: Sequence[Row]) -> list[Row]:
    """One row per number: the mean over subsamples or copies, and the values themselves beside it."""
    together: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        together.setdefault((row.embedding, row.task, row.score.metric), []).append(row)
    return [_mean(group) if len(group) > 1 else group[0] for group in together.values()]


def _mean(group: Sequence[Row]) -> Row:
    scores = [row.score for row in group]
    first = next((score for score in scores if score.status not in ("ok", "suspect")), scores[0])
    if first.status not in ("ok", "suspect"):
        return replace(group[0], score=first)
    worst = next((score for score in scores if score.status == "suspect"), scores[0])
    values = tuple(score.value for score in scores)
    merged = replace(
        scores[0],
        value=float(np.mean(values)),
        low=float(np.mean([score.low for score in scores])),
        high=float(np.mean([score.high for score in scores])),
        status=worst.status,
        note=worst.note,
        seconds=sum(score.seconds for score in scores),
        by_subsample=values,
    )
    return replace(group[0], score=merged)
