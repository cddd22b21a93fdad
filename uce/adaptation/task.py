"""What a recipe is, what it is given, and the run of the one training loop that most of them are."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from uce.adaptation.cells import UserCells, build_cells
from uce.config import with_overrides
from uce.errors import UsageError
from uce.model.checkpoint import Model
from uce.training.loop import pretrain
from uce.training.records import check_settings
from uce.training.settings import DataSettings, PretrainConfig, RunSettings

# Folders of a run: the corpora of the user's cells and of a labelled source; the model with a fitted classifier.
CELLS, SOURCE, START = "cells", "source", "start"
_OURS = ("name", "seed", "start", "model.", "data.corpus")  # settings that follow from what was given
_MOST_DRAWS = 512  # genes drawn per cell in training: half of a usual sentence, at half of its cost


@dataclass(frozen=True)
class Recipe:
    """A way to adapt a model.

    Attributes
    ----------
    name
        By which it is chosen.
    labels
        Whose labels it learns from: those of the user's cells, of a second file (`--source`), or nobody's.
    train
        From a task to the model folder that it wrote, `task.target`. Called again after an interruption, it goes on.
    """

    name: str
    labels: Literal["cells", "source", "none"]
    train: "Callable[[Task], Path]"


@dataclass(frozen=True, eq=False)
class Task:
    """What a recipe works on.

    Attributes
    ----------
    recipe
        Its own name.
    model, given
        The model to adapt, and how the user named it.
    cells
        The user's cells; their labels were read only where the recipe learns from them.
    source
        Those of `--source`, whose labels were read; None where the recipe needs none.
    out, name
        Folder of the run, and name of the model folder to be written in it.
    seed
        Of everything random.
    settings
        `key=value`, changes of the configuration of training.
    """

    recipe: str
    model: Model
    given: str
    cells: UserCells
    source: UserCells | None
    out: Path
    name: str
    seed: int
    settings: tuple[str, ...] = ()
    quiet: bool = False

    @property
    def target(self) -> Path:
        """The model folder to be written."""
        return self.out / self.name

    def corpus(self, *, labelled: bool = False) -> Path:
        """The user's cells that are not held out as a corpus, made where it is missing; or only those with a label."""
        return build_cells(self.cells, self.out / CELLS, self.model, labelled=labelled)

    def source_corpus(self) -> Path:
        """The labelled cells of the source, likewise."""
        assert self.source is not None
        return build_cells(self.source, self.out / SOURCE, self.model, labelled=True)

    def facts(self, learned_from: str) -> dict[str, Any]:
        """What the card says of an adaptation: summary, limits and licence, beside what the model's own card says."""
        info = self.model.info
        ours = f"Adapted to the cells of {self.cells.name} ({self.recipe}): on other cells it may be worse than before."
        return {
            "summary": f"{self.model.name}, adapted by the recipe {self.recipe}: {learned_from} of {self.cells.name}.",
            "limits": (*map(str, info.get("limits") or ()), ours),
            "licence": str(info.get("licence") or ""),
        }

    def config(self, corpus: Path, *, learned_from: str, start: str | None = None, **settings: Any) -> PretrainConfig:
        """A run of training that begins from the model, with its shape and its sentences.

        Parameters
        ----------
        corpus
            To train on.
        learned_from
            For the summary: "the 120 labels", say.
        start
            Another model of the same shape to begin from.
        settings
            Fields of `PretrainConfig`, which the user's `key=value` may change.

        Raises
        ------
        UsageError
            A `key=value` that is no setting, or one that follows from what was given.
        """
        for change in self.settings:
            if any(change.startswith(key if key[-1] == "." else f"{key}=") for key in _OURS):
                msg = f"{change}: follows from the options of uce adapt and the model. Leave it out."
                raise UsageError(msg)
        draws = min(_MOST_DRAWS, self.model.rule.draws)
        settings = {
            "draws": draws,
            "late_draws": draws,
            "run": RunSettings(log_every=10, snapshot_every=50),
            **settings,
        }
        config = PretrainConfig(
            data=DataSettings(corpus=str(corpus)),
            model=self.model.config,
            name=self.name,
            seed=self.seed,
            rule=self.model.rule,
            start=start or self.given,
            **self.facts(learned_from),
            **settings,
        )
        return with_overrides(config, self.settings)


def train_once(config: PretrainConfig, run: Path) -> Path:
    """The model folder of a run of training: made, carried on, or found finished with the same settings."""
    if not (run / config.name).exists():
        return pretrain(config, out=run)
    check_settings(config, run)
    return run / config.name
