"""The contrastive objective on the user's own cells, from the model's weights; no label is read."""

from pathlib import Path

from uce.adaptation.task import Recipe, Task, train_once
from uce.training.corpus import open_corpus
from uce.training.objectives.contrastive import ContrastiveSettings
from uce.training.settings import DataSettings, OptimizerSettings

_LARGEST_BATCH = 64
_FEWEST_STEPS, _MOST_STEPS, _PASSES = 100, 1000, 10


def train(task: Task) -> Path:
    """Train all weights on two views of each cell, held near the model."""
    corpus = task.corpus()
    cells = int(open_corpus(DataSettings(corpus=str(corpus))).sizes.sum())
    batch = min(_LARGEST_BATCH, cells)
    config = task.config(
        corpus,
        learned_from=f"{cells:,} cells without labels",
        batch_size=batch,
        steps=min(max(_PASSES * cells // batch, _FEWEST_STEPS), _MOST_STEPS),
        objective=ContrastiveSettings(),
        optimizer=OptimizerSettings(lr=1e-3, warmup=10, weight_decay=0.0, anchor=10.0),
    )
    return train_once(config, task.out)


RECIPE = Recipe("contrastive", labels="none", train=train)
