"""Promise 2: rows are never lost, added or reordered; nothing is filtered; what has no vector is NaN and counted."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pytest

import uce

if TYPE_CHECKING:
    from uce.model.checkpoint import Model


@pytest.fixture
def sparse_cells(make_cells: Callable[..., ad.AnnData]) -> ad.AnnData:
    """Cells of which two are empty, one has a single count, and two share a name."""
    cells = make_cells(cells=1030, genes=700)
    X = cells.X.tolil()
    for row in (0, 1024):
        X[row] = 0
    X[5] = 0
    X[5, 3] = 1
    cells.X = X.tocsr()
    names = cells.obs_names.to_list()
    names[8] = names[9] = "twin"
    cells.obs_names = names
    return cells


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_every_row_is_there_in_order_and_empty_ones_are_nan(
    sparse_cells: ad.AnnData, tiny_model: "Model", tmp_path: Path
) -> None:
    sparse_cells.write_h5ad(tmp_path / "in.h5ad")
    outcome = uce.embed_file(tmp_path / "in.h5ad", tmp_path / "out.h5ad", model=tiny_model, species="human", quiet=True)
    written = ad.read_h5ad(outcome.path)
    assert written.obs_names.to_list() == sparse_cells.obs_names.to_list()
    assert written.obsm["X_uce"].shape == (1030, 16)
    without = np.flatnonzero(np.isnan(written.obsm["X_uce"]).any(axis=1))
    assert without.tolist() == [0, 1024]
    assert np.isnan(written.obsm["X_uce"][without]).all()
    assert outcome.record["cells_without_vector"] == 2
    assert outcome.health.cells_without_vector == 2


def test_all_else_in_the_file_stays_as_it_was(
    make_cells: Callable[..., ad.AnnData], tiny_model: "Model", tmp_path: Path
) -> None:
    cells = make_cells()
    cells.layers["twice"] = cells.X * 2
    cells.obsm["X_pca"] = np.arange(120.0).reshape(60, 2)
    cells.uns["mine"] = {"a": 1, "b": np.arange(3)}
    cells.raw = cells
    cells.write_h5ad(tmp_path / "in.h5ad")
    uce.embed_file(tmp_path / "in.h5ad", tmp_path / "out.h5ad", model=tiny_model, species="human", quiet=True)
    before, after = ad.read_h5ad(tmp_path / "in.h5ad"), ad.read_h5ad(tmp_path / "out.h5ad")
    del after.obsm["X_uce"], after.uns["uce"]
    assert (before.X != after.X).nnz == 0
    assert (before.layers["twice"] != after.layers["twice"]).nnz == 0
    assert (before.raw.X != after.raw.X).nnz == 0
    np.testing.assert_array_equal(before.obsm["X_pca"], after.obsm["X_pca"])
    assert before.obs.equals(after.obs)
    assert before.var.equals(after.var)
    assert set(after.uns) == {"mine"}
    assert set(after.obsm) == {"X_pca"}


def test_no_cells_give_an_empty_result(
    make_cells: Callable[..., ad.AnnData], tiny_model: "Model", tmp_path: Path
) -> None:
    make_cells()[:0].copy().write_h5ad(tmp_path / "in.h5ad")
    uce.embed_file(tmp_path / "in.h5ad", tmp_path / "out.h5ad", model=tiny_model, species="human", quiet=True)
    assert ad.read_h5ad(tmp_path / "out.h5ad").obsm["X_uce"].shape == (0, 16)


def test_an_adata_keeps_its_matrix_and_gains_one_key_that_can_be_saved(
    make_cells: Callable[..., ad.AnnData], tiny_model: "Model", tmp_path: Path
) -> None:
    cells = make_cells()
    before = cells.copy()
    uce.embed(cells, model=tiny_model, species="human", key_added="X_mine", quiet=True)
    assert (cells.X != before.X).nnz == 0
    assert list(cells.obsm) == ["X_mine"]
    assert list(cells.uns["uce"]) == ["X_mine"]
    assert cells.obs.equals(before.obs)
    cells.write_h5ad(tmp_path / "saved.h5ad")
    assert ad.read_h5ad(tmp_path / "saved.h5ad").uns["uce"]["X_mine"]["cells"] == 60
