"""Finding the counts, naming what was done, and the table of cells."""

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from uce.cells.counts import open_counts
from uce.errors import InputError, UsageError

ZARR = pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")


def test_layers_come_before_raw_and_raw_before_x(simulated: Callable, anndata_of: Callable) -> None:
    counts = simulated(10, 6)
    adata = anndata_of(counts)
    assert open_counts(adata).slot == "X"
    adata.raw = adata.copy()
    assert open_counts(adata).slot == "raw"
    adata.layers["UMIs"] = adata.X.copy()
    assert open_counts(adata).slot == "layers/UMIs"
    adata.layers["counts"] = adata.X.copy()
    assert open_counts(adata).slot == "layers/counts"
    assert open_counts(adata, layer="UMIs").slot == "layers/UMIs"
    assert open_counts(adata, layer="X").slot == "X"
    assert open_counts(adata, use_raw=True).slot == "raw"


def test_layers_of_other_names_are_not_taken_unasked(simulated: Callable, anndata_of: Callable) -> None:
    adata = anndata_of(simulated(10, 6))
    adata.layers["spliced"] = adata.X.copy()
    adata.X = adata.X.toarray() - 0.5
    with pytest.raises(InputError, match=r"no raw counts found\. X: negative values"):
        open_counts(adata)
    assert open_counts(adata, layer="spliced").slot == "layers/spliced"


def test_the_values_decide_and_not_the_name_of_the_slot(simulated: Callable, anndata_of: Callable) -> None:
    counts = simulated(10, 6)
    adata = anndata_of(counts)
    adata.layers["counts"] = counts * 1.37
    opened = open_counts(adata)
    assert opened.slot == "X"
    assert any("layers/counts passed over: fractional values" in note for note in opened.notes)


def test_raw_comes_with_its_own_genes(simulated: Callable, anndata_of: Callable, tmp_path: Path) -> None:
    counts = simulated(10, 6)
    adata = anndata_of(counts)
    adata.raw = adata.copy()
    adata = adata[:, [4, 2]].copy()
    adata.X = adata.X.toarray() - 3.5
    adata.write_h5ad(tmp_path / "cells.h5ad")
    for source in (adata, tmp_path / "cells.h5ad"):
        with open_counts(source) as opened:
            assert opened.var.index.tolist() == [f"gene{i}" for i in range(6)]
            np.testing.assert_array_equal(opened.read(0, 10).toarray(), counts)


def test_an_empty_raw_var_borrows_the_columns_of_var(simulated: Callable, anndata_of: Callable, tmp_path: Path) -> None:
    counts = simulated(10, 6)
    adata = anndata_of(counts)
    bare = ad.AnnData(adata.X, obs=adata.obs[[]], var=adata.var[[]])
    adata.raw = bare
    adata = adata[:, [4, 2]].copy()
    adata.write_h5ad(tmp_path / "cells.h5ad")
    for source in (adata, tmp_path / "cells.h5ad"):
        with open_counts(source, layer="raw") as opened:
            assert opened.var["symbol"].tolist() == [None, None, "SYM2", None, "SYM4", None]


def test_a_forced_slot_that_fails_is_an_error_with_the_reason(simulated: Callable, anndata_of: Callable) -> None:
    adata = anndata_of(simulated(10, 6))
    adata.layers["scaled"] = adata.X.toarray() - 1
    with pytest.raises(InputError, match=r"layers/scaled: negative values.*no way back"):
        open_counts(adata, layer="scaled")


def test_options_that_do_not_fit_are_usage_errors(simulated: Callable, anndata_of: Callable, tmp_path: Path) -> None:
    adata = anndata_of(simulated(10, 6))
    adata.layers["counts"] = adata.X.copy()
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(UsageError, match=r"no layer 'count'; there are counts, X\. Did you mean counts\?"):
        open_counts(adata, layer="count")
    with pytest.raises(UsageError, match="use_raw and layer='counts' name two places"):
        open_counts(adata, layer="counts", use_raw=True)
    with pytest.raises(UsageError, match="counts policy 'guess' is none of"):
        open_counts(adata, policy="guess")
    with pytest.raises(UsageError, match="genome='hg38' is for 10x files"):
        open_counts(tmp_path / "cells.h5ad", genome="hg38")
    with pytest.raises(UsageError, match="DataFrame given; a path or an AnnData is needed"):
        open_counts(adata.obs)


