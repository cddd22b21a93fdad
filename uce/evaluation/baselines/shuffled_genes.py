"""The mean of gene vectors that were dealt to the wrong genes: what is left says nothing of the genes."""

import numpy as np

from uce.evaluation.baselines.mean_genes import gene_vectors, mean_vectors
from uce.evaluation.cells import Cells
from uce.evaluation.embeddings import Floats, Mask


def embed(cells: Cells, train: Mask | None, seed: int) -> Floats:  # noqa: ARG001  fits nothing
    """(cells, protein dim) as `mean_genes`, with the vectors of all genes of the table permuted by the seed.

    Raises
    ------
    NotPossible
        There are no counts or no model.
    """
    vectors = gene_vectors(cells)
    return mean_vectors(cells.ranked, vectors[np.random.default_rng(seed).permutation(len(vectors))])
