"""How right labels are: scikit-learn's measures, over the labels that could have been right."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.cells import Texts


def classification_scores(true: Texts, predicted: Texts) -> dict[str, float]:
    """`accuracy`, `balanced_accuracy`, `macro_f1`, `weighted_f1` and `kappa`.

    Parameters
    ----------
    true, predicted
        (cells,) labels. F1 and balanced accuracy are averaged over the labels in `true`; first leave out the cells
        whose label was not in training.
    """
    from sklearn import metrics

    present = np.unique(true)
    shares = metrics.recall_score(true, predicted, labels=present, average=None, zero_division=0)
    return {
        "accuracy": float(metrics.accuracy_score(true, predicted)),
        "balanced_accuracy": float(np.mean(shares)),
        "macro_f1": float(metrics.f1_score(true, predicted, labels=present, average="macro", zero_division=0)),
        "weighted_f1": float(metrics.f1_score(true, predicted, labels=present, average="weighted", zero_division=0)),
        "kappa": float(metrics.cohen_kappa_score(true, predicted)) if len(present) > 1 else float("nan"),
    }


def top2_accuracy(true: Texts, classes: Texts, probabilities: NDArray[np.float64]) -> float:
    """Share of cells whose label is one of the two likeliest; one without any probability is neither."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    likely = np.take_along_axis(probabilities, best, axis=1) > 0
    return float(((classes[best] == true[:, None]) & likely).any(axis=1).mean())


def per_label(true: Texts, predicted: Texts) -> list[dict[str, Any]]:
    """One line per label in `true`, largest first: `label`, `support`, `precision`, `recall`, `f1`."""
    from sklearn.metrics import precision_recall_fscore_support

    present = np.unique(true)
    columns = precision_recall_fscore_support(true, predicted, labels=present, zero_division=0)
    lines = [
        {"label": str(label), "support": int(n), "precision": float(p), "recall": float(r), "f1": float(f)}
        for label, p, r, f, n in zip(present, *columns, strict=True)
    ]
    return sorted(lines, key=lambda line: -line["support"])


def confusion(true: Texts, predicted: Texts) -> tuple[list[str], list[list[int]]]:
    """Labels (all that occur), and how many cells of each (rows) were given each (columns)."""
    from sklearn.metrics import confusion_matrix

    labels = np.union1d(true, predicted)
    return labels.tolist(), confusion_matrix(true, predicted, labels=labels).tolist()


def majority(train: Texts, n_cells: int) -> Texts:
    """(cells,) the commonest training label for everyone; of equally common ones the first."""
    names, times = np.unique(train, return_counts=True)
    return np.full(n_cells, names[times.argmax()])


def at_random(train: Texts, n_cells: int, rng: np.random.Generator) -> Texts:
    """(cells,) labels drawn as they occur in training."""
    return rng.choice(train, size=n_cells)