def test_fractional_counts_follow_the_policy(simulated: Callable, anndata_of: Callable) -> None:
    counts = simulated(10, 6, depth=40.0)
    adata = anndata_of(counts)
    adata.X = np.where(counts > 0, counts + 0.2, 0)
    for policy in ("strict", "invert"):
        with pytest.raises(InputError, match=r"X: fractional values.*such as 1.2"):
            open_counts(adata, policy=policy)
    rounded = open_counts(adata, policy="round")
    np.testing.assert_array_equal(rounded.read(0, 10).toarray(), counts)
    assert any("rounding moves" in note for note in rounded.notes)
    np.testing.assert_allclose(open_counts(adata, policy="as-is").read(0, 10).toarray(), adata.X)


def test_rounding_that_moves_much_is_remarked(simulated: Callable, anndata_of: Callable) -> None:
    adata = anndata_of(simulated(10, 6))
    adata.X = np.full((10, 6), 1.4) + 13 * np.eye(10, 6)
    assert any("which is much" in note for note in open_counts(adata, policy="round").notes)


def test_log_data_is_never_rounded(simulated: Callable, anndata_of: Callable) -> None:
    adata = anndata_of(simulated(10, 6))
    adata.X = np.random.default_rng(0).gamma(2, 1, (10, 6))
    with pytest.raises(InputError, match="log-like values"):
        open_counts(adata, policy="round")


def test_a_block_that_the_sample_missed_stops_the_run_with_its_rows(simulated: Callable, anndata_of: Callable) -> None:
    counts = simulated(5000, 4)
    adata = anndata_of(counts)
    sampled = np.linspace(0, 5000 - 64, 32).astype(int)
    row = int(sampled[1] - 1)
    for value, words in ((0.5, "is not whole"), (-1, "is negative"), (np.nan, "is missing or infinite")):
        adata.X[row, 0] = value
        with open_counts(adata) as opened:
            opened.read(0, 64)
            with pytest.raises(InputError, match=rf"rows 0 to 1024: value {value} of cell cell{row} .*gene0, {words}"):
                opened.read(0, 1024)


@pytest.mark.parametrize(
    ("values", "dtype", "note"),
    [
        (np.array([[0, 1], [1, 1], [1, 0]]), "float32", "looks? binarised"),
        (np.array([[2, 3], [1, 4], [5, 0]]), "float32", "every cell has the same total \\(5\\)"),
        (np.array([[255, 3], [255, 4], [5, 0]]), "uint8", "2 sampled cells reach 255.*clipped"),
        (np.array([[2**24 + 2, 3], [1, 4], [5, 0]]), "float32", "exactly only to 16777216"),
    ],
)
def test_doubtful_counts_are_taken_with_a_remark(
    values: np.ndarray, dtype: str, note: str, anndata_of: Callable
) -> None:
    import re

    notes = open_counts(anndata_of(values, dtype=dtype)).notes
    assert any(re.search(note, line) for line in notes)


def test_empty_cells_keep_their_rows_and_a_file_without_cells_is_valid(
    simulated: Callable, anndata_of: Callable, tmp_path: Path
) -> None:
    counts = simulated(10, 6)
    counts[[0, 4, 9]] = 0
    with open_counts(anndata_of(counts)) as opened:
        np.testing.assert_array_equal(opened.read(0, 10).toarray(), counts)
    empty = anndata_of(counts)[:0].copy()
    empty.write_h5ad(tmp_path / "empty.h5ad")
    for source in (empty, tmp_path / "empty.h5ad"):
        with open_counts(source) as opened:
            assert (opened.n_cells, opened.read(0, 0).shape) == (0, (0, 6))
            assert len(opened.fingerprint()) == 64


def test_only_gene_expression_is_kept(simulated: Callable, anndata_of: Callable, tmp_path: Path) -> None:
    counts = simulated(10, 6)
    adata = anndata_of(counts)
    adata.var["feature_types"] = ["Gene Expression"] * 4 + ["Antibody Capture", "Peaks"]
    adata.write_h5ad(tmp_path / "cells.h5ad")
    for source in (adata, tmp_path / "cells.h5ad"):
        with open_counts(source) as opened:
            np.testing.assert_array_equal(opened.read(0, 10).toarray(), counts[:, :4])
            assert opened.var.index.tolist() == ["gene0", "gene1", "gene2", "gene3"]
            assert any("2 features that are not genes left out" in note for note in opened.notes)


