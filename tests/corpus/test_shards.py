"""Shards: any scverse tool opens them, no count is clipped, and a damaged chunk never reads as other counts."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import sparse

from uce.corpus.shards import Rows, ShardReader, need_zarr3, read_obs_column, shard_sums, split_rows, write_shard
from uce.errors import InputError, UsageError

GENES = 300


def planted(cells: int = 200, *, seed: int = 0) -> sparse.csr_matrix:
    counts = sparse.csr_matrix(np.random.default_rng(seed).poisson(0.4, size=(cells, GENES)).astype(np.int64))
    counts.sort_indices()
    return counts


def written(folder: Path, counts: sparse.csr_matrix, *, wide: bool = False) -> Path:
    obs = pd.DataFrame(
        {"donor": pd.Categorical(["a"] * counts.shape[0])}, index=[f"c{i}" for i in range(counts.shape[0])]
    )
    var = pd.DataFrame({"measured": True}, index=[f"g{i}" for i in range(counts.shape[1])])
    rows = Rows(counts.data, counts.indices, counts.indptr.astype(np.int64))
    write_shard(folder, rows, obs=obs, var=var, wide=wide)
    return folder


def same(found: sparse.csr_matrix, expected: sparse.csr_matrix) -> bool:
    return found.shape == expected.shape and (found != expected).nnz == 0


def test_a_shard_is_an_anndata(tmp_path: Path) -> None:
    counts = planted()
    adata = anndata.io.read_zarr(written(tmp_path / "s.zarr", counts))
    assert same(sparse.csr_matrix(adata.X), counts)
    assert adata.obs["donor"].tolist() == ["a"] * 200
    assert adata.var["measured"].all()


def test_counts_are_small_sharded_and_checked_on_disk(tmp_path: Path) -> None:
    group = zarr.open_group(str(written(tmp_path / "s.zarr", planted())), mode="r")
    data, indices = group["X/data"], group["X/indices"]
    assert (data.dtype, indices.dtype, group["X/indptr"].dtype) == (np.uint16, np.int32, np.int32)
    assert abs(data.chunks[0] / (planted().nnz / 200) - 64) < 1
    assert [codec.to_dict()["name"] for codec in data.compressors] == ["blosc", "crc32c"]
    assert sorted(path.name for path in (tmp_path / "s.zarr/X/data").rglob("*") if path.is_file()) == ["0", "zarr.json"]


def test_any_rows_are_read_back(tmp_path: Path) -> None:
    counts = planted()
    folder = written(tmp_path / "s.zarr", counts)
    for start, stop in [(0, 200), (0, 1), (63, 65), (190, 500), (200, 210), (5, 5)]:
        assert same(ShardReader(folder).read(start, stop), counts[start:stop])
    assert shard_sums(folder, 200, block=64) == {"cells": 200, "entries": counts.nnz, "counts": int(counts.sum())}


def test_a_count_beyond_16_bits_is_kept(tmp_path: Path) -> None:
    counts = planted(3)
    counts.data[:2] = [65_536, 4_294_967_295]
    assert same(ShardReader(written(tmp_path / "s.zarr", counts, wide=True)).read(0, 3).astype(np.int64), counts)


def test_a_chunk_of_zeros_is_written(tmp_path: Path) -> None:
    one_gene = sparse.csr_matrix((np.array([3]), np.array([0]), np.array([0, 1])), shape=(1, GENES))
    folder = written(tmp_path / "s.zarr", one_gene)
    assert (folder / "X/indices/c/0").is_file()


def test_many_threads_read_one_shard(tmp_path: Path) -> None:
    counts = planted()
    reader = ShardReader(written(tmp_path / "s.zarr", counts))
    assert (reader.n_cells, reader.n_genes) == (200, GENES)
    starts = np.random.default_rng(3).integers(0, 200, size=60).tolist()
    with ThreadPoolExecutor(4) as pool:
        blocks = list(pool.map(lambda start: reader.read(start, start + 64), starts))
    assert all(same(block, counts[start : start + 64]) for start, block in zip(starts, blocks, strict=True))


def test_usual_steps_of_an_analysis_work_on_an_opened_shard(tmp_path: Path) -> None:
    import scanpy as sc

    adata = anndata.io.read_zarr(written(tmp_path / "s.zarr", planted()))
    sc.pp.calculate_qc_metrics(adata, inplace=True, percent_top=None)
    sc.pp.filter_genes(adata, min_cells=3)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=5)
    assert adata.obsm["X_pca"].shape == (200, 5)


def test_more_genes_than_16_bits_have_a_place(tmp_path: Path) -> None:
    last = sparse.csr_matrix((np.array([3]), np.array([65_536]), np.array([0, 1])), shape=(1, 65_537))
    assert ShardReader(written(tmp_path / "s.zarr", last)).read(0, 1).indices.tolist() == [65_536]


def test_a_flipped_bit_in_any_place_of_a_chunk_is_an_error(tmp_path: Path) -> None:
    folder = written(tmp_path / "s.zarr", planted())
    path = folder / "X/data/c/0"
    whole = path.read_bytes()
    for place in np.linspace(20, len(whole) - 150, 40).astype(int).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 16
        path.write_bytes(bytes(damaged))
        with pytest.raises(InputError, match="cannot be read"):
            ShardReader(folder).read(0, 200)


def test_a_truncated_shard_is_an_error(tmp_path: Path) -> None:
    folder = written(tmp_path / "s.zarr", planted())
    path = folder / "X/data/c/0"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match="cannot be read"):
        ShardReader(folder).read(0, 200)


def test_a_store_of_the_older_format_whose_codecs_may_run_code_is_not_read(tmp_path: Path) -> None:
    folder = written(tmp_path / "s.zarr", planted())
    shutil.rmtree(folder / "obs")
    zarr.open_group(str(folder / "obs"), mode="w", zarr_format=2).create_array("donor", data=np.arange(200))
    with pytest.raises(InputError, match="cannot be read"):
        read_obs_column(folder, "donor")


def test_shards_are_cut_by_size_and_kinds_stand_apart() -> None:
    lengths = np.array([4, 4, 4, 9, 1, 1, 4])
    kinds = np.array([0, 0, 1, 0, 0, 0, 1])
    parts = [part.tolist() for part in split_rows(lengths, kinds, most=8)]
    assert parts == [[0, 1], [3], [4, 5], [2, 6]]
    assert sorted(cell for part in parts for cell in part) == list(range(7))


def test_an_old_zarr_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zarr, "__version__", "2.18.3")
    with pytest.raises(UsageError, match=r"needs zarr 3 or newer; this is zarr 2\.18\.3"):
        need_zarr3()
