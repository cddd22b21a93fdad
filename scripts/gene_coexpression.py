"""Which genes go up and down together over the training cells, on human anchors."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Floats = npt.NDArray[np.float32]


def to_anchors(names: Sequence[int], references: Sequence[Sequence[int]], n_anchors: int) -> sp.csr_matrix:
    """(columns, anchors) matrix that hands a column's counts, in equal parts, to the groups of its gene."""
    rows, groups, parts = [], [], []
    for column, gene in enumerate(names):
        if gene >= 0:
            for group in references[gene]:
                rows.append(column)
                groups.append(group)
                parts.append(1.0 / len(references[gene]))
    return sp.csr_matrix((parts, (rows, groups)), shape=(len(names), n_anchors))


def log_expression(counts: sp.csr_matrix) -> sp.csr_matrix:
    """log1p of counts per 10,000, (cells, anchors)."""
    totals = np.asarray(counts.sum(axis=1)).ravel()
    scaled = sp.diags(1e4 / np.maximum(totals, 1)) @ counts
    return scaled.log1p().astype(np.float32).tocsr()


def standardise(expression: Mapping[str, sp.csr_matrix], *, floor: float) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Stack the sets, each centred gene by gene and scaled by the gene's spread over the sets that measure it.

    `floor` is added to the spread, so that hardly seen genes are not blown up. A set weighs as the root of its number
    of cells. Also returned: the number of cells that express each gene.
    """
    blocks, spread, measured = [], 0.0, 0.0
    seen = sum(np.asarray((matrix > 0).sum(axis=0)).ravel() for matrix in expression.values())
    for matrix in expression.values():
        dense = matrix.toarray()
        there = dense.any(axis=0)
        dense -= dense.mean(axis=0)
        spread = spread + dense.var(axis=0) * there
        measured = measured + there
        blocks.append(dense / np.float32(len(dense) ** 0.25))
    scale = np.sqrt(spread / np.maximum(measured, 1)) + floor
    return np.vstack(blocks) / scale.astype(np.float32), np.asarray(seen, dtype=np.int64)


def loadings(matrix: Floats, *, width: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Right singular vectors (genes, width) and singular values, by randomised iteration (Halko et al. 2011)."""
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((matrix.shape[1], width + 20)).astype(np.float32)
    for _ in range(4):
        basis, _r = np.linalg.qr(matrix.T @ (matrix @ basis))
    small = matrix @ basis
    _u, values, vt = np.linalg.svd(small, full_matrices=False)
    found = basis @ vt[:width].T
    # Singular vectors are known up to their sign: the largest entry is made positive.
    signs = np.sign(found[np.abs(found).argmax(axis=0), np.arange(width)])
    return (found * signs).astype(np.float32), values[:width].astype(np.float32)


def ridge(inputs: Floats, targets: Floats, *, penalty: float) -> Floats:
    """Weights (inputs + 1, targets) of a ridge regression with an unpenalised constant in the last row."""
    design = np.hstack([inputs, np.ones((len(inputs), 1), np.float32)]).astype(np.float64)
    gram = design.T @ design + penalty * np.diag([1.0] * inputs.shape[1] + [0.0])
    return np.linalg.solve(gram, design.T @ targets).astype(np.float32)


def read_counts(path: Path) -> tuple[list[list[str]], sp.csr_matrix]:
    """Candidate name columns of a file, ids first, and its counts."""
    import anndata

    data = anndata.read_h5ad(path)
    columns = [data.var_names.astype(str).tolist()]
    if "symbol" in data.var:
        columns.append(data.var["symbol"].astype(str).tolist())
    return columns, sp.csr_matrix(data.X)
