"""A linear classifier of the vectors as they are: logistic regression by scikit-learn. The encoder stays."""

from pathlib import Path

import numpy as np

from uce.adaptation.scoring import read_labelled, vectors_of
from uce.adaptation.task import Recipe, Task
from uce.corpus.training_manifest import TrainingManifest
from uce.errors import InputError, UsageError
from uce.evaluation.probes import fit_logistic
from uce.model.checkpoint import save_again
from uce.model.classifier import Classifier
from uce.model.folders import TRAINED_ON


def train(task: Task) -> Path:
    """Fit the classifier, and write the model with it."""
    if task.settings:
        msg = f"{task.settings[0]}: is a setting of training, and the recipe probe trains no encoder. Leave it out."
        raise UsageError(msg)
    return with_classifier(task, task.target)


def with_classifier(task: Task, folder: Path) -> Path:
    """The model with a classifier of the labels in `folder`, made where it is not there yet."""
    if not folder.exists():
        _write(task, folder)
    seen = task.model.folder / TRAINED_ON if task.model.folder else None
    if seen and seen.is_dir() and not (folder / TRAINED_ON).exists():
        TrainingManifest.read(seen).write(folder / TRAINED_ON)  # of the encoder, which has seen no more
    return folder


def _write(task: Task, folder: Path) -> None:
    model = task.model
    labelled = read_labelled(task.cells, model, seed=task.seed)
    vectors = vectors_of(labelled, model)
    fit = task.cells.learned[labelled.rows] & np.isfinite(vectors).all(axis=1)
    classes = np.unique(labelled.labels[fit])
    if len(classes) < 2:
        msg = f"{task.cells.file.path}: the labelled cells with a vector have fewer than two labels."
        raise InputError(msg)
    assert labelled.groups is not None
    fitted = fit_logistic(vectors[fit], labelled.labels[fit], labelled.groups[fit])
    learned = f"{int(fit.sum()):,} cells with one of {len(classes)} labels ({task.cells.column})"
    origin = {"model": model.name, "sha256": model.sha256, "inverse_penalty": fitted.strength}
    info = model.info | task.facts(learned) | {"adapted_from": origin}
    save_again(model, folder, info=info, classifier=Classifier(tuple(classes.tolist()), *fitted.linear()))


RECIPE = Recipe("probe", labels="cells", train=train)