@ZARR
def test_obs_is_read_a_column_at_a_time(simulated: Callable, anndata_of: Callable, tmp_path: Path) -> None:
    adata = anndata_of(simulated(4, 3))
    adata.obs["tissue"] = pd.Categorical(["lung", None, "gut", "lung"])
    adata.obs["nothing"] = pd.Categorical([None] * 4, categories=["a"])
    adata.obs["age"] = pd.array([1, None, 3, 4], dtype="Int64")
    adata.obs["plain"] = ["w", "x y", "ü\n", "z"]
    adata.obs["organism"] = "Mus musculus"
    adata.write_h5ad(tmp_path / "cells.h5ad")
    adata.write_zarr(tmp_path / "cells.zarr")
    for source in (adata, tmp_path / "cells.h5ad", tmp_path / "cells.zarr"):
        with open_counts(source) as opened:
            assert opened.obs_column("tissue").tolist() == ["lung", "unknown", "gut", "lung"]
            assert opened.obs_column("nothing").tolist() == ["unknown"] * 4
            assert opened.obs_column("age").tolist() == ["1", "unknown", "3", "4"]
            assert opened.obs_column("plain").tolist() == ["w", "x y", "ü\n", "z"]
            assert opened.obs_column("depth").dtype.kind == "U"
            assert opened.organism == "Mus musculus"
            with pytest.raises(UsageError, match=r"obs has no column 'tisue'\. Did you mean tissue\?"):
                opened.obs_column("tisue")


def test_the_organism_is_taken_from_uns_or_left_open(simulated: Callable, anndata_of: Callable, tmp_path: Path) -> None:
    adata = anndata_of(simulated(4, 3))
    adata.obs["organism"] = ["Mus musculus", "Homo sapiens"] * 2
    assert open_counts(adata).organism is None
    adata.uns["organism_ontology_term_id"] = "NCBITaxon:9606"
    adata.write_h5ad(tmp_path / "cells.h5ad")
    assert open_counts(adata).organism == "9606"
    with open_counts(tmp_path / "cells.h5ad") as opened:
        assert opened.organism == "9606"


def test_cells_and_genes_may_share_names(simulated: Callable, anndata_of: Callable) -> None:
    counts = simulated(6, 4)
    adata = anndata_of(counts)
    adata.obs_names = ["a", "a", "b", "a", "c", "d"]
    adata.var_names = ["g", "g", "h", "i"]
    with open_counts(adata) as opened:
        assert opened.obs_names.tolist() == ["a", "a", "b", "a", "c", "d"]
        assert opened.var.index.tolist() == ["g", "g", "h", "i"]
        assert any("2 cells share a name" in note for note in opened.notes)
        np.testing.assert_array_equal(opened.read(0, 6).toarray(), counts)


def test_the_fingerprint_changes_with_the_content_and_with_nothing_else(
    simulated: Callable, anndata_of: Callable, tmp_path: Path
) -> None:
    def fingerprint(adata: ad.AnnData, name: str = "cells.h5ad") -> str:
        adata.write_h5ad(tmp_path / name)
        with open_counts(tmp_path / name) as opened:
            return opened.fingerprint()

    adata = anndata_of(simulated(10, 6))
    first = fingerprint(adata)
    assert fingerprint(adata, "copy.h5ad") == first
    changed = adata.copy()
    changed.X[0, 0] += 1
    renamed = adata.copy()
    renamed.obs_names = ["other", *adata.obs_names[1:]]
    assert len({first, fingerprint(changed), fingerprint(renamed)}) == 3


def test_the_fingerprint_notices_that_the_file_changed_while_it_was_open(
    simulated: Callable, anndata_of: Callable, tmp_path: Path
) -> None:
    path = tmp_path / "cells.h5ad"
    anndata_of(simulated(10, 6)).write_h5ad(path)
    with open_counts(path) as opened:
        before = opened.fingerprint()
        assert opened.fingerprint() == before
        anndata_of(simulated(10, 6, seed=1)).write_h5ad(tmp_path / "new.h5ad")
        (tmp_path / "new.h5ad").replace(path)
        assert opened.fingerprint() != before


def test_repairs_are_counted() -> None:
    values = sparse.csr_matrix((np.array([1, 2, 0, 4.0]), np.array([1, 1, 0, 2]), np.array([0, 2, 4])), shape=(2, 3))
    with open_counts(ad.AnnData(values)) as opened:
        opened.read(0, 2)
        assert dict(opened.repairs) == {"zeros": 1, "duplicates": 1}
        assert any("1 repeated and 1 zero entries" in note for note in opened.notes)


def test_real_cells_are_read(shared: Path) -> None:
    for path in sorted((shared / "data" / "cells").glob("*.h5ad")):
        with open_counts(path) as opened:
            assert opened.slot == "X"
            block = opened.read(0, 100)
            assert block.data.min() >= 1
            reference = ad.read_h5ad(path).X[:100]
            assert (reference != block.astype(reference.dtype)).nnz == 0
