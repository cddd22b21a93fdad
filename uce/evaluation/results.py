"""What an evaluation finds: scores with their status, what pictures need beside them, and how they are written down."""

import gzip
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uce.files import atomic_path, write_json

SCHEMA = "uce.eval/1"
Status = Literal["ok", "failed", "skipped", "undefined", "suspect"]
Family = Literal[
    "bio",
    "batch",
    "total",
    "structure",
    "transfer",
    "unseen",
    "calibration",
    "robustness",
    "collapse",
    "leakage",
    "cross",
]
Better = Literal["higher", "lower", "neither"]
NAN = float("nan")


class NotPossible(Exception):  # noqa: N818  not an error: the way to say `skipped`
    """A task or a baseline cannot be carried out on these cells; the text says why, and what would make it possible."""


@dataclass(frozen=True)
class Score:
    """One number of one embedding; its status says whether it may be read.

    Attributes
    ----------
    metric
        Name of the number, unique within its task.
    value
        NaN unless the status is `ok` or `suspect`.
    family
        The panel it belongs to.
    low, high
        95 % interval, NaN where there is none.
    status
        `ok`; `failed` (an exception); `skipped` (cannot be done here); `undefined` (no such number, as with one label);
        `suspect` (computed, but a gate says not to trust it).
    note
        In words, why the status is not `ok`, or what a reader must know.
    better
        Which way is better.
    n_cells, n_groups, n_labels
        What it was computed from; 0 where that does not apply.
    seconds
        It took.
    headline
        Whether it stands in the picture of all rows.
    by_subsample
        The value in every subsample of the cells, where there are several; `value` is their mean.
    """

    metric: str
    value: float
    family: Family
    low: float = NAN
    high: float = NAN
    status: Status = "ok"
    note: str = ""
    better: Better = "higher"
    n_cells: int = 0
    n_groups: int = 0
    n_labels: int = 0
    seconds: float = 0.0
    headline: bool = False
    by_subsample: tuple[float, ...] = ()


@dataclass(frozen=True)
class Findings:
    """What a task found out about one embedding.

    Attributes
    ----------
    scores
        Its numbers.
    details
        Plain values (lists, dicts, numbers, texts) that pictures and tables are drawn from; their keys are the task's.
    predictions
        Columns of equal length, one entry per held-out cell, from which the scores can be computed again.
    """

    scores: tuple[Score, ...]
    details: dict[str, Any] = field(default_factory=dict)
    predictions: dict[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A score with the embedding and the task it belongs to."""

    embedding: str
    kind: str
    task: str
    score: Score
    subsample: int = 0


@dataclass(frozen=True, eq=False)
class EvalResult:
    """The outcome of `uce.evaluate`.

    Attributes
    ----------
    rows
        Every score of every embedding, in order.
    details
        task -> embedding -> what its pictures need.
    predictions
        task -> embedding -> columns.
    comparisons
        Paired differences between the first embedding and each other row, see `uce.evaluation.uncertainty.compare`.
    facts
        About the cells: name, numbers of cells, labels, batches, groups, what was left out and why, the split.
    embeddings
        Per embedding: name, kind, title, width, cells, rows left out, whether it has seen the cells (transductive).
    leakage
        Status and evidence, see `uce.evaluation.tasks.leakage`.
    banners
        Warnings that belong at the top of a report, such as a control on the wrong side.
    environment
        Versions, threads, hashes of the inputs.
    """

    rows: tuple[Row, ...]
    details: dict[str, dict[str, dict[str, Any]]]
    predictions: dict[str, dict[str, dict[str, NDArray[Any]]]]
    comparisons: tuple[dict[str, Any], ...]
    facts: dict[str, Any]
    embeddings: tuple[dict[str, Any], ...]
    leakage: dict[str, Any]
    banners: tuple[str, ...]
    environment: dict[str, Any]

    def table(self) -> pd.DataFrame:
        """Long table: embedding, kind, task and the fields of `Score`, one line per number."""
        return pd.DataFrame(
            [{"embedding": row.embedding, "kind": row.kind, "task": row.task, **_flat(row.score)} for row in self.rows]
        )

    def value(self, embedding: str, metric: str) -> float:
        """One number; NaN where it could not be computed.

        Raises
        ------
        KeyError
            There is no such score.
        """
        for row in self.rows:
            if row.embedding == embedding and row.score.metric == metric:
                return row.score.value
        raise KeyError((embedding, metric))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes None."""
        return {
            "schema": SCHEMA,
            "facts": plain(self.facts),
            "banners": list(self.banners),
            "leakage": plain(self.leakage),
            "embeddings": plain(list(self.embeddings)),
            "scores": plain(
                [{"embedding": r.embedding, "kind": r.kind, "task": r.task, **asdict(r.score)} for r in self.rows]
            ),
            "comparisons": plain(list(self.comparisons)),
            "details": plain(self.details),
            "environment": plain(self.environment),
        }

    @property
    def troubled(self) -> list[Row]:
        """Scores that failed, and suspect ones of embeddings: baselines and controls may look odd."""
        judged = ("own", "given")
        return [
            row
            for row in self.rows
            if row.score.status == "failed" or (row.score.status == "suspect" and row.kind in judged)
        ]

    def write(self, folder: Path) -> None:
        """Write `results.json`, `results.tsv` and `predictions.tsv.gz` into a folder that exists."""
        write_json(folder / "results.json", self.to_dict())
        with atomic_path(folder / "results.tsv") as temporary:
            self.table().to_csv(temporary, sep="\t", index=False)
        _write_predictions(self.predictions, folder / "predictions.tsv.gz")


def _flat(score: Score) -> dict[str, Any]:
    fields = asdict(score)
    fields["by_subsample"] = ",".join(f"{value:g}" for value in score.by_subsample)
    del fields["seconds"]  # the only field that another run of the same command changes
    return fields


def _write_predictions(predictions: dict[str, dict[str, dict[str, NDArray[Any]]]], path: Path) -> None:
    frames = [
        pd.DataFrame({"task": task, "embedding": name, **columns})
        for task, by_embedding in predictions.items()
        for name, columns in by_embedding.items()
        if columns
    ]
    if not frames:
        path.unlink(missing_ok=True)  # those of an earlier report
        return
    text = pd.concat(frames, ignore_index=True).to_csv(sep="\t", index=False, lineterminator="\n")
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), mtime=0))  # no name and no time: equal runs, equal bytes


def unavailable(metrics: Iterable[tuple[str, Family]], status: Status, note: str) -> tuple[Score, ...]:
    """The scores of a task that gave none: each with the same status and reason."""
    return tuple(Score(metric, NAN, family, status=status, note=note) for metric, family in metrics)


def plain(value: Any) -> Any:
    """`value` as JSON has it: arrays as lists, NumPy scalars as numbers, NaN and infinities as None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
