"""Principal components of the variable genes: what linear algebra alone sees in the cells."""

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.baselines.variable_genes import fitting_cells, variable_values
from uce.evaluation.cells import Cells
from uce.evaluation.embeddings import Floats, Mask
from uce.evaluation.results import NotPossible

COMPONENTS = 50
_FLAT = 1e-7  # of the longest axis: below it, float32 knows no difference


def embed(cells: Cells, train: Mask | None, seed: int) -> Floats:  # noqa: ARG001  nothing here is random
    """(cells, 50 at most) components of log1p CP10k of 2,000 genes, not scaled to unit variance.

    Genes and components are chosen on the cells of `train` (all if None).

    Raises
    ------
    NotPossible
        There are no counts, or too few cells, or they do not differ.
    """
    return principal_components(variable_values(cells, train), fitting_cells(cells, train))


def principal_components(values: Floats, fit: Mask, dim: int = COMPONENTS) -> Floats:
    """(cells, dim at most) components of `values` (cells, genes); mean and axes are those of the rows of `fit` alone.

    Exact: by the products of genes or of cells, whichever are fewer. Axes along which the cells do not differ are left
    out.

    Raises
    ------
    NotPossible
        The cells to fit on do not differ at all.
    """
    fitted = values[fit]
    mean = fitted.mean(axis=0, dtype=np.float64).astype(np.float32)
    fitted -= mean
    by_cell = len(fitted) < fitted.shape[1]
    products = (fitted @ fitted.T if by_cell else fitted.T @ fitted).astype(np.float64)
    axes, squares = principal_axes(products, min(dim, len(fitted) - 1))
    told = squares > max(_FLAT * squares[0], 0)
    if not told.any():
        raise NotPossible("the cells to fit on do not differ")
    if by_cell:
        axes = fitted.T @ (axes / np.sqrt(np.where(told, squares, 1)))
    return np.ascontiguousarray((values - mean) @ axes[:, told].astype(np.float32))


def principal_axes(products: NDArray[np.float64], dim: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n, dim at most) axes of a matrix of products (n, n), the longest first, and the sum of squares along each.

    The largest entry of an axis is positive, so that equal data have equal axes on every machine.
    """
    from scipy.linalg import eigh

    n = len(products)
    squares, axes = eigh(products, subset_by_index=(max(n - dim, 0), n - 1))
    axes = axes[:, ::-1]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return axes * signs, squares[::-1]
