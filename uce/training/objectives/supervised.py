"""The supervised objective: which label does a cell have? Cross-entropy of a linear head on the cell vector.

Letters in shapes: B cells of one process, C classes, D width of a cell vector.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from numpy.typing import NDArray
from torch import Tensor, nn

from uce.cells.labels import is_labelled
from uce.errors import InputError, UsageError
from uce.files import shorten
from uce.model.classifier import Classifier
from uce.training.batch import Batch, draw_sentences, pack
from uce.training.objectives.base import Objective, ObjectiveSettings, cell_vectors, within

if TYPE_CHECKING:
    from uce.model.encoder import Encoder, ModelConfig
    from uce.training.corpus import Dataset
    from uce.training.settings import PretrainConfig
    from uce.training.stream import Cells

_LARGEST_LOG_SCALE = math.log(100)


@dataclass(frozen=True)
class SupervisedSettings(ObjectiveSettings):
    """Which labels there are; `classes_of` reads them from a corpus.

    Raises
    ------
    UsageError
        A value out of range, or lists that do not fit each other.
    """

    name: Literal["supervised"] = "supervised"
    column: str = "cell_type"  # of the cells in the corpus
    classes: tuple[str, ...] = ()  # two labels or more, each another; cells of others take no part
    cells: tuple[int, ...] = ()  # that each of them has in training: what guessing knows
    balanced: bool = False  # a cell weighs as much as its class is rare
    heaviest: float = 10.0  # but no more than so many times the mean
    log_scale: float = 2.3  # ln of the length of a cell vector before the head, at the start; it is learned

    def __post_init__(self) -> None:
        within("objective.heaviest", self.heaviest, 1, 1e6)
        within("objective.log_scale", self.log_scale, 0, _LARGEST_LOG_SCALE)
        if len(set(self.classes)) != len(self.classes) or len(self.cells) != len(self.classes):
            found = f"{len(self.classes)} labels and {len(self.cells)} numbers of cells"
            msg = f"objective.classes, objective.cells: {found}; different labels, and a number for each, are needed."
            raise UsageError(msg)
        if any(cells < 1 for cells in self.cells):
            msg = f"objective.cells = {list(self.cells)}: every class needs a cell or more."
            raise UsageError(msg)

    def check(self, config: "PretrainConfig") -> None:  # noqa: ARG002
        """There must be something to tell apart."""
        if len(self.classes) < 2:
            found = shorten(list(self.classes)) or "none"
            msg = f"objective.classes: {found}; two labels or more are needed. `uce adapt` fills them in."
            raise UsageError(msg)

    def make_batch(
        self, cells: "Cells", config: "PretrainConfig", part: int, *, rank: int = 0, world: int = 1
    ) -> "LabelledBatch":
        """A sentence of each cell, and its label."""
        own = cells.part(rank, world)
        hidden = np.zeros(own.counts.nnz, dtype=bool)
        vectors, tokens, keep = pack([draw_sentences(own, own.counts, hidden, config, part, numbers=own.samples)])
        labels = own.dataset.codes(self.column, self.classes)[own.rows]
        return LabelledBatch(own.dataset.species, vectors, tokens, keep, labels)

    def build(self, model: "ModelConfig") -> "SupervisedObjective":
        """The linear head."""
        return SupervisedObjective(self, model)

    def classifier(self, state: Mapping[str, Tensor]) -> Classifier:
        """The head, its scale multiplied in."""
        weight = state["log_scale"].exp() * state["head.weight"]
        return Classifier(self.classes, weight.numpy(), state["head.bias"].numpy())

    @property
    def shares(self) -> NDArray[np.float64]:
        """(C,) share of the labelled training cells that each class has."""
        return np.array(self.cells, dtype=np.float64) / max(sum(self.cells), 1)

    @property
    def weights(self) -> NDArray[np.float64]:
        """(C,) weight of a cell by its class: 1, or the mean share of a class over its own, `heaviest` at most."""
        ones = np.ones(len(self.classes))
        return np.minimum(1 / (len(ones) * self.shares), self.heaviest) if self.balanced else ones


def classes_of(datasets: "Sequence[Dataset]", column: str = "cell_type") -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The labels of some datasets of a corpus, sorted, and how many cells have each.

    Raises
    ------
    InputError
        There are fewer than two.
    """
    read = [labels.astype(str) for dataset in datasets if (labels := dataset.labels(column)) is not None]
    labels = np.concatenate([np.zeros(0, np.str_), *read])
    names, cells = np.unique(labels[is_labelled(labels)], return_counts=True)
    if len(names) < 2:
        found = shorten([dataset.name for dataset in datasets])
        msg = f"{found}: {len(names)} label(s) in column {column}; two or more are needed to tell cells apart."
        raise InputError(msg)
    return tuple(names.tolist()), tuple(cells.tolist())


