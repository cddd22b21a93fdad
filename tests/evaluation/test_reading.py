"""Which cells are judged: labels, columns, draws, and what is said where something is missing."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from uce.errors import InputError, UsageError
from uce.evaluation.reading import Columns, read_cells
from uce.evaluation.subsamples import stratified


@pytest.fixture
def adata() -> ad.AnnData:
    random = np.random.default_rng(0)
    counts = sparse.csr_matrix(random.poisson(2.0, (40, 12)).astype(np.float32))
    obs = pd.DataFrame(
        {
            "cell_type": ["T", "B", "unknown", None] * 10,
            "donor": [f"d{i % 3}" for i in range(40)],
            "batch": ["one"] * 39 + [None],
        },
        index=[f"cell{i}" for i in range(40)],
    )
    made = ad.AnnData(counts, obs, pd.DataFrame(index=[f"g{i}" for i in range(12)]))
    made.obsm["X_a"] = random.normal(size=(40, 3)).astype(np.float16)
    made.obsm["X_sparse"] = sparse.csr_matrix(random.normal(size=(40, 3)))
    made.obsm["X_frame"] = pd.DataFrame(random.normal(size=(40, 2)), index=made.obs_names, columns=["x", "y"])
    made.obsm["X_words"] = pd.DataFrame({"x": ["a"] * 40}, index=made.obs_names)
    return made


def test_unlabelled_cells_and_cells_without_batch_are_left_out_and_counted(adata: ad.AnnData) -> None:
    judged = read_cells(adata, Columns("cell_type", batch="batch", group="donor"))
    assert set(judged.cells.labels) == {"T", "B"}
    assert judged.facts["without_label"] == 20
    assert judged.facts["lacking"] == {}  # the one cell without a batch has no label either
    assert len(judged.cells) == 20
    np.testing.assert_array_equal(judged.cells.counts.toarray(), adata.X.toarray()[judged.cells.rows])
    assert list(judged.cells.names) == list(adata.obs_names[judged.cells.rows])
    assert judged.cells.groups is not None
    assert judged.cells.datasets is None


def test_every_form_of_obsm_becomes_the_same_matrix_and_words_are_named(adata: ad.AnnData, tmp_path: Path) -> None:
    keys = ["X_a", "X_sparse", "X_frame", "X_words"]
    adata.write_h5ad(tmp_path / "a.h5ad")
    for data in (adata, tmp_path / "a.h5ad"):
        judged = read_cells(data, Columns("cell_type"), keys=keys)
        rows = judged.cells.rows
        np.testing.assert_array_equal(judged.given["X_a"], adata.obsm["X_a"].astype(np.float32)[rows])
        np.testing.assert_allclose(judged.given["X_sparse"], adata.obsm["X_sparse"].toarray()[rows], rtol=1e-6)
        np.testing.assert_allclose(judged.given["X_frame"], adata.obsm["X_frame"].to_numpy()[rows], rtol=1e-6)
        assert judged.broken == {"X_words": "obsm['X_words'] does not hold numbers"}


def test_a_missing_column_or_key_offers_the_nearest(adata: ad.AnnData) -> None:
    with pytest.raises(UsageError, match=r"obs has no column 'celltype'.*cell_type"):
        read_cells(adata, Columns("celltype"))
    with pytest.raises(UsageError, match=r"obsm has no 'X_b'.*X_a"):
        read_cells(adata, Columns("cell_type"), keys=["X_b"])


def test_no_label_at_all_is_said_with_what_the_column_holds(adata: ad.AnnData) -> None:
    adata.obs["empty"] = "unassigned"
    with pytest.raises(InputError, match=r"no cell has a label in obs column 'empty'.*unassigned"):
        read_cells(adata, Columns("empty"))


def test_a_file_without_counts_can_be_judged_by_its_vectors(adata: ad.AnnData) -> None:
    adata.X = adata.X.toarray() - 1.5
    judged = read_cells(adata, Columns("cell_type"), keys=["X_a"])
    assert judged.cells.counts is None
    assert "negative" in judged.cells.why_no_counts


def test_draws_hold_every_stratum_and_point_into_the_cells(adata: ad.AnnData) -> None:
    judged = read_cells(adata, Columns("cell_type", batch="donor"), max_cells=12, draws=3)
    assert len(judged.draws) == 3
    drawn = [judged.cells.take(draw) for draw in judged.draws]
    for cells in drawn:
        assert len(cells) <= 12
        assert len(set(zip(cells.labels, cells.batches, strict=True))) == 6
    assert set(np.concatenate([cells.rows for cells in drawn])) == set(judged.cells.rows)
    again = read_cells(adata, Columns("cell_type", batch="donor"), max_cells=12, draws=3)
    assert all(np.array_equal(a, b) for a, b in zip(judged.draws, again.draws, strict=True))


def test_cells_of_one_name_are_told_apart(adata: ad.AnnData) -> None:
    adata.obs_names = ["alike", "alike", *(f"c{i}" for i in range(38))]
    names = read_cells(adata, Columns("cell_type")).cells.names
    assert names[:2].tolist() == ["alike (row 0)", "alike (row 1)"]
    assert len(set(names)) == len(names)


def test_more_strata_than_cells_are_cut_to_the_size() -> None:
    labels = np.array([f"l{i}" for i in range(300)])
    assert len(stratified(labels, labels, 100, np.random.default_rng(0))) == 100


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=8), st.integers(10, 400))
def test_stratified_draws_keep_the_size_and_the_rare(sizes: list[int], size: int) -> None:
    labels = np.repeat([f"l{i}" for i in range(len(sizes))], sizes)
    batches = np.full(len(labels), "b")
    rows = stratified(labels, batches, size, np.random.default_rng(0))
    assert np.array_equal(rows, np.unique(rows))
    if len(labels) <= size:
        assert len(rows) == len(labels)
        return
    assert size - len(sizes) <= len(rows) <= size
    floor = min(50, size // len(sizes))
    for name, n in zip(*np.unique(labels, return_counts=True), strict=True):
        assert np.count_nonzero(labels[rows] == name) >= min(n, floor)
