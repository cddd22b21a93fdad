"""Deep supervision of a recursive encoder: a batch read in several steps, and how much its state still changes."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from uce.model.encoder import Recursion
from uce.training.batch import Batch
from uce.training.stream import Cells

_CHANGES = "state_change."
_GROWS = 1.1  # times the first change: more is no state that settles


class Reading:
    """The parts of an update: new ones, or those of the step of supervision before, with the state it left.

    Parameters
    ----------
    recursion
        Of the encoder that reads; it is told which step is at hand, and from which state to go on. None: not recursive.
    """

    def __init__(self, recursion: Recursion | None) -> None:
        self._recursion = recursion
        self._parts: list[tuple[Cells, Batch]] = []
        self._states: list[Tensor | None] = []

    def part(self, update: int, number: int, fresh: Iterator[tuple[Cells, Batch]]) -> tuple[Cells, Batch]:
        """Part `number` of an update."""
        recursion = self._recursion
        if recursion is None or recursion.steps == 1:
            return next(fresh)
        recursion.step = update % recursion.steps
        if recursion.step == 0:
            if number == 0:
                self._parts, self._states = [], []
            self._parts.append(next(fresh))
            self._states.append(None)
        recursion.carried = self._states[number]
        return self._parts[number]

    def keep(self, number: int) -> None:
        """Keep the state that reading this part has left."""
        if self._recursion and self._states:
            self._states[number] = self._recursion.carried


def changes(recursion: Recursion) -> dict[str, Tensor]:
    """What the last forward pass adds to the sums of a run: the changes of each cycle, and 1, which counts passes."""
    if recursion.changes is None:
        return {}
    return {f"{_CHANGES}{recursion.step}": torch.cat([recursion.changes, recursion.changes.new_ones(1)])}


def change_fields(sums: Mapping[str, Tensor], suspect: list[str]) -> dict[str, Any]:
    """For a line of the log: `state_change`, the mean |z_t - z_(t-1)| / |z_t| of CLS from the second cycle on.

    Where these are not finite, or grow, a sentence is added to those under `suspect`.
    """
    found = {int(name.removeprefix(_CHANGES)): value for name, value in sums.items() if name.startswith(_CHANGES)}
    means = [float(change) for _, value in sorted(found.items()) for change in value[:-1] / value[-1]]
    if not means:
        return {}
    fields: dict[str, Any] = {"state_change": [round(change, 6) for change in means]}
    if not all(map(math.isfinite, means)):
        fields["suspect"] = [*suspect, "the state of the recursion is not finite"]
    elif means[-1] > _GROWS * means[0]:
        told = f"the state changes more in the last cycle ({means[-1]:.2f}) than in the second ({means[0]:.2f})"
        fields["suspect"] = [*suspect, told]
    return fields
