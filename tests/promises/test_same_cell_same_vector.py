"""Promise 1: same cell, same vector, whatever the batch size, order, workers, company, columns and names."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

import uce
from uce.devices import computes_bf16
from uce.genes.collection import load_gene_table

if TYPE_CHECKING:
    from uce.model.checkpoint import Model

# Sentences are equal to the bit. Matrix products of another shape may round otherwise: this bounds them in float32.
ROUNDING = 1e-6


def vectors(adata: ad.AnnData, model: "Model", **options: object) -> np.ndarray:
    cells = adata.copy()
    uce.embed(cells, model=model, species="human", quiet=True, **options)
    return cells.obsm["X_uce"]


@pytest.fixture(scope="module")
def cells(make_cells: Callable[..., ad.AnnData]) -> ad.AnnData:
    return make_cells(cells=70, seed=1)


@pytest.fixture(scope="module")
def reference(cells: ad.AnnData, tiny_model: "Model") -> np.ndarray:
    found = vectors(cells, tiny_model)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1.0)
    # A test of equality means nothing where all cells are equal.
    assert np.abs(found[0] - found[1:]).max(axis=1).min() > 1e-3
    return found


@pytest.mark.parametrize("batch_size", [1, 3, 64, 1000])
def test_batch_size_does_not_matter(
    cells: ad.AnnData, reference: np.ndarray, tiny_model: "Model", batch_size: int
) -> None:
    np.testing.assert_allclose(vectors(cells, tiny_model, batch_size=batch_size), reference, atol=ROUNDING)


@pytest.mark.skipif(not computes_bf16(), reason="this processor has no instructions for bfloat16")
@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_in_bfloat16_neither_batch_size_nor_order_matters(
    cells: ad.AnnData, reference: np.ndarray, tiny_model: "Model", batch_size: int
) -> None:
    found = vectors(cells, tiny_model, precision="bf16")
    order = np.random.default_rng(0).permutation(cells.n_obs)
    again = vectors(cells[order].copy(), tiny_model, precision="bf16", batch_size=batch_size)
    # Much nearer than bfloat16 is to float32: no sum of a row depends on the rows beside it.
    np.testing.assert_allclose(again, found[order], atol=ROUNDING)
    assert np.abs(found - reference).max() > 10 * ROUNDING


def test_reading_ahead_does_not_matter(cells: ad.AnnData, reference: np.ndarray, tiny_model: "Model") -> None:
    np.testing.assert_array_equal(vectors(cells, tiny_model, num_workers=0), reference)


def test_row_order_and_company_do_not_matter(cells: ad.AnnData, reference: np.ndarray, tiny_model: "Model") -> None:
    order = np.random.default_rng(0).permutation(cells.n_obs)
    np.testing.assert_allclose(vectors(cells[order].copy(), tiny_model), reference[order], atol=ROUNDING)
    np.testing.assert_allclose(vectors(cells[7:9].copy(), tiny_model), reference[7:9], atol=ROUNDING)


def test_column_order_does_not_matter(cells: ad.AnnData, reference: np.ndarray, tiny_model: "Model") -> None:
    order = np.random.default_rng(0).permutation(cells.n_vars)
    np.testing.assert_allclose(vectors(cells[:, order].copy(), tiny_model), reference, atol=ROUNDING)


def test_ids_and_symbols_give_the_same_vectors(cells: ad.AnnData, reference: np.ndarray, tiny_model: "Model") -> None:
    table = load_gene_table("human")
    ids = dict(zip(table.symbols.tolist(), table.ids.tolist(), strict=True))
    renamed = cells.copy()
    renamed.var_names = [f"{ids[name]}.7" for name in cells.var_names]
    np.testing.assert_allclose(vectors(renamed, tiny_model), reference, atol=ROUNDING)


@pytest.mark.parametrize("kind", ["dense", "csc", "int", "float64", "view"])
def test_the_kind_of_matrix_does_not_matter(
    cells: ad.AnnData, reference: np.ndarray, tiny_model: "Model", kind: str
) -> None:
    other = cells.copy()
    if kind == "view":
        np.testing.assert_allclose(vectors(cells[:], tiny_model), reference, atol=ROUNDING)
        return
    other.X = {
        "dense": lambda matrix: matrix.toarray(),
        "csc": sparse.csc_matrix,
        "int": lambda matrix: matrix.astype(np.int64),
        "float64": lambda matrix: matrix.astype(np.float64),
    }[kind](cells.X)
    np.testing.assert_allclose(vectors(other, tiny_model), reference, atol=ROUNDING)


def test_a_column_split_in_two_is_the_same_gene(cells: ad.AnnData, reference: np.ndarray, tiny_model: "Model") -> None:
    first = int(np.argmax(np.asarray(cells.X.sum(axis=0)).ravel()))
    half = cells.X[:, [first]].copy()
    half.data = np.floor(half.data / 2)
    rest = cells.X[:, [first]] - half
    X = sparse.hstack([cells.X[:, :first], half, cells.X[:, first + 1 :], rest]).tocsr()
    names = [*cells.var_names, cells.var_names[first]]
    split = ad.AnnData(X, obs=cells.obs, var={"symbol": names})
    split.var_names = [f"g{i}" for i in range(len(names))]
    np.testing.assert_allclose(vectors(split, tiny_model, gene_column="symbol"), reference, atol=ROUNDING)


def test_memory_file_and_arrays_agree(
    cells: ad.AnnData, reference: np.ndarray, tiny_model: "Model", tmp_path: Path
) -> None:
    cells.write_h5ad(tmp_path / "in.h5ad")
    outcome = uce.embed_file(tmp_path / "in.h5ad", tmp_path / "out.h5ad", model=tiny_model, species="human", quiet=True)
    np.testing.assert_array_equal(ad.read_h5ad(outcome.path).obsm["X_uce"], reference)
    from_arrays = uce.embed_counts(cells.X, list(cells.var_names), model=tiny_model, species="human")
    np.testing.assert_array_equal(from_arrays, reference)


def test_seed_and_replicates_do_matter(cells: ad.AnnData, reference: np.ndarray, tiny_model: "Model") -> None:
    other = vectors(cells, tiny_model, seed=1)
    assert np.abs(other - reference).max() > 1e-3
    averaged = vectors(cells, tiny_model, replicates=8)
    # An average of eight draws is nearer to another draw than one draw is.
    assert (averaged * other).sum(1).mean() > (reference * other).sum(1).mean()


def test_bfloat16_is_near_recorded_and_verifies(
    cells: ad.AnnData, reference: np.ndarray, tiny_model: "Model", tmp_path: Path
) -> None:
    cells.write_h5ad(tmp_path / "in.h5ad")
    outcome = uce.embed_file(
        tmp_path / "in.h5ad", tmp_path / "out.h5ad", model=tiny_model, species="human", precision="bf16", quiet=True
    )
    near = ad.read_h5ad(outcome.path).obsm["X_uce"]
    assert not np.array_equal(near, reference)
    assert (near * reference).sum(axis=1).min() > 0.999
    assert outcome.record["precision"] == "bf16"
    assert uce.verify(outcome.path, model=tiny_model).ok
