"""Harmony on the principal components: batches pulled together, with all the cells at hand."""

import numpy as np

from uce.evaluation.baselines import pca
from uce.evaluation.cells import Cells, Texts
from uce.evaluation.embeddings import Floats, Mask
from uce.evaluation.results import NotPossible

_INSTALL = "harmonypy is not installed: pip install 'uce[eval]'"


def embed(cells: Cells, train: Mask | None, seed: int) -> Floats:
    """(cells, 50 at most) principal components with the batches mixed; it knows all cells, `train` chooses the axes.

    Raises
    ------
    NotPossible
        There are no counts or too few cells, fewer than two batches, or harmonypy is not installed.
    """
    if cells.batches is None:
        raise NotPossible("needs batches: give --batch-key")
    return mix_batches(pca.embed(cells, train, seed), cells.batches, seed)


def mix_batches(vectors: Floats, batches: Texts, seed: int) -> Floats:
    """Harmony (Korsunsky et al. 2019) of (cells, dim) vectors with the batch of every cell; the same for one seed.

    Raises
    ------
    NotPossible
        There are fewer than two batches, as many cells as dimensions, or harmonypy is not installed.
    """
    try:
        from harmonypy import run_harmony
    except ImportError as error:
        raise NotPossible(_INSTALL) from error
    import pandas as pd

    cells, dim = vectors.shape
    if len(np.unique(batches)) < 2:
        raise NotPossible("needs two batches or more, there is one")
    if cells == dim:
        # Releases of harmonypy differ in which way round they give the result, and here its shape cannot tell.
        raise NotPossible(f"{cells} cells in {dim} dimensions: harmonypy's result could be either way round")
    clusters = int(np.clip(round(cells / 30), 1, 100))  # its own rule, which gives none to a few cells
    table = pd.DataFrame({"batch": batches})
    mixed = run_harmony(vectors.astype(np.float64), table, "batch", nclust=clusters, verbose=False, random_state=seed)
    corrected = np.asarray(mixed.Z_corr)
    return np.ascontiguousarray(corrected if len(corrected) == cells else corrected.T, dtype=np.float32)
