"""Counts come back exactly from log1p of normalised counts, or not at all."""

import warnings
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from uce.cells.count_test import canonical
from uce.cells.counts import open_counts
from uce.cells.log_counts import LogScale, undo_log
from uce.errors import InputError

EPS = float(np.finfo(np.float32).eps)


@pytest.fixture(scope="module")
def pbmc() -> ad.AnnData:
    import scanpy as sc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the file is of an old layout, and anndata says so
        return sc.datasets.pbmc68k_reduced()


def test_the_cells_that_travel_with_scanpy_come_back_exactly(pbmc: ad.AnnData) -> None:
    pbmc = pbmc.copy()
    pbmc.layers.clear()
    stored = pbmc.raw.X.tocsr().sorted_indices()
    linear = np.expm1(stored.data.astype(float))
    smallest = np.minimum.reduceat(linear, stored.indptr[:-1])
    naive = np.rint(linear / np.repeat(smallest, np.diff(stored.indptr)))
    without = pbmc.copy()
    del without.obs["n_counts"]
    for adata, words in ((pbmc, r"obs['n_counts'] as total counts"), (without, "taken as one count")):
        opened = open_counts(adata)
        counts = opened.read(0, 700)
        assert opened.slot == "raw"
        assert any("rounded to 3 decimals" in note and words in note for note in opened.notes)
        assert counts.nnz == 174_400
        np.testing.assert_array_equal(counts.data, naive)
        assert counts.data.max() == 259


def test_the_undone_counts_make_the_stored_values_again(pbmc: ad.AnnData) -> None:
    counts = open_counts(pbmc, use_raw=True).read(0, 700)
    totals = pbmc.obs["n_counts"].to_numpy(dtype=float)
    again = sparse.diags(1e4 / totals) @ counts
    # One stored value lies on the boundary of rounding, hence a little more than half a unit.
    assert abs(again.log1p() - pbmc.raw.X).max() < 5.1e-4


def test_blocks_of_any_size_are_undone_alike(pbmc: ad.AnnData) -> None:
    opened = open_counts(pbmc, use_raw=True)
    whole = opened.read(0, 700)
    for start, stop in ((0, 1), (13, 77), (699, 700), (300, 300)):
        assert (opened.read(start, stop) != whole[start:stop]).nnz == 0


@given(seed=st.integers(0, 10_000), base=st.sampled_from([np.e, 2.0, 10.0]), target=st.sampled_from([1e4, 1e6, 2517.0]))
@settings(max_examples=60, deadline=None)
def test_any_counts_with_a_one_in_every_cell_come_back(seed: int, base: float, target: float) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(0.5, 3.0, 40) * rng.uniform(0.5, 20.0, (10, 1)))
    counts[:, 0] = 1
    scaled = (counts / counts.sum(1, keepdims=True) * target).astype(np.float32)
    stored = sparse.csr_matrix(np.log1p(scaled) / np.float32(np.log(base)))
    undone = undo_log(canonical(stored)[0], LogScale(base, EPS))
    assert undone.accepted.all()
    np.testing.assert_array_equal(undone.counts.toarray(), counts)


