"""A corpus as training sees it: the cells of a split by gene, none read when it is opened; damage named at once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest

from uce.cells.counts import open_counts
from uce.corpus.build import build_corpus
from uce.corpus.quality import SWITCHES, QualityRules
from uce.corpus.splits import SplitRule
from uce.errors import InputError, ModelError, UsageError
from uce.genes.collection import load_gene_table
from uce.genes.resolver import resolve
from uce.genes.tables import GeneTable, write_table
from uce.genes.vocabulary import to_ranks
from uce.training import corpus as module
from uce.training.corpus import Dataset, open_corpus, special_vectors
from uce.training.settings import DataSettings


def source(settings: DataSettings, name: str) -> Path:
    return Path(settings.corpus).parent / f"{name}.h5ad"


def every_cell(dataset: Dataset) -> np.ndarray:
    """(cells, genes) in rank order, shard after shard."""
    ends = np.cumsum(dataset.shards)
    return dataset.by_rank(dataset.stored(list(zip(ends - dataset.shards, ends, strict=True)))).toarray()


def test_cells_are_those_of_the_source_files_as_an_embedding_reads_them(planted_files: DataSettings) -> None:
    corpus = open_corpus(planted_files)
    assert [(dataset.name, dataset.n_cells) for dataset in corpus.datasets] == [("set0", 120), ("set1", 60)]
    table = load_gene_table("human", encoder="planted")
    for dataset in corpus.datasets:
        with open_counts(source(planted_files, dataset.name)) as counts:
            rows = resolve(counts.var.index.tolist(), table).rows
            embedded = to_ranks(counts.read(0, counts.n_cells), rows, dataset.vocabulary).toarray()
        stored = dataset.labels("src_row").astype(int)
        assert (stored != np.arange(len(stored))).any()  # cells were shuffled when they were written
        np.testing.assert_array_equal(every_cell(dataset), embedded[stored])


def test_rates_and_measured_genes_are_those_of_the_cells(planted_files: DataSettings) -> None:
    for dataset in open_corpus(planted_files).datasets:
        dense = every_cell(dataset)
        np.testing.assert_allclose(dataset.rates, ((dense > 0).sum(axis=0) + 1) / (len(dense) + 2))
        assert not dense[:, ~dataset.measured].any()
    assert open_corpus(planted_files).datasets[0].measured.all()
    adata = anndata.read_h5ad(source(planted_files, "set1"))
    table = load_gene_table("human", encoder="planted")
    ranks = dataset.vocabulary.ranks[np.isin(table.symbols, adata.var_names)]
    np.testing.assert_array_equal(np.flatnonzero(dataset.measured), np.sort(ranks))


def test_labels_are_those_of_the_cells_and_missing_ones_none(planted_files: DataSettings) -> None:
    dataset = open_corpus(planted_files).datasets[0]
    adata = anndata.read_h5ad(source(planted_files, "set0"))
    rows = dataset.labels("src_row").astype(int)
    np.testing.assert_array_equal(dataset.labels("cell_type"), adata.obs["cell_type"].to_numpy()[rows])
    assert dataset.labels("disease") is None


def test_opening_reads_no_cell_and_no_label(planted_files: DataSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"read {arguments}")

    for name in ("ShardReader", "read_gene_columns", "read_obs_column"):
        monkeypatch.setattr(module, name, refuse)
    corpus = open_corpus(planted_files)
    assert corpus.sizes.tolist() == [120, 60]
    with pytest.raises(AssertionError, match="shard-00000"):
        corpus.datasets[0].stored([(0, 5)])


def test_another_split_shares_the_gene_vectors(planted_files: DataSettings) -> None:
    corpus = open_corpus(planted_files)
    kept = open_corpus(planted_files, split="validation", beside=corpus)
    assert [dataset.name for dataset in kept.datasets] == ["kept"]
    assert (corpus.not_read, kept.not_read) == (("kept",), ("set0", "set1"))
    assert kept.datasets[0].vocabulary is corpus.datasets[0].vocabulary
    assert kept.tables == corpus.tables
    assert kept.sha256 == corpus.sha256
    assert open_corpus(planted_files, split="test", beside=corpus).datasets == ()
    chosen = open_corpus(replace(planted_files, split="validation"))
    assert [dataset.name for dataset in chosen.datasets] == ["kept"]


def test_a_dataset_split_by_donor_shows_the_cells_of_one_split(planted_files: DataSettings, tmp_path: Path) -> None:
    path = source(planted_files, "set0")
    adata = anndata.read_h5ad(path)
    adata.obs["donor"] = [f"d{cell % 6}" for cell in range(adata.n_obs)]
    adata.write_h5ad(path)
    manifest = path.parent / "donors.csv"
    manifest.write_text("dataset,file,species,donor_column\nset0,set0.h5ad,human,donor\n")
    rule, rules = SplitRule(by="donor", validation=0.4, test=0.0), QualityRules(off=SWITCHES)
    build_corpus(manifest, tmp_path / "corpus", encoder="planted", rules=rules, splits=rule)
    settings = DataSettings(corpus=str(tmp_path / "corpus"))
    corpus = open_corpus(settings)
    parts = {"train": corpus.datasets[0], "validation": open_corpus(settings, split="validation").datasets[0]}
    shown = np.concatenate([part.labels("src_row").astype(int) for part in parts.values()])
    np.testing.assert_array_equal(np.sort(shown), np.arange(120))
    for split, part in parts.items():
        donors = set(part.labels("donor"))
        assert {rule.drawn(donor) for donor in donors} == {split}
        rows = part.labels("src_row").astype(int)
        np.testing.assert_array_equal(np.sort(every_cell(part).sum(axis=1)), np.sort(adata.X[rows].sum(axis=1).A1))
        np.testing.assert_allclose(part.rates, ((every_cell(part) > 0).sum(axis=0) + 1) / (part.n_cells + 2))


def test_datasets_can_be_left_out_by_name(planted_files: DataSettings) -> None:
    corpus = open_corpus(replace(planted_files, leave_out=("set0",)))
    assert [dataset.name for dataset in corpus.datasets] == ["set1"]
    assert corpus.not_read == ("set0", "kept")
    with pytest.raises(UsageError, match=r"data\.leave_out: no dataset set2 in it\. Did you mean set"):
        open_corpus(replace(planted_files, leave_out=("set2",)))


def test_a_split_that_is_not_there_is_refused_with_those_that_are(planted_files: DataSettings) -> None:
    with pytest.raises(UsageError, match=r"no dataset is left with split tset; its splits are train, validation\."):
        open_corpus(replace(planted_files, split="tset"))
    with pytest.raises(UsageError, match=r"no dataset is left with split train"):
        open_corpus(replace(planted_files, leave_out=("set0", "set1")))


def remove(path: Path) -> None:
    path.unlink()


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(("damage", "said"), [(remove, "missing; zarr would read zeros"), (cut_short, "bytes, ")])
def test_a_missing_or_shortened_shard_is_refused_in_one_line(
    planted_files: DataSettings, damage: Callable[[Path], None], said: str
) -> None:
    shard = Path(planted_files.corpus) / "data" / "set1" / "shard-00000.zarr" / "X" / "data" / "c" / "0"
    damage(shard)
    with pytest.raises(InputError) as refused:
        open_corpus(planted_files)
    message = str(refused.value)
    assert message.startswith(str(shard))
    assert said in message
    assert message.endswith("`uce corpus build` mends it.")
    assert "\n" not in message


def test_a_corpus_of_another_gene_table_is_refused(planted_files: DataSettings, uce_home: Path) -> None:
    table = load_gene_table("human", encoder="planted")
    other = GeneTable.from_rows(
        species=table.species,
        encoder=table.encoder,
        ids=table.ids,
        symbols=table.symbols,
        vectors=table.vectors + 1,
        chromosomes=table.chromosomes,
        starts=table.starts,
    )
    write_table(other, uce_home / "genes" / "planted" / "homo_sapiens.h5ad")
    with pytest.raises(ModelError, match=r"the gene table of homo_sapiens .*the corpus was built with"):
        open_corpus(planted_files)


def test_a_folder_that_is_no_corpus_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder; `uce corpus build MANIFEST\.csv -o FOLDER`"):
        open_corpus(DataSettings(corpus=str(tmp_path / "nothing")))


def test_spans_of_rows_are_joined_in_the_order_asked(planted_files: DataSettings) -> None:
    dataset = open_corpus(planted_files).datasets[0]
    dense = every_cell(dataset)
    joined = dataset.by_rank(dataset.stored([(64, 100), (3, 5), (64, 65)])).toarray()
    np.testing.assert_array_equal(joined, dense[[*range(64, 100), 3, 4, 64]])


def test_special_vectors_are_the_same_in_every_model_and_shorter_ones_are_prefixes() -> None:
    wide, narrow = special_vectors(64), special_vectors(16)
    np.testing.assert_array_equal(wide[:, :16], narrow)
    assert not wide[0].any()
    assert len({row.tobytes() for row in wide}) == 4
