"""A linear classifier of the vectors as they are: logistic regression by scikit-learn. The encoder stays."""

from pathlib import Path

import numpy as np

from uce.adaptation.scoring import read_labelled, vectors_of
from uce.adaptation.task import Recipe, Task
from uce.errors import InputError
from uce.evaluation.probes import fit_logistic
from uce.model.checkpoint import save_model
from uce.model.classifier import Classifier


def train(task: Task) -> Path:
    """Fit the classifier, and write the model with it."""
    return with_classifier(task, task.target)


def with_classifier(task: Task, folder: Path) -> Path:
    """The model with a classifier of the labels in `folder`, made where it is not there yet."""
    if folder.exists():
        return folder
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
    return save_model(
        folder,
        encoder=model.encoder,
        rule=model.rule,
        specials=model.specials,
        gene_encoder=model.gene_encoder,
        gene_tables=model.gene_tables,
        info=model.info | task.facts(learned) | {"adapted_from": origin},
        chromosome_vectors=model.chromosome_vectors,
        classifier=Classifier(tuple(classes.tolist()), *fitted.linear()),
    )


RECIPE = Recipe("probe", labels="cells", train=train)
