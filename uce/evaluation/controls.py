"""Rows whose verdict is known beforehand. If one lands on the wrong side, the evaluation is broken, not the model."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from uce.evaluation.cells import Cells, Texts
from uce.evaluation.embeddings import Embedding, Floats
from uce.evaluation.results import Row

CONTROLS = ("oracle", "random", "batch-onehot", "shuffled")
NOISE = 0.01
RANDOM_DIM = 50
_TIE = 0.01
# What the numbers of rows are compared by; those that were not computed are not compared.
_BIOLOGY, _MIXING, _TRANSFER, _STRUCTURE = ("scib_bio",), ("cilisi", "scib_batch"), "knn_macro_f1", "scgraph_weighted"

Values = Mapping[str, float]


def make_controls(cells: Cells, first: Embedding | None, *, seed: int) -> list[Embedding]:
    """`shuffled`, `oracle`, `batch-onehot` and `random` for these cells.

    Parameters
    ----------
    first
        The embedding whose rows are permuted; without one there is no `shuffled`. Without batches there is no
        `batch-onehot`.
    """
    rng = np.random.default_rng([seed, 5])
    noise = rng.standard_normal((len(cells), RANDOM_DIM), dtype=np.float32)
    made = [
        _control("oracle", "the labels themselves, and a little noise", one_hot(cells.labels, rng)),
        _control("random", "random numbers", noise),
    ]
    if cells.batches is not None:
        made.append(_control("batch-onehot", "the batches themselves, and a little noise", one_hot(cells.batches, rng)))
    if first is not None:
        dealt = first.vectors[rng.permutation(len(first.vectors))]
        title = f"{first.name} with the vectors dealt to other cells"
        made.append(Embedding("shuffled", dealt, "control", title, rows=first.rows, left_out=first.left_out))
    return made


def _control(name: str, title: str, vectors: Floats) -> Embedding:
    return Embedding(name, vectors, "control", title)


def one_hot(values: Texts, rng: np.random.Generator) -> Floats:
    """(cells, different values) 1 in the column of the cell's own value, plus N(0, 0.01)."""
    names, codes = np.unique(values, return_inverse=True)
    vectors = NOISE * rng.standard_normal((len(values), len(names)), dtype=np.float32)
    vectors[np.arange(len(values)), codes] += 1
    return vectors


def check_controls(rows: Sequence[Row]) -> tuple[str, ...]:
    """Which control is on the wrong side in the rows of a finished evaluation, in words; none if all is well.

    The oracle must have the best biology and transfer, and scGraph must not be taken in by it; batches as vectors must
    mix worst; shuffled and random vectors must not carry labels better than chance.
    """
    return tuple(
        [text for metric in (*_BIOLOGY, _TRANSFER) for text in _extreme(rows, "oracle", metric, best=True)]
        + [text for metric in _MIXING for text in _extreme(rows, "batch-onehot", metric, best=False)]
        + _flattered(rows)
        + [text for control in ("shuffled", "random") for text in _beyond_chance(rows, control)]
    )


def _values(rows: Sequence[Row], metric: str) -> dict[str, float]:
    """Embedding -> number, where there is one."""
    return {
        row.embedding: row.score.value
        for row in rows
        if row.score.metric == metric and row.score.status in ("ok", "suspect") and np.isfinite(row.score.value)
    }


def _extreme(rows: Sequence[Row], control: str, metric: str, *, best: bool) -> list[str]:
    """The control must have the highest (lowest) number of all rows, ties allowed."""
    values = _values(rows, metric)
    choose: Callable[..., str] = max if best else min
    if control not in values:
        return []
    rival = choose(values, key=lambda name: values[name])
    beyond = values[rival] - values[control] if best else values[control] - values[rival]
    if beyond <= _TIE:
        return []
    word = "best" if best else "worst"
    return [f"{control} should be {word} by {metric}: it has {values[control]:.3f}, {rival} {values[rival]:.3f}"]


def _flattered(rows: Sequence[Row]) -> list[str]:
    """ScGraph must put the oracle, where all types are equally far, below the best real embedding."""
    values = _values(rows, _STRUCTURE)
    real = {row.embedding for row in rows if row.kind != "control"} & values.keys()
    if "oracle" not in values or not real:
        return []
    best = max(sorted(real), key=lambda name: values[name])
    if values["oracle"] < values[best]:
        return []
    return [
        f"oracle should be low by {_STRUCTURE}, which knows how far types are apart: it has {values['oracle']:.3f}, "
        f"{best} {values[best]:.3f}"
    ]


def _beyond_chance(rows: Sequence[Row], control: str) -> list[str]:
    """Macro-F1 of guesses is one label's share at most, give or take the draw."""
    found = [row.score for row in rows if row.embedding == control and row.score.metric == _TRANSFER]
    for score in found:
        chance = 1 / max(score.n_labels, 2)
        if score.value > chance + 0.05 + 2 / np.sqrt(max(score.n_cells, 1)):
            return [f"{control} should carry no labels: {_TRANSFER} is {score.value:.3f}, chance is {chance:.3f}"]
    return []
