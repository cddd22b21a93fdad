"""The questions that are asked of an embedding, one file each; a new one is a new file and one line here."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from uce.evaluation.context import Context
from uce.evaluation.embeddings import Embedding
from uce.evaluation.results import Family, Findings


@dataclass(frozen=True)
class Task:
    """One question.

    Attributes
    ----------
    module
        Has `run(context, embedding) -> Findings` and `METRICS`, the (metric, family) pairs that stand in the table
        even when nothing could be computed.
    title
        For a reader.
    of
        Whom it is asked of: every `embedding`, our `model` alone (cells are embedded again), or the `cells`.
    """

    module: str
    title: str
    of: Literal["embedding", "model", "cells"] = "embedding"

    @property
    def run(self) -> Callable[[Context, Embedding], Findings]:
        """The function that answers it."""
        answer: Callable[[Context, Embedding], Findings] = import_module(f"{__name__}.{self.module}").run
        return answer

    @property
    def metrics(self) -> tuple[tuple[str, Family], ...]:
        """What it gives when it can."""
        pairs: tuple[tuple[str, Family], ...] = import_module(f"{__name__}.{self.module}").METRICS
        return pairs


TASKS: dict[str, Task] = {
    "collapse": Task("collapse", "Do the vectors differ at all?"),
    "scib": Task("scib", "scIB: biology kept, batches mixed"),
    "cilisi": Task("cilisi", "Are batches mixed within a label?"),
    "scgraph": Task("scgraph", "Do cell types lie to each other as in the data?"),
    "transfer": Task("transfer", "Labels carried to unseen donors"),
    "calibration": Task("calibration", "Is the confidence of a label true?"),
    "unseen": Task("unseen", "Are types that the reference lacks noticed?"),
    "robustness": Task("robustness", "Fewer counts, fewer genes, other draws", of="model"),
    "leakage": Task("leakage", "Was the model trained on these cells?", of="cells"),
}
