"""The whole encoder and a linear head, trained on the labels of the user's cells, held near the model (L2-SP)."""

from pathlib import Path

from uce.adaptation.recipes.labelled import supervised_config
from uce.adaptation.task import Recipe, Task, train_once
from uce.training.settings import OptimizerSettings


def train(task: Task) -> Path:
    """Train all weights, without decay towards zero: the anchor pulls towards the model instead."""
    optimizer = OptimizerSettings(lr=1e-3, warmup=10, weight_decay=0.0, anchor=10.0)
    return train_once(supervised_config(task, optimizer=optimizer), task.out)


RECIPE = Recipe("full", labels="cells", train=train)
