"""Cells of a manifest in memory: same counts as in the files, by gene; mistakes named before any work."""

from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from uce.errors import InputError, UsageError
from uce.training.corpus import read_corpus, special_vectors
from uce.training.settings import DataSettings


def test_counts_arrive_at_their_gene_whatever_the_order_of_columns(planted_files: DataSettings) -> None:
    corpus = read_corpus(planted_files)
    assert [dataset.name for dataset in corpus.datasets] == ["set0", "set1"]
    (table,) = corpus.tables
    for dataset in corpus.datasets:
        adata = anndata.read_h5ad(Path(planted_files.folder) / f"{dataset.name}.h5ad")
        rank_of = dict(zip(table.symbols, dataset.vocabulary.ranks, strict=True))
        ranks = [rank_of[name] for name in adata.var_names]
        np.testing.assert_array_equal(dataset.counts.toarray()[:, ranks], adata.X.toarray())
        assert sorted(np.flatnonzero(dataset.measured)) == sorted(ranks)
        assert dataset.counts.sum() == adata.X.sum()


def test_detection_rates_and_depths_are_those_of_the_file(planted_files: DataSettings) -> None:
    dataset = read_corpus(planted_files).datasets[0]
    dense = dataset.counts.toarray()
    np.testing.assert_allclose(dataset.rates, ((dense > 0).sum(axis=0) + 1) / (len(dense) + 2))
    np.testing.assert_allclose(dataset.depths, np.log(dense.sum(axis=1)))


def test_datasets_can_be_chosen_by_role_and_left_out(planted_files: DataSettings) -> None:
    kept = read_corpus(replace(planted_files, leave_out=("set0",)))
    assert [dataset.name for dataset in kept.datasets] == ["set1"]
    with pytest.raises(UsageError, match=r"leave_out names set2, which is not in it\. Did you mean set"):
        read_corpus(replace(planted_files, leave_out=("set2",)))
    with pytest.raises(UsageError, match=r"no dataset is left with role tset; its roles are train, validation"):
        read_corpus(replace(planted_files, roles=("tset",)))


def test_empty_cells_are_left_out(planted_files: DataSettings) -> None:
    path = Path(planted_files.folder) / "set1.h5ad"
    adata = anndata.read_h5ad(path)
    counts = adata.X.tolil()
    counts[[0, 7]] = 0
    adata.X = csr_matrix(counts)
    adata.write_h5ad(path)
    assert read_corpus(planted_files).sizes.tolist() == [120, 58]


def test_a_missing_file_is_named_with_the_setting_to_change(planted_files: DataSettings) -> None:
    with pytest.raises(InputError, match=r"kept\.h5ad: no such file\. Set data\.folder"):
        read_corpus(replace(planted_files, roles=("train", "validation")))
    with pytest.raises(UsageError, match=r"elsewhere\.csv: no such manifest"):
        read_corpus(replace(planted_files, manifest="elsewhere.csv"))


def test_a_manifest_with_other_columns_or_another_hash_is_refused(planted_files: DataSettings) -> None:
    path = Path(planted_files.manifest)
    rows = pd.read_csv(path)
    rows.assign(sha256="0" * 64).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"set0\.h5ad: sha256 is .* the manifest says 000000000000"):
        read_corpus(planted_files)
    rows.drop(columns="role").to_csv(path, index=False)
    with pytest.raises(UsageError, match="column role is missing"):
        read_corpus(planted_files)


def test_a_file_of_another_species_is_refused(planted_files: DataSettings) -> None:
    path = Path(planted_files.folder) / "set0.h5ad"
    adata = anndata.read_h5ad(path)
    adata.var_names = [f"XYZ{i}q" for i in range(adata.n_vars)]
    adata.write_h5ad(path)
    with pytest.raises(InputError, match="no cell has a count in a gene of the table of homo_sapiens"):
        read_corpus(planted_files)


def test_special_vectors_are_the_same_in_every_model_and_shorter_ones_are_prefixes() -> None:
    wide, narrow = special_vectors(64), special_vectors(16)
    np.testing.assert_array_equal(wide[:, :16], narrow)
    assert not wide[0].any()
    assert len({row.tobytes() for row in wide}) == 4
