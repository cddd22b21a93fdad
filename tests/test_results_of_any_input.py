"""A result can be added to what any input holds: old files, zarr, 10x files."""

import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.io import mmwrite

import uce
from uce.genes.collection import load_gene_table

if TYPE_CHECKING:
    from uce.model.checkpoint import Model


@pytest.fixture
def cells(make_cells: Callable[..., ad.AnnData]) -> ad.AnnData:
    cells = make_cells(cells=40)
    cells.obs["depth"] = np.asarray(cells.X.sum(axis=1)).ravel()
    cells.uns["note"] = {"who": "me", "numbers": np.arange(4)}
    cells.obsm["X_pca"] = np.random.default_rng(0).standard_normal((40, 3))
    cells.layers["counts"] = cells.X.copy()
    return cells


def embedded(source: Path, model: "Model", tmp_path: Path) -> ad.AnnData:
    uce.embed_file(source, tmp_path / "out.h5ad", model=model, species="human", quiet=True)
    return ad.read_h5ad(tmp_path / "out.h5ad")


@pytest.fixture
def expected(cells: ad.AnnData, tiny_model: "Model") -> np.ndarray:
    copy = cells.copy()
    uce.embed(copy, model=tiny_model, species="human", quiet=True)
    return copy.obsm["X_uce"]


@pytest.mark.filterwarnings("ignore::UserWarning:zarr", "ignore::zarr.errors.UnstableSpecificationWarning")
@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
@pytest.mark.parametrize("packed", [False, True])
def test_a_zarr_keeps_all_it_holds(
    cells: ad.AnnData, expected: np.ndarray, tiny_model: "Model", tmp_path: Path, packed: bool
) -> None:
    cells.write_zarr(tmp_path / "in.zarr")
    source = tmp_path / "in.zarr"
    if packed:
        source = tmp_path / "in.zarr.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for path in sorted((tmp_path / "in.zarr").rglob("*")):
                archive.write(path, path.relative_to(tmp_path / "in.zarr").as_posix())
    result = embedded(source, tiny_model, tmp_path)
    np.testing.assert_array_equal(result.obsm["X_uce"], expected)
    assert (result.X != cells.X).nnz == 0
    assert (result.layers["counts"] != cells.layers["counts"]).nnz == 0
    np.testing.assert_array_equal(result.obsm["X_pca"], cells.obsm["X_pca"])
    np.testing.assert_array_equal(result.uns["note"]["numbers"], np.arange(4))
    pd.testing.assert_frame_equal(result.obs, cells.obs)


def write_10x_folder(cells: ad.AnnData, folder: Path) -> None:
    folder.mkdir()
    with gzip.open(folder / "matrix.mtx.gz", "wb") as stream:
        mmwrite(stream, sparse.coo_matrix(cells.X.T.astype(np.int64)))
    (folder / "barcodes.tsv.gz").write_bytes(gzip.compress("\n".join(cells.obs_names).encode() + b"\n", mtime=0))
    rows = "".join(f"{name}\t{name}\tGene Expression\n" for name in cells.var_names)
    (folder / "features.tsv.gz").write_bytes(gzip.compress(rows.encode(), mtime=0))


def write_10x_h5(cells: ad.AnnData, path: Path) -> None:
    table = load_gene_table("human")
    ids = dict(zip(table.symbols.tolist(), table.ids.tolist(), strict=True))
    X = cells.X.tocsr()
    with h5py.File(path, "w") as file:
        matrix = file.create_group("matrix")
        matrix["barcodes"] = np.array(cells.obs_names, "S")
        matrix["data"], matrix["indices"], matrix["indptr"] = X.data.astype(np.int32), X.indices, X.indptr
        matrix["shape"] = np.array(X.shape[::-1])
        features = matrix.create_group("features")
        features["id"] = np.array([ids[name] for name in cells.var_names], "S")
        features["name"] = np.array(cells.var_names, "S")
        features["feature_type"] = np.array(["Gene Expression"] * cells.n_vars, "S")
        features["genome"] = np.array(["GRCh38"] * cells.n_vars, "S")


@pytest.mark.parametrize("write", [write_10x_folder, write_10x_h5])
def test_a_10x_source_becomes_a_file_with_its_counts(
    cells: ad.AnnData,
    expected: np.ndarray,
    tiny_model: "Model",
    tmp_path: Path,
    write: Callable[[ad.AnnData, Path], None],
) -> None:
    source = tmp_path / ("folder" if write is write_10x_folder else "file.h5")
    write(cells, source)
    result = embedded(source, tiny_model, tmp_path)
    np.testing.assert_array_equal(result.obsm["X_uce"], expected)
    assert result.obs_names.to_list() == cells.obs_names.to_list()
    assert (result.X != cells.X).nnz == 0


def test_a_file_in_an_old_layout_is_written_in_todays(shared: Path, tmp_path: Path) -> None:
    from uce.outputs import add_embedding, obsm_keys
    from uce.rewriting import copy_h5ad

    source = shared / "data" / "inputs" / "anndata_v0.5.0.h5ad"  # its obs and obsm are compound tables
    assert obsm_keys(source) == {"X_pca", "X_umap"}
    copy_h5ad(source, tmp_path / "new.h5ad")
    with h5py.File(tmp_path / "new.h5ad", "r+") as file:
        cells = file["obsm/X_pca"].shape[0]
        vectors = np.ones((cells, 2), np.float32)
        add_embedding(file, iter([vectors]), shape=vectors.shape, key="X_uce", record={"seed": 0}, overwrite=False)
    result = ad.read_h5ad(tmp_path / "new.h5ad")
    assert sorted(result.obsm) == ["X_pca", "X_uce", "X_umap"]
    assert result.uns["uce"]["X_uce"]["seed"] == 0
