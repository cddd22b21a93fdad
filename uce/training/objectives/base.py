"""What the training loop knows of an objective, and what objectives share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from uce.errors import UsageError

if TYPE_CHECKING:
    from uce.model.classifier import Classifier
    from uce.model.encoder import Encoder, ModelConfig
    from uce.training.batch import Batch
    from uce.training.settings import PretrainConfig
    from uce.training.stream import Cells


class ObjectiveSettings(ABC):
    """Settings of an objective: a frozen dataclass with a field `name` of one literal, by which YAML chooses it."""

    @abstractmethod
    def check(self, config: "PretrainConfig") -> None:
        """Refuse a configuration this objective cannot work with (UsageError)."""

    @abstractmethod
    def make_batch(
        self, cells: "Cells", config: "PretrainConfig", part: int, *, rank: int = 0, world: int = 1
    ) -> "Batch":
        """The share of process `rank` in all cells of a part; a pure function of its arguments."""

    @abstractmethod
    def build(self, model: "ModelConfig") -> "Objective":
        """The module with the heads, its weights drawn from torch's global generator."""

    def classifier(self, state: Mapping[str, Tensor]) -> "Classifier | None":  # noqa: ARG002
        """What the state of the module says of labels, for the model folder; None where it says nothing."""
        return None


class Objective(nn.Module, ABC):
    """Heads, a forward that gives sums, the loss to minimise, and what a line of the log says of the sums."""

    @abstractmethod
    def forward(self, encoder: "Encoder", batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sums over this process's share of a part. They are added up over parts and processes."""

    @abstractmethod
    def loss(self, sums: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """What is minimised. Its mean over processes and parts is the loss of an update, and so is its gradient."""

    def baselines(self) -> list[nn.Parameter]:
        """Parameters of what is only compared with: their gradient is clipped on its own, the model's without it."""
        return []

    def constrain(self) -> None:
        """Bring parameters back into their range after an update."""
        return

    def begin(self, classifier: "Classifier") -> None:
        """Take the head of a model that a run starts from, where there is such a head and it has the same labels."""

    @abstractmethod
    def fields(self, totals: Mapping[str, Tensor], *, step: int) -> dict[str, Any]:
        """What the log says: the number to watch first, `loss` among the rest.

        Parameters
        ----------
        totals
            Sums of `forward` over the steps since the last line and over all processes, float64.
        step
            Updates done.

        Returns
        -------
        Numbers by name; under `suspect`, where there is cause, one sentence for each thing that looks wrong.
        """


def cell_vectors(encoder: "Encoder", batch: Mapping[str, Tensor], *, at_once: int = 0) -> Tensor:
    """The cell vectors of all sentences of a batch, (sentences, D).

    With `at_once` > 0 only so many sentences are in memory at a time: they are encoded without a graph, and again when
    their gradient is due, under the same random state and precision. That is the gradient cache of Gao et al. 2021
    (arXiv 2101.06983), here by activation checkpointing: one more forward pass, the exact gradient of one graph.
    A parameter's gradient is complete only after the last part, so processes exchange gradients once.

    Where the cycles of a recursive encoder are supervised step by step, this is one step: it goes on from the state
    that `encoder.recursion` carries, and leaves the new one there.
    """
    projected = encoder.project(batch["vectors"])

    def encode(tokens: Tensor, keep: Tensor) -> Tensor:
        # Each distinct token is projected once; the gather's gradient is a plain sum over its copies.
        return encoder.encode(F.embedding(tokens, projected), keep)

    def supervised(tokens: Tensor, keep: Tensor, carried: Tensor | None) -> tuple[Tensor, Tensor]:
        return encoder.supervised(F.embedding(tokens, projected), keep, carried=carried)

    inputs = [torch.split(batch[name], at_once or len(batch[name])) for name in ("tokens", "keep")]
    call = partial(checkpoint, use_reentrant=False) if at_once else _called
    if not (encoder.training and encoder.recursion and encoder.recursion.steps > 1):
        return torch.cat([call(encode, *part) for part in zip(*inputs, strict=True)])
    carried = encoder.recursion.carried
    states = [None] * len(inputs[0]) if carried is None else torch.split(carried, at_once or len(carried))
    parts = [call(supervised, *part) for part in zip(*inputs, states, strict=True)]
    # Kept here and not inside, where it would be done again when a part is computed again.
    encoder.recursion.carried = torch.cat([state for _, state in parts])
    return torch.cat([vectors for vectors, _ in parts])


def _called(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def within(name: str, value: float, least: float, most: float) -> None:
    """Refuse a setting outside of its range, NaN included."""
    # `not (a <= b <= c)` and not the reverse: it is also true of NaN.
    if not least <= value <= most:
        msg = f"{name} = {value!r}; a number from {least:g} to {most:g} is needed."
        raise UsageError(msg)
