"""The mean of a cell's gene vectors: what the network's inputs say before the network."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from uce.evaluation.cells import Cells, log_cp10k
from uce.evaluation.embeddings import Floats, Mask


def embed(cells: Cells, train: Mask | None, seed: int) -> Floats:  # noqa: ARG001  fits nothing, draws nothing
    """(cells, protein dim) mean of the vectors that the model is given of the same genes; see `mean_vectors`.

    Raises
    ------
    NotPossible
        There are no counts or no model.
    """
    return mean_vectors(cells.ranked, gene_vectors(cells))


def gene_vectors(cells: Cells) -> NDArray[np.float32]:
    """(genes, protein dim) the model's input vectors, in the order of the columns of `cells.ranked`.

    Raises
    ------
    NotPossible
        There is no model.
    """
    reader = cells.need_reader()
    return reader.match.table.vectors[np.argsort(reader.vocabulary.ranks)]


def mean_vectors(counts: csr_matrix, vectors: NDArray[np.float32]) -> Floats:
    """Means of `vectors` (genes, dim) weighted by log1p CP10k of `counts` (cells, genes), of unit length.

    A cell without counts has a row of NaN, as in an embedding.
    """
    sums = np.asarray(log_cp10k(counts) @ vectors, dtype=np.float32)
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.asarray(np.divide(sums, norms, out=np.full_like(sums, np.nan), where=norms > 0), dtype=np.float32)
