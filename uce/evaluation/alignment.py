"""Do the rows of an embedding belong to the cells, and the columns to their names? Asked before anything is measured.

Vectors in another order than the labels give scores that look like those of a bad model. What gives them away: the
neighbours of a cell share its label no more often than they do after the rows were shuffled.
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.cells import Cells
from uce.evaluation.context import Context
from uce.evaluation.embeddings import Embedding
from uce.evaluation.neighbors import Neighbors, find_neighbors

Texts = NDArray[np.str_]

K = 15
SHUFFLES = 100
DEVIATIONS = 3.0
MAX_CELLS = 2000


@dataclass(frozen=True)
class Alignment:
    """How often neighbours share a label, against shuffled rows.

    Attributes
    ----------
    agreement
        Mean share of the neighbours that have the cell's label.
    shuffled, deviation
        Mean and standard deviation of the same after the rows were shuffled.
    k, n_cells
        Neighbours and cells it was counted on.
    """

    agreement: float
    shuffled: float
    deviation: float
    k: int
    n_cells: int

    @property
    def signal(self) -> float:
        """Agreement beyond that of shuffled rows."""
        return self.agreement - self.shuffled

    @property
    def chance_corrected(self) -> float:
        """Signal as a share of what is possible: 0 as shuffled, 1 where all neighbours share the label."""
        return self.signal / (1 - self.shuffled) if self.shuffled < 1 else float("nan")

    @property
    def telling(self) -> bool:
        """Whether shuffling changes anything: not so with one label, or with labels of one cell each."""
        return self.deviation > 1e-12

    @property
    def aligned(self) -> bool:
        """Whether the agreement is three standard deviations above that of shuffled rows, or nothing can be told."""
        return not self.telling or self.signal >= DEVIATIONS * self.deviation


def alignment(neighbors: Neighbors, labels: Texts, rng: np.random.Generator, *, shuffles: int = SHUFFLES) -> Alignment:
    """Count how often the 15 nearest (in small sets a third of the cells) share a label (cells,)."""
    near = neighbors.first(max(1, min(K, neighbors.k, len(labels) // 3))).indices
    codes = np.unique(labels, return_inverse=True)[1]
    dealt = [_agreement(near, rng.permutation(codes)) for _ in range(shuffles)]
    return Alignment(
        _agreement(near, codes), float(np.mean(dealt)), float(np.std(dealt)), int(near.shape[1]), len(labels)
    )


def _agreement(near: NDArray[np.int64], codes: NDArray[np.int64]) -> float:
    return float((codes[near] == codes[:, None]).mean()) if near.size else float("nan")


def align(context: Context, embedding: Embedding) -> Alignment:
    """How often neighbours in an embedding share the label of the cells."""
    return alignment(context.neighbors(embedding, K), context.cells.labels, context.rng(101))


def check_alignment(context: Context, embedding: Embedding) -> str:
    """Why the scores of an embedding must not be read, in words; empty if its rows agree with the labels."""
    found = align(context, embedding)
    return "" if found.aligned else words(found, embedding.name)


def words(found: Alignment, name: str) -> str:
    """What it means that an embedding of this name is not aligned."""
    return (
        f"embedding looks unaligned with labels: {name} is no better than shuffled rows (neighbours share a label with "
        f"{found.agreement:.3f}, shuffled with {found.shuffled:.3f} ± {found.deviation:.3f}, {found.n_cells:,} cells). "
        f"Either its rows are in another order than the cells, or it is without any signal of these labels"
    )


_CELL_WORDS = re.compile(
    r"cells?\b|^[bt]([ _-]|$)|\b(nk|th\d+|treg|ilc\d?|cd\d+|dc|pdc|opc|hsc|esc|mef)\b|naive|memory|effector|cytotoxic"
    r"|(cyte|blast|clast|phage|phil|glia|thelial|thelium|derm|neuron|interneuron|progenitor|precursor|stem)s?\b"
    r"|\bmono|\bmacro|\bkeratin|\bfibro|\bneuro|\bastro|\boligo|\berythro|\bmyelo|\blympho|\bmegakaryo|\bgranulo"
    r"|dendritic|epiblast|muscle|stromal|tumou?r|ductal|acinar|alpha|beta|delta|epsilon|kupffer|mast|plasma|hepat"
)
_BATCH_WORDS = re.compile(
    r"donor|patient|subject|individual|participant|ctrl|control|stim|healthy|disease|treated|sample|lane|batch|\brep"
    r"|run\d*\b|plate|librar|\bpool|chip|channel|site|study|dataset|minutes|\bhours?\b|depth|\badult$|\bfetal$|10x|seq"
    r"|smart|chromium|drop|\bv\d\b|^(gse|gsm|srr|srx|ers|err)\d+|^(hc|p|s|d|pt|l|b|m|f|n)[-_ ]?\d{1,4}[a-z]?\d?$"
)


def check_columns(cells: Cells, embedding: Embedding | None) -> tuple[str, ...]:
    """What looks wrong with the columns for labels and batches, in words."""
    if len(np.unique(cells.labels)) < 2:
        return (f"all cells have the label {str(cells.labels[0])!r}: nothing about labels can be judged here",)
    if cells.batches is None or len(np.unique(cells.batches)) < 2:
        return ()
    if _one_label_each(cells.labels, cells.batches):
        return ("every batch holds cells of one label: mixed batches and lost cell types cannot be told apart here",)
    names = name_evidence(cells.labels, cells.batches)
    data = 0.0 if embedding is None else neighbor_evidence(cells, embedding)
    if not swapped(names, data):
        return ()
    return (
        f"labels and batches look swapped: the batches are {_some(cells.batches)}, the labels {_some(cells.labels)}. "
        f"If so, exchange the two columns",
    )


def swapped(names: float, data: float) -> bool:
    """Whether the names (-2 to 2) and the neighbours (-1 to 1) say that labels and batches were exchanged.

    Never by neighbours alone: a strong batch effect separates batches better than any cell types.
    """
    return (names >= 0.75 and data > -0.4) or (names >= 0.25 and data > 0.2)


def name_evidence(labels: Texts, batches: Texts) -> float:
    """How much more the batches are named like cell types, and the labels like batches, than the other way round."""
    return (
        _share(_CELL_WORDS, batches)
        - _share(_CELL_WORDS, labels)
        + _share(_BATCH_WORDS, labels)
        - _share(_BATCH_WORDS, batches)
    )


def neighbor_evidence(cells: Cells, embedding: Embedding) -> float:
    """By how much neighbours agree better in the batch than in the label, both corrected for chance."""
    embedding = embedding.finite()
    cells = cells if embedding.rows is None else cells.take(embedding.rows)
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(len(cells))[:MAX_CELLS])
    near = find_neighbors(embedding.vectors[rows], K)
    assert cells.batches is not None
    batch, label = (alignment(near, values[rows], rng, shuffles=10) for values in (cells.batches, cells.labels))
    return batch.chance_corrected - label.chance_corrected


def _share(words: re.Pattern[str], values: Texts) -> float:
    different = np.unique(values)
    return float(np.mean([bool(words.search(value.lower().replace("_", " "))) for value in different.tolist()]))


def _one_label_each(labels: Texts, batches: Texts) -> bool:
    pairs = np.unique(np.stack([batches.astype(str), labels.astype(str)], axis=1), axis=0)
    return len(pairs) == len(np.unique(batches))


def _some(values: Texts) -> str:
    different = np.unique(values).tolist()
    return ", ".join(repr(value) for value in different[:3]) + (", ..." if len(different) > 3 else "")
