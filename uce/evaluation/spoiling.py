"""Ways to spoil counts: fewer of them, fewer genes, other names of genes, counts of other cells mixed in."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

Mask = NDArray[np.bool_]
_ROWS = 64  # of a block with a number for every gene of every cell


def thin(counts: csr_matrix, share: float, rng: np.random.Generator) -> csr_matrix:
    """(cells, genes) counts as a shallower experiment would have found them: each is kept with the chance `share`."""
    thinned = counts.copy()
    thinned.data = rng.binomial(np.rint(counts.data).astype(np.int64), share).astype(np.float64)
    thinned.eliminate_zeros()
    return thinned


def keep_genes(counts: csr_matrix, kept: Mask) -> csr_matrix:
    """(cells, genes) counts of the genes of a mask (genes,), zero elsewhere: as if the others had not been measured."""
    entries = kept[counts.indices]
    ends = np.concatenate([[0], np.cumsum(entries)])[counts.indptr]
    return csr_matrix((counts.data[entries], counts.indices[entries], ends), shape=counts.shape)


def chosen(genes: NDArray[np.int64], n_genes: int) -> Mask:
    """(n_genes,) a mask of the genes at these places."""
    mask = np.zeros(n_genes, dtype=bool)
    mask[genes] = True
    return mask


def exchange_genes(counts: csr_matrix, places: NDArray[np.int64]) -> csr_matrix:
    """(cells, genes) with the counts of gene `i` under the name of gene `places[i]`, (genes,) a permutation."""
    moved = csr_matrix((counts.data.copy(), places[counts.indices], counts.indptr.copy()), shape=counts.shape)
    moved.sort_indices()
    return moved


def add_soup(counts: csr_matrix, share: float, rng: np.random.Generator) -> csr_matrix:
    """(cells, genes) with a share of the counts of every cell replaced by counts drawn from all cells together.

    The profile of the ambient RNA is the sum of the cells, its counts are Poisson, their mean the cell's lost counts.
    """
    own = thin(counts, 1 - share, rng)
    profile = np.asarray(counts.sum(axis=0)).ravel()
    profile = profile / max(1.0, profile.sum())
    lost = share * np.asarray(counts.sum(axis=1)).ravel()
    soups = [
        csr_matrix(rng.poisson(lost[start : start + _ROWS, None] * profile).astype(np.float64))
        for start in range(0, counts.shape[0], _ROWS)
    ]
    return csr_matrix(own + vstack(soups, format="csr"))
