"""The same counts come out of every container and layout."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from uce.cells import layouts, spill
from uce.cells.counts import open_counts
from uce.cells.layouts import CompressedRows, DenseRows
from uce.cells.spill import spill_rows

LAYOUTS = {
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "dense": np.asarray,
    "csr_array": sparse.csr_array,
}


def whole(source: Any, **options: Any) -> np.ndarray:
    """All counts of a source, read in blocks of seven rows."""
    with open_counts(source, **options) as counts:
        blocks = [counts.read(start, start + 7).toarray() for start in range(0, counts.n_cells, 7)]
        return np.vstack(blocks)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint16", "int8"])
def test_any_layout_and_number_type_gives_the_same_counts(
    layout: str, dtype: str, simulated: Callable, anndata_of: Callable, tmp_path: Path
) -> None:
    counts = simulated(20, 11)
    adata = anndata_of(counts)
    adata.X = LAYOUTS[layout](counts.astype(dtype))
    adata.write_h5ad(tmp_path / "cells.h5ad")
    for source in (adata, tmp_path / "cells.h5ad", adata[:], adata[:, :]):
        np.testing.assert_array_equal(whole(source), counts)


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
@pytest.mark.filterwarnings("ignore:.*autosharding:UserWarning")
@pytest.mark.filterwarnings("ignore:Consolidated metadata:UserWarning")
@pytest.mark.parametrize("version", [2, 3])
def test_zarr_folder_and_zip_give_the_same_counts(
    version: int, simulated: Callable, anndata_of: Callable, tmp_path: Path
) -> None:
    import shutil

    counts = simulated(20, 11)
    with ad.settings.override(zarr_write_format=version):
        anndata_of(counts).write_zarr(tmp_path / "cells.zarr")
    shutil.make_archive(str(tmp_path / "cells.zarr"), "zip", tmp_path / "cells.zarr")
    shutil.make_archive(str(tmp_path / "nested"), "zip", tmp_path, "cells.zarr")
    for name in ("cells.zarr", "cells.zarr.zip", "nested.zip"):
        with open_counts(tmp_path / name) as opened:
            assert opened.kind == ("zarr" if name == "cells.zarr" else "zarr-zip")
            assert opened.obs_column("donor").tolist()[:4] == ["d0", "d1", "d2", "d0"]
            assert opened.var["symbol"].tolist()[:2] == ["SYM0", "SYM1"]
        np.testing.assert_array_equal(whole(tmp_path / name), counts)


@pytest.mark.parametrize("layout", ["csr", "csc", "dense"])
def test_backed_anndata_and_its_views_are_read_from_disk(
    layout: str, simulated: Callable, anndata_of: Callable, tmp_path: Path
) -> None:
    counts = simulated(20, 11)
    adata = anndata_of(counts)
    adata.X = LAYOUTS[layout](counts.astype("float32"))
    adata.raw = adata.copy()
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    np.testing.assert_array_equal(whole(backed, layer="X"), counts)
    np.testing.assert_array_equal(whole(backed, layer="raw"), counts)
    np.testing.assert_array_equal(whole(backed[5:15], layer="X"), counts[5:15])
    np.testing.assert_array_equal(whole(backed[[8, 2, 3], 2:6], layer="X"), counts[[8, 2, 3], 2:6])
    np.testing.assert_array_equal(whole(backed[[8, 2, 3], 2:6], layer="raw"), counts[[8, 2, 3]])
    backed.file.close()


def test_a_view_gives_its_own_cells_and_genes(simulated: Callable, anndata_of: Callable) -> None:
    counts = simulated(20, 11)
    adata = anndata_of(counts)
    adata.layers["counts"] = adata.X.copy()
    cells, genes = [3, 1, 17, 4], [10, 0, 5]
    view = adata[cells, genes]
    with open_counts(view) as opened:
        assert opened.slot == "layers/counts"
        assert opened.obs_names.tolist() == ["cell3", "cell1", "cell17", "cell4"]
        assert opened.var.index.tolist() == ["gene10", "gene0", "gene5"]
    np.testing.assert_array_equal(whole(view), counts[np.ix_(cells, genes)])


def test_reading_changes_nothing_in_memory(simulated: Callable, anndata_of: Callable) -> None:
    counts = simulated(20, 11)
    adata = anndata_of(counts, dtype="float64")
    adata.X.data[0] = 0.0
    before = adata.X.copy()
    with open_counts(adata) as opened:
        block = opened.read(0, 20)
        block.data[:] = -1
        block.indices[:] = 0
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(adata.X, part), getattr(before, part))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_rows_come_back_sorted_summed_and_without_zeros(data: st.DataObject, matrices: Callable) -> None:
    counts = data.draw(matrices().filter(np.any))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    tops = rng.integers(0, counts + 1)
    parts = [sparse.coo_matrix(tops), sparse.coo_matrix(counts - tops)]
    rows, columns, values = (np.concatenate([getattr(p, a) for p in parts]) for a in ("row", "col", "data"))
    order = rng.permutation(rows.size)
    order = order[np.argsort(rows[order], kind="stable")]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=counts.shape[0]))])
    scrambled = sparse.csr_matrix((values[order].astype("uint8"), columns[order], indptr), shape=counts.shape)
    with open_counts(ad.AnnData(scrambled)) as opened:
        block = opened.read(0, counts.shape[0])
    np.testing.assert_array_equal(block.toarray(), counts)
    assert block.dtype == np.float64
    assert (block.data > 0).all()
    assert sparse.csr_matrix((block.data, block.indices, block.indptr), shape=block.shape).has_canonical_format


def test_sums_of_small_integers_do_not_wrap_round(anndata_of: Callable) -> None:
    adata = anndata_of(np.array([[1, 2], [3, 4]]))
    adata.X = sparse.csr_matrix((np.array([40000, 40000, 7], "uint16"), np.array([0, 0, 1]), np.array([0, 2, 3])))
    assert whole(adata)[0, 0] == 80000


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_through_a_temporary_file_equal_the_rows_in_memory(
    data: st.DataObject, matrices: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import ExitStack

    counts = data.draw(matrices())
    entries = sparse.coo_matrix(counts)
    order = np.random.default_rng(data.draw(st.integers(0, 99))).permutation(entries.nnz)
    pieces = np.array_split(order, data.draw(st.integers(1, 4)))
    monkeypatch.setattr(spill, "BUCKET_BYTES", data.draw(st.sampled_from([16, 64, 1 << 20])))
    with ExitStack() as stack:
        rows = spill_rows(
            ((entries.row[p].astype(np.int64), entries.col[p].astype(np.int64), entries.data[p]) for p in pieces),
            where="here",
            shape=counts.shape,
            dtype=np.dtype(np.int64),
            n_entries=entries.nnz,
            stack=stack,
        )
        folder = rows.data.path.parent
        np.testing.assert_array_equal(rows.block(0, counts.shape[0]).toarray(), counts)
        middle = counts.shape[0] // 2
        np.testing.assert_array_equal(rows.block(middle, counts.shape[0]).toarray(), counts[middle:])
        assert sorted(path.name for path in folder.iterdir()) == ["columns", "values"]
    assert not folder.exists()


def test_a_matrix_stored_by_columns_says_so_and_leaves_no_temporary_files(
    simulated: Callable, anndata_of: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    counts = simulated(20, 11)
    adata = anndata_of(counts)
    adata.X = sparse.csc_matrix(counts)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with open_counts(tmp_path / "cells.h5ad") as opened:
        assert any("stored by columns" in note and "tocsr" in note for note in opened.notes)
        assert len(list(scratch.iterdir())) == 1
    assert not list(scratch.iterdir())


def test_a_dense_matrix_chunked_by_columns_is_never_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = np.random.default_rng(0).poisson(0.5, (60, 40)).astype("float32")
    monkeypatch.setattr(layouts, "SLAB_BYTES", 1000)
    ad.AnnData(counts).write_h5ad(tmp_path / "cells.h5ad")
    with h5py.File(tmp_path / "cells.h5ad", "a") as file:
        attributes = dict(file["X"].attrs)
        del file["X"]
        file.create_dataset("X", data=counts, chunks=(60, 3)).attrs.update(attributes)
    with h5py.File(tmp_path / "cells.h5ad") as file:
        assert DenseRows("X", file["X"]).needs_spill
        assert max(values.size for _, _, values in DenseRows("X", file["X"]).triplets()) <= 60 * 3
    with open_counts(tmp_path / "cells.h5ad") as opened:
        assert any("stored by columns" in note for note in opened.notes)
    np.testing.assert_array_equal(whole(tmp_path / "cells.h5ad"), counts)


def test_dense_rows_are_read_in_slabs_of_whole_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = np.random.default_rng(0).poisson(0.5, (60, 10)).astype("int32")
    monkeypatch.setattr(layouts, "SLAB_BYTES", 1000)
    with h5py.File(tmp_path / "dense.h5", "w") as file:
        rows = DenseRows("X", file.create_dataset("X", data=counts, chunks=(8, 5)))
        assert rows.slab_rows == 24
        assert not rows.needs_spill
        for start, stop in ((0, 60), (5, 50), (23, 25), (59, 60), (7, 7)):
            np.testing.assert_array_equal(rows.block(start, stop).toarray(), counts[start:stop])


def test_half_precision_is_read_though_scipy_has_none(
    simulated: Callable, anndata_of: Callable, tmp_path: Path
) -> None:
    counts = simulated(20, 11)
    anndata_of(counts).write_h5ad(tmp_path / "cells.h5ad")
    with h5py.File(tmp_path / "cells.h5ad", "a") as file:
        values = file["X/data"][:]
        del file["X/data"]
        file["X/data"] = values.astype("float16")
    np.testing.assert_array_equal(whole(tmp_path / "cells.h5ad"), counts)


def test_row_pointers_and_columns_may_be_of_any_integer_type(simulated: Callable, tmp_path: Path) -> None:
    counts = sparse.csr_matrix(simulated(20, 11))
    for dtype in ("uint16", "uint32", "int64", ">i4"):
        rows = CompressedRows("X", counts.data, counts.indices.astype(dtype), counts.indptr.astype("uint64"), (20, 11))
        np.testing.assert_array_equal(rows.block(3, 20).toarray(), counts[3:20].toarray())


def test_the_layout_of_anndata_before_0_7_is_read(simulated: Callable, tmp_path: Path) -> None:
    counts = sparse.csr_matrix(simulated(6, 4).astype("float32"))
    obs = np.array([(f"cell{i}".encode(), i % 2) for i in range(6)], dtype=[("index", "S8"), ("donor", "i1")])
    with h5py.File(tmp_path / "old.h5ad", "w") as file:
        file["obs"] = obs
        file["var"] = np.array([(f"g{i}".encode(),) for i in range(4)], dtype=[("index", "S8")])
        file["X"] = -np.ones((6, 4))
        names = [("index", "S8"), ("symbol", "S4")]
        file["raw.var"] = np.array([(f"r{i}".encode(), b"S") for i in range(4)], dtype=names)
        raw = file.create_group("raw.X")
        raw.attrs["h5sparse_format"], raw.attrs["h5sparse_shape"] = "csr", np.array([6, 4])
        for part in ("data", "indices", "indptr"):
            raw[part] = getattr(counts, part)
        file["uns/donor_categories"] = np.array([b"ann", b"bob"])
    with open_counts(tmp_path / "old.h5ad") as opened:
        assert opened.slot == "raw"
        assert opened.var.index.tolist() == ["r0", "r1", "r2", "r3"]
        assert opened.obs_column("donor").tolist() == ["ann", "bob"] * 3
        assert opened.obs_names[5] == "cell5"
        np.testing.assert_array_equal(opened.read(0, 6).toarray(), counts.toarray())


@pytest.mark.parametrize("layout", ["csr", "csc", "dense"])
def test_memory_does_not_grow_with_the_number_of_cells(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tracemalloc

    monkeypatch.setattr(layouts, "SLAB_BYTES", 1 << 20)
    monkeypatch.setattr(spill, "BUCKET_BYTES", 1 << 20)
    monkeypatch.setattr(spill, "STREAM_ITEMS", 1 << 14)
    peaks = []
    for n_cells in (2_000, 20_000):
        path = tmp_path / f"{n_cells}.h5ad"
        block = sparse.random(500, 300, 0.2, "csr", np.float32, np.random.default_rng(0))
        block.data[:] = 2
        stacked = sparse.vstack([block] * (n_cells // 500), format="csr")
        ad.AnnData(stacked.toarray() if layout == "dense" else LAYOUTS[layout](stacked)).write_h5ad(path)
        tracemalloc.start()
        with open_counts(path) as opened:
            for start in range(0, n_cells, 500):
                opened.read(start, start + 500)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The matrix is 9 MB to 22 MB larger; the list of cell names grows by about 100 bytes a cell.
    assert peaks[1] < peaks[0] + 5e6
