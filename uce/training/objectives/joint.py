"""Two objectives in one run: labels where a dataset's labels may be read, momentum contrast on the others.

Parts of an update are of one dataset each, so each part is of one of the two; over a run their losses add up as a
weighted sum. It is what a method that takes the two in turns has to be compared with.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from uce.errors import UsageError
from uce.training.objectives.base import Objective, ObjectiveSettings, within
from uce.training.objectives.momentum import MomentumSettings
from uce.training.objectives.supervised import SupervisedSettings

if TYPE_CHECKING:
    from uce.model.classifier import Classifier
    from uce.model.encoder import Encoder, ModelConfig
    from uce.training.batch import Batch
    from uce.training.settings import PretrainConfig
    from uce.training.stream import Cells

_LABELLED, _UNLABELLED = "labelled.", "unlabelled."  # before the names of sums


@dataclass(frozen=True)
class JointSettings(ObjectiveSettings):
    """Both objectives, and which datasets each has.

    Raises
    ------
    UsageError
        A value out of range.
    """

    name: Literal["joint"] = "joint"
    with_labels: tuple[str, ...] = ()  # datasets whose labels are read; those of all others never are
    labelled: SupervisedSettings = field(default_factory=SupervisedSettings)
    unlabelled: MomentumSettings = field(default_factory=MomentumSettings)
    weight: float = 1.0  # of the loss without labels, where that with labels has 1

    def __post_init__(self) -> None:
        within("objective.weight", self.weight, 0, 1e6)

    def check(self, config: "PretrainConfig") -> None:
        """What either of them cannot work with."""
        if not self.with_labels:
            msg = "objective.with_labels: none named. Name the datasets whose labels are to be read."
            raise UsageError(msg)
        self.labelled.check(config)
        self.unlabelled.check(config)

    def make_batch(
        self, cells: "Cells", config: "PretrainConfig", part: int, *, rank: int = 0, world: int = 1
    ) -> "Batch":
        """That of the objective which has the dataset."""
        chosen = self.labelled if cells.dataset.name in self.with_labels else self.unlabelled
        return chosen.make_batch(cells, config, part, rank=rank, world=world)

    def build(self, model: "ModelConfig") -> "JointObjective":
        """The heads of both."""
        return JointObjective(self, model)

    def classifier(self, state: Mapping[str, Tensor]) -> "Classifier":
        """The linear head."""
        return self.labelled.classifier(_below(state, _LABELLED))


class JointObjective(Objective):
    """Both objectives side by side; a batch says by what it holds which of them it is for."""

    def __init__(self, settings: JointSettings, model: "ModelConfig") -> None:
        super().__init__()
        self.settings = settings
        self.labelled = settings.labelled.build(model)
        self.unlabelled = settings.unlabelled.build(model)

    def constrain(self) -> None:
        """Limit the scale of the linear head."""
        self.labelled.constrain()

    def forward(self, encoder: "Encoder", batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The sums of the objective that the batch is for, under names that say which."""
        prefix, objective, _ = self._parted(batch)
        sums: dict[str, Tensor] = objective(encoder, batch)
        return {prefix + name: value for name, value in sums.items()}

    def loss(self, sums: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """The weighted loss of the objective that the batch is for.

        The heads of the other have a gradient of zero, and not none: processes wait for that of every parameter.
        """
        prefix, objective, idle = self._parted(batch)
        weight = 1.0 if prefix == _LABELLED else self.settings.weight
        nothing = sum(0 * parameter.sum() for parameter in idle.parameters() if parameter.requires_grad)
        return weight * objective.loss(_below(sums, prefix), batch) + nothing

    def fields(self, totals: Mapping[str, Tensor], *, step: int) -> dict[str, Any]:
        """What both say, that of momentum contrast under names that end in `_unlabelled`."""
        values: dict[str, Any] = {}
        if labelled := _below(totals, _LABELLED):
            values |= self.labelled.fields(labelled, step=step)
        if unlabelled := _below(totals, _UNLABELLED):
            found = self.unlabelled.fields(unlabelled, step=step)
            # What looks wrong is a list of sentences, and keeps its name.
            values |= {name if name == "suspect" else f"{name}_unlabelled": value for name, value in found.items()}
        return values

    def _parted(self, batch: Mapping[str, Tensor]) -> tuple[str, Objective, Objective]:
        """Of a batch: the prefix of its sums, its objective, and the one that has nothing to do."""
        if "labels" in batch:
            return _LABELLED, self.labelled, self.unlabelled
        return _UNLABELLED, self.unlabelled, self.labelled


def _below(values: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
