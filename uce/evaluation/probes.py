"""Simple classifiers that carry labels from cells to other cells: what they find in the vectors is in the vectors."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.calibration import fit_temperature
from uce.evaluation.cells import Texts
from uce.evaluation.embeddings import Floats
from uce.evaluation.neighbors import Neighbors, find_neighbors
from uce.evaluation.splits import grouped_folds

K = 15
STRENGTHS = (0.01, 0.1, 1.0, 10.0)
NARROW = 50
_INNER_FOLDS, _INNER_CELLS, _FIT_CELLS = 3, 3000, 4000


@dataclass(frozen=True, eq=False)
class Votes:
    """What a probe says of cells.

    Attributes
    ----------
    classes
        (classes,) labels of the training cells, sorted.
    probabilities
        (cells, classes) float64, rows sum to 1.
    note
        What a reader must know, such as that the fit did not converge.
    """

    classes: Texts
    probabilities: NDArray[np.float64]
    note: str = ""

    @property
    def labels(self) -> Texts:
        """(cells,) the likeliest label."""
        return np.asarray(self.classes[self.probabilities.argmax(axis=1)])

    @property
    def confidence(self) -> NDArray[np.float64]:
        """(cells,) its probability."""
        return np.asarray(self.probabilities.max(axis=1))

    def over(self, classes: Texts) -> NDArray[np.float64]:
        """(cells, all classes) the probabilities among more classes, sorted; 0 for those that were not in training."""
        wide = np.zeros((len(self.probabilities), len(classes)))
        wide[:, np.searchsorted(classes, self.classes)] = self.probabilities
        return wide


Probe = Callable[[Floats, Texts, Texts, Floats], Votes]


def vote(neighbors: Neighbors, labels: Texts) -> Votes:
    """Shares of the labels among the neighbours of each cell, weighted by 1 / distance.

    Parameters
    ----------
    neighbors
        Of the cells that are asked about, among the training cells.
    labels
        (training cells,).
    """
    classes, codes = np.unique(labels, return_inverse=True)
    weights = 1 / np.maximum(neighbors.distances.astype(np.float64), 1e-12)
    places = np.arange(len(weights))[:, None] * len(classes) + codes[neighbors.indices]
    shares = np.bincount(places.ravel(), weights.ravel(), minlength=len(weights) * len(classes))
    shares = shares.reshape(len(weights), len(classes))
    return Votes(classes, shares / shares.sum(axis=1, keepdims=True))


def knn(train: Floats, labels: Texts, _groups: Texts, queries: Floats, *, k: int = K) -> Votes:
    """The k nearest training cells by cosine, exact, weighted by 1 / distance."""
    return vote(find_neighbors(queries, k, metric="cosine", among=train), labels)


def centroid(train: Floats, labels: Texts, _groups: Texts, queries: Floats) -> Votes:
    """The nearest mean of a label's training cells by cosine; the probabilities are a softmax of 10 x cosine."""
    from scipy.special import softmax

    classes, codes = np.unique(labels, return_inverse=True)
    lengths = _unit(train)
    means = np.stack([lengths[codes == code].mean(axis=0) for code in range(len(classes))])
    return Votes(classes, softmax(10 * (_unit(queries) @ _unit(means).T).astype(np.float64), axis=1))


@dataclass(frozen=True, eq=False)
class Logistic:
    """A fitted logistic regression.

    Attributes
    ----------
    classes
        (classes,) sorted.
    strength
        The inverse strength C of the L2 penalty.
    temperature
        That calibrates it, from held-out training groups; NaN where none could be held out.
    note
        "" if the fit converged.
    """

    classes: Texts
    strength: float
    temperature: float
    note: str
    _model: Any

    def votes(self, queries: Floats) -> Votes:
        """What it says of cells (cells, dim)."""
        if self._model is None:
            return Votes(self.classes, np.ones((len(queries), 1)))
        return Votes(self.classes, self._model.predict_proba(queries).astype(np.float64), self.note)

    def linear(self) -> tuple[Floats, Floats]:
        """(classes, dim) and (classes,): its logits as a linear function of vectors that are not standardised."""
        scaler, regression = self._model[0], self._model[-1]
        weight = regression.coef_ / scaler.scale_
        bias = regression.intercept_ - weight @ scaler.mean_
        if len(self.classes) == 2:  # scikit-learn keeps one row, of the second class
            weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
        return weight.astype(np.float32), bias.astype(np.float32)