@dataclass(frozen=True, eq=False)
class LabelledBatch(Batch):
    """Sentences and what the cells are.

    Attributes
    ----------
    labels
        (B,) place of each cell's label among the classes; -1 where it has none of them.
    """

    labels: NDArray[np.int64]


class SupervisedObjective(Objective):
    """logits = s W c + b of a cell vector c of length 1: without the scale s, softmax could say nothing with certainty.

    W and b begin at zero, so that the first updates move the head and not yet the encoder; or see `begin`.
    """

    weights: Tensor
    chance: Tensor

    def __init__(self, settings: SupervisedSettings, model: "ModelConfig") -> None:
        super().__init__()
        self.classes = settings.classes
        self.head = nn.Linear(model.out_dim, len(settings.classes))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.log_scale = nn.Parameter(torch.tensor([settings.log_scale]))  # no matrix, so not decayed
        self.register_buffer("weights", torch.tensor(settings.weights, dtype=torch.float32), persistent=False)
        self.register_buffer("chance", -torch.tensor(settings.shares, dtype=torch.float32).log(), persistent=False)

    @torch.no_grad()
    def begin(self, classifier: Classifier) -> None:
        """Begin with a classifier that was fitted to the vectors as they were (Kumar et al. 2022, arXiv 2202.10054).

        The first updates then have less reason to change the vectors than those of a head that knows nothing.
        """
        if classifier.labels == self.classes:
            self.head.weight.copy_(torch.from_numpy(classifier.weight) / self.log_scale.exp())
            self.head.bias.copy_(torch.from_numpy(classifier.bias))

    @torch.no_grad()
    def constrain(self) -> None:
        """Limit the scale."""
        self.log_scale.clamp_(max=_LARGEST_LOG_SCALE)

    def forward(self, encoder: "Encoder", batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sums over the cells of a `LabelledBatch`, see `answer`."""
        return self.answer(cell_vectors(encoder, batch), batch["labels"])

    def answer(self, cells: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Sums over the labelled of the cells (B, D), whose labels are (B,).

        Returns
        -------
        loss
            Of the cross-entropies in nats, each times the weight of its class.
        loss_plain, loss_chance, right, labelled, skipped
            For the log, see `fields`.
        """
        with torch.autocast(cells.device.type, enabled=False):
            logits = self.head(self.log_scale.exp() * cells.float())
        known = labels >= 0
        places = labels.clamp(min=0)
        losses = F.cross_entropy(logits, places, reduction="none") * known
        return {
            "loss": (losses * self.weights[places]).sum(),
            "loss_plain": losses.detach().sum(),
            "loss_chance": (self.chance[places] * known).sum(),
            "right": ((logits.argmax(dim=1) == labels) & known).sum().float(),
            "labelled": known.sum().float(),
            "skipped": (~known).sum().float(),
        }

    def loss(self, sums: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """Mean over the cells of the batch, also those without a label: a constant, so that processes add up."""
        return sums["loss"] / len(batch["labels"])

    def fields(self, totals: Mapping[str, Tensor], *, step: int) -> dict[str, Any]:  # noqa: ARG002
        """The loss beside that of guessing by how common labels are, the share of right labels, cells without one."""
        labelled = max(float(totals["labelled"]), 1.0)
        return {
            "loss": float(totals["loss_plain"]) / labelled,
            "loss_chance": float(totals["loss_chance"]) / labelled,
            "accuracy": float(totals["right"]) / labelled,
            "skipped_cells": float(totals["skipped"]),
        }
