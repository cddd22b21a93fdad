"""The genes that vary most, as every baseline chooses them: on some cells, for all cells."""

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from uce.evaluation.cells import Cells
from uce.evaluation.embeddings import Floats, Mask
from uce.evaluation.results import NotPossible
from uce.threads import torch_threads_kept

VARIABLE_GENES = 2000


def variable_genes(log_counts: csr_matrix, n: int = VARIABLE_GENES) -> NDArray[np.int64]:
    """Columns of the `n` most variable genes, ascending; all that were seen where there are no more than that.

    Parameters
    ----------
    log_counts
        (cells, genes) log1p of counts per 10,000.

    Notes
    -----
    Dispersions normalised within bins of mean expression (Satija et al. 2015), scanpy's flavor `seurat`: its inputs are
    logarithms, so it takes what `Cells.log_counts` gives, and it has no fit that small data can break.
    """
    import anndata as ad
    import scanpy as sc

    seen = np.flatnonzero(log_counts.getnnz(axis=0))
    if len(seen) <= n:
        return seen.astype(np.int64)
    with torch_threads_kept(), warnings.catch_warnings():
        # Bins of a single gene, and genes of equal dispersion: both are dealt with, and spoken of, by scanpy.
        warnings.filterwarnings("ignore", module="scanpy")
        table = sc.pp.highly_variable_genes(
            ad.AnnData(log_counts[:, seen]), n_top_genes=n, flavor="seurat", inplace=False
        )
    return seen[np.flatnonzero(table["highly_variable"].to_numpy())].astype(np.int64)


def fitting_cells(cells: Cells, train: Mask | None) -> Mask:
    """Mask of the cells to fit on: `train`, or all.

    Raises
    ------
    NotPossible
        There are fewer than three.
    """
    fit = np.ones(len(cells), dtype=bool) if train is None else train
    if fit.sum() < 3:
        raise NotPossible(f"needs at least 3 cells to fit on, there are {fit.sum()}")
    return fit


def variable_values(cells: Cells, train: Mask | None) -> Floats:
    """(cells, genes) log1p CP10k of the genes that vary most among the cells of `train` (all if None).

    Raises
    ------
    NotPossible
        There are no counts, or fewer than three cells to fit on, or these have no counts.
    """
    log_counts, fit = cells.log_counts, fitting_cells(cells, train)
    genes = variable_genes(log_counts[fit])
    if not len(genes):
        raise NotPossible("the cells to fit on have no counts")
    return np.asarray(log_counts[:, genes].toarray(), dtype=np.float32)
