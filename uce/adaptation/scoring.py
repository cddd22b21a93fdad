"""Did it pay? Labels of held-out cells from the model before and after, and from principal components."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uce.adaptation.cells import UserCells
from uce.cells.parts import BLOCK_CELLS
from uce.devices import pick_device
from uce.engines import Settings, embed_cells, prepare_reader
from uce.evaluation.baselines import BASELINES
from uce.evaluation.cells import Cells
from uce.evaluation.counts import CountsOptions, with_counts
from uce.evaluation.probes import fit_logistic, knn
from uce.evaluation.results import NotPossible
from uce.evaluation.scores import classification_scores
from uce.model.checkpoint import Model

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Scores:
    """How well the labels of held-out cells were told.

    Attributes
    ----------
    lines
        One for each way: `vectors` (pca, base, adapted), `reading` (classifier, knn), `macro_f1`, `accuracy`.
    learned, asked
        Labelled cells that were learned from, and that were held out and asked for.
    new
        Held-out cells with a label that no cell to learn from has; they are not asked for.
    """

    lines: tuple[dict[str, Any], ...]
    learned: int
    asked: int
    new: int

    def __str__(self) -> str:
        head = f"macro-F1 of {self.asked:,} held-out cells, learned from {self.learned:,}"
        rows = [f"  {line['vectors']:<8} {line['reading']:<11} {line['macro_f1']:.3f}" for line in self.lines]
        left = [f"  {self.new:,} held-out cells have a label that was not learned; left out"] if self.new else []
        return "\n".join([head, *rows, *left])


def read_labelled(cells: UserCells, model: Model, *, seed: int) -> Cells:
    """The labelled cells with their counts, made ready for the model.

    Raises
    ------
    InputError, ModelError
        They cannot be read.
    """
    rows = np.flatnonzero(cells.labelled)
    names = rows.astype(np.str_).astype(object)
    plain = Cells(cells.name, names, cells.labels[rows], groups=cells.units[rows], rows=rows)
    options = CountsOptions(cells.species, cells.file.gene_column, layer=cells.file.layer)
    computing = Settings(pick_device("auto"), "auto", seed, 1, None)
    return with_counts(cells.file.path, plain, model, computing, options, needed=True)


def vectors_of(cells: Cells, model: Model) -> Floats:
    """(cells, dim) vectors of cells that were made ready for a model of the same kind; NaN where a cell has no gene."""
    ready, counts = cells.need_reader(), cells.need_counts()
    reader = prepare_reader(model, ready.match, ready.settings)
    blocks = [counts[start : start + BLOCK_CELLS] for start in range(0, len(cells), BLOCK_CELLS)]
    return np.concatenate([embed_cells(block, reader).vectors for block in blocks])


def score_held_out(cells: UserCells, base: Model, adapted: Model, *, seed: int) -> Scores:
    """Label the held-out cells in every way, all of which learned from the same cells.

    `classifier` is a logistic regression on the vectors, but the adapted model's own where it brings one; `knn` asks
    the 15 nearest cells by cosine.

    Raises
    ------
    NotPossible
        There is no cell to ask for.
    """
    labelled = read_labelled(cells, base, seed=seed)
    learned = cells.learned[labelled.rows]
    known = np.isin(labelled.labels, labelled.labels[learned])
    before, after = vectors_of(labelled, base), vectors_of(labelled, adapted)
    whole = np.isfinite(before).all(axis=1) & np.isfinite(after).all(axis=1)
    fit, asked = learned & whole, ~learned & known & whole
    if not asked.any():
        raise NotPossible("no held-out cell has a vector and a label that was learned")
    classifier = adapted.classifier
    own = None if classifier is None else np.array(classifier.labels)[classifier.probabilities(after).argmax(axis=1)]
    lines = []
    with suppress(NotPossible):  # fewer than three cells have no components
        components = BASELINES["pca"].embed(labelled, fit, seed)
        lines.append(_line("pca", "classifier", labelled, asked, _logistic(components, labelled, fit)))
    for name, vectors, said in (("base", before, None), ("adapted", after, own)):
        told = _logistic(vectors, labelled, fit) if said is None else said
        lines.append(_line(name, "classifier", labelled, asked, told))
        lines.append(_line(name, "knn", labelled, asked, _nearest(vectors, labelled, fit)))
    return Scores(tuple(lines), int(fit.sum()), int(asked.sum()), int((~learned & ~known).sum()))


def _logistic(vectors: Floats, cells: Cells, fit: Mask) -> NDArray[np.str_]:
    assert cells.groups is not None
    fitted = fit_logistic(vectors[fit], cells.labels[fit], cells.groups[fit])
    return fitted.votes(np.nan_to_num(vectors)).labels


def _nearest(vectors: Floats, cells: Cells, fit: Mask) -> NDArray[np.str_]:
    return knn(vectors[fit], cells.labels[fit], cells.labels[fit], np.nan_to_num(vectors)).labels


def _line(vectors: str, reading: str, cells: Cells, asked: Mask, told: NDArray[np.str_]) -> dict[str, Any]:
    scores = classification_scores(cells.labels[asked], told[asked])
    return {"vectors": vectors, "reading": reading, "macro_f1": scores["macro_f1"], "accuracy": scores["accuracy"]}
