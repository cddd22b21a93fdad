"""What the recipes that train the encoder on labels share: labelled cells as a corpus, and cross-entropy."""

from typing import Any

from uce.adaptation.recipes.probe import with_classifier
from uce.adaptation.task import START, Task
from uce.files import make_folder
from uce.training.corpus import open_corpus
from uce.training.objectives.supervised import SupervisedSettings, classes_of
from uce.training.settings import DataSettings, PretrainConfig

_LARGEST_BATCH = 32
_FEWEST_STEPS, _MOST_STEPS, _PASSES = 100, 1000, 20


def supervised_config(task: Task, **settings: Any) -> PretrainConfig:
    """A run on the labelled cells of a task; `settings` are those in which recipes differ.

    It begins with the classifier of the recipe `probe`, so that an encoder that has nothing to gain stays as it is.
    """
    corpus = task.corpus(labelled=True)
    classes, counts = classes_of(open_corpus(DataSettings(corpus=str(corpus))).datasets)
    cells = sum(counts)
    batch = min(_LARGEST_BATCH, cells)
    start = with_classifier(task, make_folder(task.out / START) / task.model.name)
    return task.config(
        corpus,
        learned_from=f"{cells:,} cells with one of {len(classes)} labels ({task.cells.column})",
        start=str(start),
        batch_size=batch,
        steps=usual_steps(cells, batch),
        objective=SupervisedSettings(classes=classes, cells=counts, balanced=True),
        **settings,
    )


def usual_steps(cells: int, batch: int) -> int:
    """Updates for so many cells: twenty passes, but a hundred at least and a thousand at most."""
    return min(max(_PASSES * cells // batch, _FEWEST_STEPS), _MOST_STEPS)