def fit_logistic(train: Floats, labels: Texts, groups: Texts, *, strengths: tuple[float, ...] = STRENGTHS) -> Logistic:
    """Logistic regression with L2 on standardised vectors (lbfgs in float32, at most 2,000 steps).

    The strength of the penalty is the one with the best macro-F1 on groups held out from a sample of 3,000 training
    cells (three folds); the temperature comes from the same held-out cells. The fit itself uses 4,000 training cells at
    most, a sample by label: more move the scores of real embeddings by less than their intervals, and take minutes.

    Parameters
    ----------
    train
        (cells, dim).
    labels, groups
        (cells,); groups are held out whole.
    strengths
        Values of C to choose from; the middle one where no groups can be held out.
    """
    from threadpoolctl import threadpool_limits

    classes = np.unique(labels)
    if len(classes) == 1:
        return Logistic(classes, float("nan"), float("nan"), "one label in training", None)
    # Thousands of small products: threads that wait for each other cost more than they save.
    with threadpool_limits(1):
        strength, temperature, missed = _choose(train, labels, groups, strengths)
        model, converged = _fit(train, labels, strength, _FIT_CELLS)
    note = "" if converged and not missed else "the logistic regression did not converge in 2,000 steps"
    return Logistic(classes, strength, temperature, note, model)


def logistic(train: Floats, labels: Texts, groups: Texts, queries: Floats) -> Votes:
    """Logistic regression, see `fit_logistic`; its probabilities are not calibrated."""
    return fit_logistic(train, labels, groups).votes(queries)


PROBES: dict[str, Probe] = {"knn": knn, "logistic": logistic, "centroid": centroid}


def _choose(train: Floats, labels: Texts, groups: Texts, strengths: tuple[float, ...]) -> tuple[float, float, bool]:
    """(C, temperature, whether a fit did not converge) from held-out groups of a sample."""
    from sklearn.metrics import f1_score

    rows = sample_by_label(labels, _INNER_CELLS)
    train, labels, groups = train[rows], labels[rows], groups[rows]
    folds = grouped_folds(labels, groups, folds=_INNER_FOLDS, alone=_INNER_FOLDS)
    parts = [
        (~held_out, held_out & np.isin(labels, labels[~held_out]))
        for held_out in (folds == fold for fold in np.unique(folds))
        if len(np.unique(labels[~held_out])) > 1
    ]
    parts = [(fit_on, test) for fit_on, test in parts if test.any()]  # a label of a single cell is in no other fold
    asked = np.concatenate([np.flatnonzero(test) for _, test in parts]) if parts else np.zeros(0, int)
    if len(np.unique(folds)) < 2 or not len(asked):
        return strengths[len(strengths) // 2], float("nan"), False
    classes = np.unique(labels)
    best: tuple[float, float, NDArray[np.float64], bool] | None = None
    for strength in strengths:
        said, converged = [], True
        for fit_on, test in parts:
            model, ended = _fit(train[fit_on], labels[fit_on], strength)
            said.append(Votes(model.classes_, model.predict_proba(train[test]).astype(np.float64)).over(classes))
            converged &= ended
        shares = np.concatenate(said)
        f1 = f1_score(labels[asked], classes[shares.argmax(axis=1)], average="macro", zero_division=0)
        if best is None or f1 > best[0]:
            best = float(f1), strength, shares, not converged
    assert best is not None
    return best[1], fit_temperature(best[2], np.searchsorted(classes, labels[asked])), best[3]


def _fit(train: Floats, labels: Texts, strength: float, most: int = _INNER_CELLS) -> tuple[Any, bool]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = sample_by_label(labels, most)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", ConvergenceWarning)
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
        model.fit(train[rows], labels[rows])
    return model, not any(issubclass(warning.category, ConvergenceWarning) for warning in seen)


def sample_by_label(labels: Texts, most: int) -> NDArray[np.int64]:
    """(<= most,) rows, evenly taken from every label's rows, so that shares of labels stay; all where there are few."""
    if len(labels) <= most:
        return np.arange(len(labels))
    order = np.random.default_rng(len(labels)).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    return np.sort(order[np.linspace(0, len(labels) - 1, most).round().astype(int)])


def narrow(vectors: Floats, train: NDArray[np.bool_]) -> Floats:
    """(cells, 50) principal components of the training cells, for all cells; narrower vectors stay as they are."""
    from sklearn.decomposition import PCA

    if min(vectors.shape[1], int(train.sum())) <= NARROW:
        return vectors
    fitted = PCA(NARROW, svd_solver="covariance_eigh").fit(vectors[train])
    return np.asarray(fitted.transform(vectors), dtype=np.float32)


def _unit(vectors: Floats) -> Floats:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1), dtype=np.float32)
