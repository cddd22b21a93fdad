"""What is measured while training goes on, on cells that are not trained on: the objective, and cell types.

Every dataset counts alike: each gives equally many batches, always the same ones. They are the first cells of its
stores, which were shuffled when they were written, so runs of any seed and length are measured on the same cells.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from uce.devices import exact_type
from uce.errors import UsageError
from uce.training.batch import Batch, to_tensors
from uce.training.corpus import Corpus, open_corpus
from uce.training.loader import made_ahead
from uce.training.probe import Forward, Probe, open_probes, probe, read_rows
from uce.training.stream import Cells

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

    from uce.training.objectives.base import Objective
    from uce.training.settings import PretrainConfig

# Parts from here on are measured: late enough that nothing of an objective is as in its first steps.
_FIRST_PART = 1 << 20


@dataclass(frozen=True, eq=False)
class Validation:
    """What is measured.

    Attributes
    ----------
    config
        Of the run, with sentences as in its last step.
    corpus
        The datasets to measure on; `uce.training.batch.token_tables` needs them too.
    probes
        Labelled cells, a dataset each.
    """

    config: "PretrainConfig"
    corpus: Corpus
    probes: tuple[Probe, ...]

    @property
    def batches(self) -> int:
        """Batches measured: at least `validation.batches`, the same number of each dataset."""
        datasets = len(self.corpus.datasets)
        return math.ceil(self.config.validation.batches / datasets) * datasets

    def batch(self, number: int, *, rank: int = 0, world: int = 1) -> Batch:
        """The share of process `rank` in a batch; a pure function of its number."""
        turn, place = divmod(number, len(self.corpus.datasets))
        dataset, size = self.corpus.datasets[place], self.config.part_size
        rows = (turn * size + np.arange(size)) % dataset.n_cells
        part = _FIRST_PART + number
        cells = Cells(dataset, part * size + np.arange(size), rows, read_rows(dataset, rows))
        return self.config.objective.make_batch(cells, self.config, part, rank=rank, world=world)

    def measure(
        self, forward: Forward, objective: "Objective", accelerator: "Accelerator", tables: "Mapping[str, Tensor]"
    ) -> dict[str, Any]:
        """Measure all batches and all probes. Every process must call this, at the same time.

        Parameters
        ----------
        forward
            The `Trainee` as it is wrapped, in evaluation mode.
        tables
            Token vectors on the device, those of the validation corpus among them.

        Returns
        -------
        On the main process what the log says: the objective's numbers under `valid_...`, and `probe_...`, see
        `uce.training.probe`. On other processes nothing.
        """
        import torch

        with torch.no_grad():
            totals = self._totals(forward, accelerator, tables)
            probed = probe(self.probes, self.config, forward, accelerator, tables) if self.probes else {}
        if not accelerator.is_main_process:
            return {}
        values = objective.fields(totals, step=0)
        return {f"valid_{name}": value for name, value in values.items() if isinstance(value, int | float)} | probed

    def _totals(
        self, forward: Forward, accelerator: "Accelerator", tables: "Mapping[str, Tensor]"
    ) -> "dict[str, Tensor]":
        make = partial(self.batch, rank=accelerator.process_index, world=accelerator.num_processes)
        totals: dict[str, Tensor] = {}
        exact = exact_type(accelerator.device)
        for batch in made_ahead(make, range(self.batches), workers=self.config.run.workers):
            for name, value in forward(to_tensors(batch, tables, accelerator.device)).items():
                totals[name] = totals.get(name, 0) + value.to(exact)
        return {name: accelerator.reduce(value, reduction="sum").cpu() for name, value in totals.items()}


def open_validation(config: "PretrainConfig", train: Corpus) -> Validation | None:
    """Open what `config.validation` names, beside the corpus that is trained on. None where nothing is to be measured.

    Raises
    ------
    UsageError
        There is no dataset of that split, or it is the one that is trained on.
    InputError, ModelError
        The corpus cannot be read, see `open_corpus`.
    """
    settings = config.validation
    if not settings.every:
        return None
    if settings.split == config.data.split:
        msg = f"validation.split = {settings.split!r} is what is trained on (data.split). Name another split."
        raise UsageError(msg)
    corpus = open_corpus(config.data, split=settings.split, beside=train)
    if not corpus.datasets:
        msg = (
            f"{config.data.corpus}: no dataset has cells of validation.split = {settings.split!r}. Name another split, "
            "build the corpus with one, or set validation.every to 0."
        )
        raise UsageError(msg)
    draws = config.draws_at(config.parts - 1)
    config = replace(config, draws=draws, late_draws=draws)
    return Validation(config, corpus, open_probes(config, corpus))