@pytest.mark.parametrize("base", ["e", "2", "10"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_base_and_the_scale_are_found(
    base: str, dtype: str, simulated: Callable, anndata_of: Callable, logged: Callable
) -> None:
    counts = simulated(30, 40)
    adata = anndata_of(counts)
    adata.X = logged(counts, base={"e": np.e, "2": 2.0, "10": 10.0}[base]).astype(dtype)
    opened = open_counts(adata)
    assert any(f"(base {base})" in note and "whole factor" in note for note in opened.notes)
    np.testing.assert_array_equal(opened.read(0, 30).toarray(), counts)


def test_total_counts_of_cells_remove_the_doubt_about_a_common_factor(
    simulated: Callable, anndata_of: Callable, logged: Callable
) -> None:
    counts = 2 * simulated(30, 40)
    adata = anndata_of(counts)
    adata.X = logged(counts)
    np.testing.assert_array_equal(open_counts(adata).read(0, 30).toarray(), counts / 2)
    adata.obs["total_counts"] = counts.sum(1)
    opened = open_counts(adata)
    np.testing.assert_array_equal(opened.read(0, 30).toarray(), counts)
    assert not any("whole factor" in note for note in opened.notes)


def test_totals_that_do_not_fit_are_not_used(simulated: Callable, anndata_of: Callable, logged: Callable) -> None:
    counts = simulated(30, 40)
    adata = anndata_of(counts)
    adata.X = logged(counts)
    adata.obs["total_counts"] = np.random.default_rng(0).integers(500, 9000, 30)
    adata.obs["n_counts"] = np.nan
    opened = open_counts(adata)
    np.testing.assert_array_equal(opened.read(0, 30).toarray(), counts)
    assert any("taken as one count" in note for note in opened.notes)


def test_empty_cells_are_no_obstacle(simulated: Callable, anndata_of: Callable, logged: Callable) -> None:
    counts = simulated(30, 40)
    counts[[0, 7, 29]] = 0
    adata = anndata_of(counts)
    adata.X = sparse.csr_matrix(logged(counts))
    np.testing.assert_array_equal(open_counts(adata).read(0, 30).toarray(), counts)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x, rng: x * rng.uniform(0.5, 2, x.shape[1]).astype("float32"),  # a factor per gene, as in TPM
        lambda x, rng: np.maximum(x - 0.01 * rng.random(x.shape).astype("float32"), 0),  # ambient subtraction
        lambda x, rng: x + np.float32(0.3),  # imputed: no zeros left
        lambda x, rng: np.round(x, 1),
    ],
)
def test_what_cannot_be_undone_is_refused_with_the_reason(
    spoil: Callable, simulated: Callable, anndata_of: Callable, logged: Callable
) -> None:
    adata = anndata_of(simulated(30, 40, depth=20.0))
    adata.X = spoil(logged(simulated(30, 40, depth=20.0)), np.random.default_rng(0))
    with pytest.raises(InputError, match=r"X: log-like values .* cannot be undone exactly \(best try, base .*miss"):
        open_counts(adata)


def test_deep_cells_rounded_to_two_decimals_are_refused_rather_than_guessed(logged: Callable) -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(0.3, 10.0, 2000) * np.ones((20, 1)))
    counts[:, 0] = 1
    stored = np.round(logged(counts).astype(float), 2)
    undone = undo_log(canonical(sparse.csr_matrix(stored))[0], LogScale(np.e, EPS, decimals=2))
    wrong = (undone.counts.toarray() != counts).any(axis=1)
    assert not (undone.accepted & wrong).any()
    assert not undone.accepted.all()


def test_half_precision_refuses_cells_it_cannot_tell_apart(logged: Callable) -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(0.2, 1.0, 5000) * np.array([[1.0], [300.0]]))
    counts[:, 0] = 1
    stored = logged(counts).astype(np.float16).astype(np.float32)
    undone = undo_log(canonical(sparse.csr_matrix(stored))[0], LogScale(np.e, float(np.finfo(np.float16).eps)))
    wrong = (undone.counts.toarray() != counts).any(axis=1)
    assert wrong[1]
    assert undone.accepted.tolist() == [True, False]


def test_strict_takes_no_logarithm(simulated: Callable, anndata_of: Callable, logged: Callable) -> None:
    counts = simulated(30, 40)
    adata = anndata_of(counts)
    adata.X = logged(counts)
    with pytest.raises(InputError, match="X: log-like values"):
        open_counts(adata, policy="strict")


def test_whole_counts_are_preferred_to_undone_ones(simulated: Callable, anndata_of: Callable, logged: Callable) -> None:
    counts = simulated(30, 40)
    adata = anndata_of(counts)
    normalised = adata.copy()
    normalised.X = logged(counts)
    adata.raw = normalised
    opened = open_counts(adata)
    assert opened.slot == "X"
    assert any("raw passed over: log-like" in note for note in opened.notes)


def test_a_later_cell_that_cannot_be_undone_stops_the_run(
    anndata_of: Callable, simulated: Callable, logged: Callable
) -> None:
    counts = simulated(5000, 12)
    adata = anndata_of(counts)
    stored = logged(counts)
    row = int(np.linspace(0, 5000 - 64, 32).astype(int)[1] - 1)
    stored[row] *= 0.97
    adata.X = sparse.csr_matrix(stored)
    opened = open_counts(adata)
    with pytest.raises(InputError, match=rf"rows 0 to 1024: the logarithm cannot be undone .*1 cells \(rows {row}\)"):
        opened.read(0, 1024)


def test_the_file_of_the_oldest_layout_is_undone_too(shared: Path, pbmc: ad.AnnData) -> None:
    with open_counts(shared / "data" / "inputs" / "anndata_v0.5.0.h5ad") as old:
        assert (old.read(0, 700) != open_counts(pbmc, use_raw=True).read(0, 700)).nnz == 0
