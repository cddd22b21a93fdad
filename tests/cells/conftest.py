"""Count matrices and AnnData for the tests of cells: small, random but repeatable, with every awkward trait."""

from collections.abc import Callable

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse


@st.composite
def count_matrices(draw: st.DrawFn, *, most_cells: int = 12, most_genes: int = 9, largest: int = 60) -> np.ndarray:
    """(cells, genes) int64 counts, mostly zeros, with empty cells and empty genes among them."""
    shape = draw(st.integers(1, most_cells)), draw(st.integers(1, most_genes))
    values = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, largest)))
    return values * draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 1)))


def simulate_counts(cells: int = 40, genes: int = 30, *, depth: float = 3.0, seed: int = 0) -> np.ndarray:
    """(cells, genes) int64 counts of unequal depth, about half of them zero; every cell has a count of one."""
    rng = np.random.default_rng(seed)
    rates = rng.gamma(0.5, depth, genes) * rng.uniform(0.5, 2.0, (cells, 1))
    counts = rng.poisson(rates)
    counts[:, 0] = 1
    return counts


def make_anndata(counts: np.ndarray, *, dtype: str = "float32") -> ad.AnnData:
    """AnnData with counts as CSR in X, named cells and genes, a symbol column and a donor column."""
    n_cells, n_genes = counts.shape
    return ad.AnnData(
        sparse.csr_matrix(counts.astype(dtype)),
        obs=pd.DataFrame(
            {"donor": pd.Categorical([f"d{i % 3}" for i in range(n_cells)]), "depth": counts.sum(1).astype(float)},
            index=[f"cell{i}" for i in range(n_cells)],
        ),
        var=pd.DataFrame({"symbol": [f"SYM{i}" for i in range(n_genes)]}, index=[f"gene{i}" for i in range(n_genes)]),
    )


def log_normalise(
    counts: np.ndarray, *, target: float = 1e4, base: float = np.e, totals: np.ndarray | None = None
) -> np.ndarray:
    """log_base(1 + target * count / total) in float32, as scanpy computes it."""
    totals = counts.sum(1) if totals is None else totals
    scaled = counts.astype(np.float32) / (np.maximum(totals, 1)[:, None] / target).astype(np.float32)
    return (np.log1p(scaled) / np.float32(np.log(base))).astype(np.float32)


@pytest.fixture
def simulated() -> Callable[..., np.ndarray]:
    """Simulated counts."""
    return simulate_counts


@pytest.fixture
def anndata_of() -> Callable[..., ad.AnnData]:
    """AnnData from a matrix of counts."""
    return make_anndata


@pytest.fixture
def logged() -> Callable[..., np.ndarray]:
    """log1p of normalised counts."""
    return log_normalise


@pytest.fixture(scope="session")
def matrices() -> Callable[..., st.SearchStrategy[np.ndarray]]:
    """Strategy for matrices of counts: draw with `data.draw(matrices())`."""
    return count_matrices
