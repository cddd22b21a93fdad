"""Training in phases: each is a run of its own, from the weights that the one before ended with.

So nothing but weights is carried over: the optimizer's moments are of one phase, its learning rate rises again, and a
queue of keys begins empty. What was interrupted goes on in the phase at hand.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from uce.adaptation.task import train_once
from uce.model.checkpoint import load_model
from uce.training.objectives.supervised import SupervisedSettings
from uce.training.records import read_metrics
from uce.training.settings import PretrainConfig


@dataclass(frozen=True)
class Phase:
    """One run of a sequence.

    Attributes
    ----------
    name
        What it learns from; phases of one name are compared with each other.
    config
        Its seed, its anchor and what it begins from are set by `train_phases`.
    anchor
        How strongly it is held to where it begins.

    Raises
    ------
    UsageError
        So strong an anchor would carry weights beyond where they began.
    """

    name: str
    config: PretrainConfig
    anchor: float = 0.0

    def __post_init__(self) -> None:
        replace(self.config.optimizer, anchor=self.anchor)  # refused here, and not when its turn comes


def train_phases(run: Path, phases: Sequence[Phase], *, start: str = "") -> list[Path]:
    """Train one phase after the other; those that are finished are passed over.

    A linear head goes on where the last phase with the same labels left it; heads of other objectives are drawn anew.
    Every phase has a seed of its own, as one seed would show the same cells in every one.

    Parameters
    ----------
    run
        Folder of the sequence; a phase is `phase-00-NAME` in it, and so on.
    start
        Model that the first one begins from; "": weights are drawn.

    Returns
    -------
    The model folder of each.

    Raises
    ------
    UsageError
        A phase was begun with other settings, or see `uce.training.loop.pretrain`.
    KeyboardInterrupt
        A signal ended it; the same call goes on.
    """
    models: list[Path] = []
    heads: dict[SupervisedSettings, str] = {}
    for number, phase in enumerate(phases):
        folder, objective = phase_folder(run, number, phase), phase.config.objective
        optimizer = replace(phase.config.optimizer, anchor=phase.anchor)
        config = replace(phase.config, seed=_seed(phase.config.seed, number), start=start, optimizer=optimizer)
        if isinstance(objective, SupervisedSettings):
            config = replace(config, start_heads=heads.get(objective, ""))
            heads[objective] = str(folder)
        models.append(train_once(config, folder))
        start = str(models[-1])
    return models


def phase_folder(run: Path, number: int, phase: Phase) -> Path:
    """The run of a phase."""
    return run / f"phase-{number:02d}-{phase.name}"


def _seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def describe_phases(run: Path, phases: Sequence[Phase], models: Sequence[Path]) -> list[dict[str, Any]]:
    """What came of each phase, for a table.

    Returns
    -------
    Of each its `phase` and `steps`; `loss`, the last in its log, and `valid_loss`, that of cells which are not trained
    on, where these are measured; `drift`, how far its encoder is from where the phase began, and `moved`, how far from
    where the phase of this name before it ended, each as a share of the length of the latter. "" is not known.
    """
    rows: list[dict[str, Any]] = []
    ends: dict[str, Path] = {}
    for number, (phase, model) in enumerate(zip(phases, models, strict=True)):
        folder = phase_folder(run, number, phase)
        last: dict[str, Any] = {}
        for line in read_metrics(folder):
            last |= line
        measured = {name: last.get(name, "") for name in ("loss", "valid_loss", "drift")}
        moved = distance(model, ends[phase.name]) if phase.name in ends else ""
        rows.append({"phase": folder.name, "steps": phase.config.steps, **measured, "moved": moved})
        ends[phase.name] = model
    return rows


def distance(model: Path, other: Path) -> float:
    """|w - v| / |v| of the weights w and v of two encoders of one shape."""
    ours, theirs = (dict(load_model(folder).encoder.named_parameters()) for folder in (model, other))
    apart = sum(float((ours[name] - value).detach().square().sum()) for name, value in theirs.items())
    return math.sqrt(apart / sum(float(value.detach().square().sum()) for value in theirs.values()))
