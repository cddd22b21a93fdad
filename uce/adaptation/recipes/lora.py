"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) and a linear head, trained on the labels of the user's cells."""

from pathlib import Path

from uce.adaptation.recipes.labelled import supervised_config
from uce.adaptation.task import Recipe, Task, train_once
from uce.training.settings import AdapterSettings, OptimizerSettings


def train(task: Task) -> Path:
    """Train adapters, and write the model with them added to its weights."""
    optimizer = OptimizerSettings(lr=1e-3, warmup=10, weight_decay=0.01)
    return train_once(supervised_config(task, adapters=AdapterSettings(rank=8), optimizer=optimizer), task.out)


RECIPE = Recipe("lora", labels="cells", train=train)
