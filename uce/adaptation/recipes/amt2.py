"""Labels of other cells, and the user's cells without any, in turns; after the alternation of CUPre (AMT2).

The encoder learns the labels of the source (phase 0). Then, in every round, it learns to tell the user's cells apart
without labels (momentum contrast), and after that the labels of the source again, held near where the unlabelled phase
ended (L2-SP, Li et al. 2018, arXiv 1802.01483). No label of the user's cells is read.
"""

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

from uce.adaptation.phases import Phase, describe_phases, train_phases
from uce.adaptation.task import Recipe, Task
from uce.config import with_overrides
from uce.corpus.layout import write_rows
from uce.errors import UsageError
from uce.files import atomic_path, printable
from uce.model.checkpoint import load_model, save_again
from uce.model.folders import TRAINED_ON
from uce.training.corpus import open_corpus
from uce.training.objectives.base import within
from uce.training.objectives.momentum import MomentumSettings
from uce.training.objectives.supervised import SupervisedSettings, classes_of
from uce.training.settings import DataSettings, OptimizerSettings, PretrainConfig

PHASES = "phases.csv"  # of a run: what came of each phase
LABELLED, UNLABELLED = "source", "unlabelled"  # names of phases
_LARGEST_BATCH = 64
_OURS = "recipe."  # settings of the recipe and not of training
_FIXED = ("steps=", "objective.", "optimizer.anchor=", "adapters.")  # of training, but for the recipe to choose


@dataclass(frozen=True)
class Amt2Settings:
    """How the phases alternate.

    Raises
    ------
    UsageError
        A value out of range.
    """

    rounds: int = 4  # each an unlabelled phase and a labelled one
    source_steps: int = 500  # updates of the labelled phase before the first round
    unlabelled_steps: int = 500
    labelled_steps: int = 500
    # Anchor of labelled phases to where the unlabelled one before ended. AdamW's steps have the length of the rate
    # whatever the gradient's, so what counts is rate x alpha x steps: without a gradient, half of the way back takes
    # ln 2 / (rate x alpha) updates at the full rate, 693 with the default rate of 1e-4.
    alpha: float = 10.0
    momentum: MomentumSettings = field(default_factory=MomentumSettings)

    def __post_init__(self) -> None:
        within("recipe.rounds", self.rounds, 1, 1000)
        for name in ("source_steps", "unlabelled_steps", "labelled_steps"):
            within(f"recipe.{name}", getattr(self, name), 1, 1 << 40)
        within("recipe.alpha", self.alpha, 0, 1e9)


def alternate(labelled: PretrainConfig, unlabelled: PretrainConfig, settings: Amt2Settings) -> list[Phase]:
    """All phases, from a run on the labelled cells and one on those without."""
    first = Phase(LABELLED, replace(labelled, steps=settings.source_steps))
    between = Phase(UNLABELLED, replace(unlabelled, steps=settings.unlabelled_steps))
    again = Phase(LABELLED, replace(labelled, steps=settings.labelled_steps), anchor=settings.alpha)
    return [first, *[between, again] * settings.rounds]


def train(task: Task) -> Path:
    """Train all phases, and write the model that the last one ended with."""
    if task.target.exists():
        return task.target
    settings, task = _own_settings(task)
    source, cells = task.source_corpus(), task.corpus()
    classes, counts = classes_of(open_corpus(DataSettings(corpus=str(source))).datasets)
    total = int(open_corpus(DataSettings(corpus=str(cells))).sizes.sum())
    learned = f"{sum(counts):,} cells with one of {len(classes)} labels of another set, and {total:,} cells"
    optimizer = OptimizerSettings(lr=1e-4, warmup=50, weight_decay=0.0)
    labelled = task.config(
        source,
        learned_from=learned,
        batch_size=min(_LARGEST_BATCH, sum(counts)),
        objective=SupervisedSettings(classes=classes, cells=counts, balanced=True),
        optimizer=optimizer,
    )
    unlabelled = task.config(
        cells,
        learned_from=learned,
        batch_size=min(_LARGEST_BATCH, total),
        objective=settings.momentum,
        optimizer=optimizer,
    )
    phases = alternate(labelled, unlabelled, settings)
    models = train_phases(task.out, phases, start=task.given)
    write_rows(task.out / PHASES, describe_phases(task.out, phases, models))
    return _write(task, models[-1], settings)


def _own_settings(task: Task) -> tuple[Amt2Settings, Task]:
    """The recipe's settings, and the task with those of training alone."""
    for change in task.settings:
        if change.startswith(_FIXED):
            ways = "recipe.source_steps, recipe.unlabelled_steps, recipe.labelled_steps, recipe.alpha, recipe.momentum"
            msg = f"{printable(change)}: is for the recipe to choose. It has {ways}."
            raise UsageError(msg)
    ours = [change.removeprefix(_OURS) for change in task.settings if change.startswith(_OURS)]
    others = tuple(change for change in task.settings if not change.startswith(_OURS))
    return with_overrides(Amt2Settings(), ours), replace(task, settings=others)


def _write(task: Task, last: Path, settings: Amt2Settings) -> Path:
    """The model of the last phase under the name of the run, its card saying what all of them began from."""
    model = load_model(last)
    steps = settings.source_steps + settings.rounds * (settings.unlabelled_steps + settings.labelled_steps)
    origin = {"model": task.model.name, "sha256": task.model.sha256, "rounds": settings.rounds, "steps_of_all": steps}
    with atomic_path(task.target) as temporary:
        info = model.info | {"adapted_from": origin | {"anchor": settings.alpha}}
        save_again(model, temporary, info=info, name=task.name)
        shutil.copytree(last / TRAINED_ON, temporary / TRAINED_ON)
    return task.target


RECIPE = Recipe("amt2", labels="source", train=train)
