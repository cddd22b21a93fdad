import subprocess
import sys
from dataclasses import replace

import anndata
import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uce.errors import ModelError, UsageError
from uce.genes.bundled import load_bundled
from uce.genes.collection import list_species, load_gene_table, table_names
from uce.genes.tables import GeneTable, read_table, write_table

COLUMNS = ("ids", "symbols", "synonyms", "chromosomes", "starts", "projected", "origins", "vectors")


def assert_equal(first: GeneTable, second: GeneTable) -> None:
    assert (first.species, first.encoder, first.metadata) == (second.species, second.encoder, second.metadata)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
        assert getattr(first, name).dtype.kind == getattr(second, name).dtype.kind
    np.testing.assert_array_equal(first.proteins, second.proteins)
    assert sorted(first.chromosome_vectors) == sorted(second.chromosome_vectors)
    for name, vector in first.chromosome_vectors.items():
        np.testing.assert_array_equal(vector, second.chromosome_vectors[name])


def test_a_written_table_comes_back_unchanged(human, tmp_path):
    full = replace(
        human,
        projected=np.arange(len(human)) % 2 == 0,
        origins=np.array(["group", "own-id"] * (len(human) // 2)),
        metadata={"taxon": 9606, "assembly": "GRCh38", "share": 0.5},
        proteins=np.arange(len(human)),
        chromosome_vectors={"X": np.arange(6, dtype=np.float32), "1": np.ones(6, np.float32)},
    )
    write_table(full, tmp_path / "human.h5ad")
    again = read_table(tmp_path / "human.h5ad")
    assert_equal(full, again)
    assert again.sha256 == full.sha256
    assert [path.name for path in tmp_path.iterdir()] == ["human.h5ad"]


def test_vectors_of_chromosomes_count_in_the_hash_and_the_number_of_proteins_does_not(human):
    assert replace(human, proteins=np.arange(len(human))).sha256 == human.sha256
    own = replace(human, chromosome_vectors={"6": np.ones(6, np.float32)})
    other = replace(human, chromosome_vectors={"6": np.zeros(6, np.float32)})
    assert len({human.sha256, own.sha256, other.sha256}) == 3
    with pytest.raises(ModelError, match="chromosomes 6 are not 6 wide"):
        replace(human, chromosome_vectors={"6": np.ones(5, np.float32)})


def test_anndata_opens_a_table(human, tmp_path):
    write_table(human, tmp_path / "human.h5ad")
    content = anndata.read_h5ad(tmp_path / "human.h5ad")
    assert content.obs_names.tolist() == human.ids.tolist()
    assert list(content.obs.columns) == ["symbol", "synonyms", "chromosome", "start", "projected", "origin", "proteins"]
    assert content.obs.loc["ENSG00000136352", "symbol"] == "NKX2-1"
    np.testing.assert_array_equal(content.X, human.vectors)
    assert content.uns["uce"]["species"] == "homo_sapiens"


def test_a_table_made_by_hand_needs_only_ids_vectors_species_and_encoder(tmp_path):
    content = anndata.AnnData(X=np.eye(3, dtype=np.float16))
    content.obs_names = ["c", "a", "b"]
    content.obs["symbol"] = ["C", None, "B"]
    content.uns["uce"] = {"species": "danio_rerio", "encoder": "mine"}
    content.write_h5ad(tmp_path / "own.h5ad")
    table = read_table(tmp_path / "own.h5ad")
    assert table.ids.tolist() == ["a", "b", "c"]
    assert table.symbols.tolist() == ["", "B", "C"]
    assert table.chromosomes.tolist() == ["unplaced"] * 3
    assert table.vectors.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert table.vectors.dtype == np.float32


@given(order=st.permutations(range(18)))
def test_the_order_of_rows_does_not_matter(human, order):
    order = np.array(order)
    shuffled = {name: getattr(human, name)[order] for name in COLUMNS}
    again = GeneTable.from_rows(species=human.species, encoder=human.encoder, **shuffled)
    assert_equal(human, again)
    assert again.sha256 == human.sha256


@pytest.mark.parametrize("column", COLUMNS)
def test_the_hash_covers_every_column(human, column):
    values = getattr(human, column).copy()
    values[-1] = {"S": "ZZZ", "U": "ZZZ", "i": 17, "b": True, "f": 0.5}[values.dtype.kind]
    assert replace(human, **{column: values}).sha256 != human.sha256
    assert replace(human, species="mus_musculus").sha256 != human.sha256
    assert replace(human, encoder="other").sha256 != human.sha256
    assert replace(human, metadata={"note": "new"}).sha256 == human.sha256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": np.full((18, 6), np.nan)}, r"vectors of ENSG00000000460, .*\(18 in all\) hold NaN"),
        ({"vectors": np.zeros((18, 6))}, "only zeros"),
        ({"vectors": np.ones((17, 6))}, r"ids of shape \(18,\) for 17 vectors"),
        ({"vectors": np.ones(18)}, r"vectors of shape \(18,\)"),
        ({"vectors": np.ones((18, 0))}, r"vectors of shape \(18, 0\)"),
        ({"symbols": np.array(["x"])}, r"symbols of shape \(1,\)"),
        ({"ids": np.array(["a"] * 18)}, "id a stands twice"),
        ({"ids": np.array(["", *"abcdefghijklmnopq"])}, "a gene has no id"),
        ({"ids": np.array([*"abcdefghijklmnopq", "A"])}, "not sorted"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(human, change, message):
    with pytest.raises(ModelError, match=message):
        replace(human, **change)


def test_a_changed_file_is_refused(human, tmp_path):
    path = tmp_path / "human.h5ad"
    write_table(human, path)
    with h5py.File(path, "r+") as file:
        file["X"][3, 2] += 1
    with pytest.raises(ModelError, match=r"human.h5ad: content has hash .*\.\., .*\.\. is recorded"):
        read_table(path)


def test_a_table_of_a_later_format_is_refused(human, tmp_path):
    write_table(human, tmp_path / "t.h5ad")
    with h5py.File(tmp_path / "t.h5ad", "r+") as file:
        file["uns/uce/version"][()] = 99
    with pytest.raises(ModelError, match="written by a newer uce"):
        read_table(tmp_path / "t.h5ad")


def test_loading_takes_a_path_a_name_or_a_taxon(human, tmp_path, uce_home):
    write_table(human, tmp_path / "mine.h5ad")
    assert_equal(load_gene_table(tmp_path / "mine.h5ad"), human)
    assert_equal(load_gene_table(str(tmp_path / "mine.h5ad")), human)
    folder = uce_home / "genes" / "test-vectors"
    folder.mkdir(parents=True)
    write_table(human, folder / "homo_sapiens.h5ad")
    for name in ("human", "Homo sapiens", "homo_sapiens", "9606"):
        assert load_gene_table(name, encoder="test-vectors").sha256 == human.sha256
    assert list_species(encoder="test-vectors") == ["homo_sapiens"]


def test_a_table_is_read_once_until_its_file_changes(human, tmp_path):
    path = tmp_path / "human.h5ad"
    write_table(human, path)
    first = load_gene_table(path)
    assert load_gene_table(path) is first
    write_table(replace(human, encoder="another-kind"), path)
    assert load_gene_table(path).encoder == "another-kind"


def test_a_users_own_table_comes_before_the_bundled_one(human, uce_home):
    folder = uce_home / "genes" / "orthogroups-v1"
    folder.mkdir(parents=True)
    write_table(replace(human, encoder="orthogroups-v1"), folder / "homo_sapiens.h5ad")
    assert len(load_gene_table("human")) == len(human)
    assert table_names("homo_sapiens") == set(human.symbols.tolist()) | set(human.ids.tolist())


def test_a_missing_table_is_named_with_those_at_hand():
    with pytest.raises(ModelError, match=r"no gene table of yeast \(saccharomyces_cerevisiae\).*homo_sapiens"):
        load_gene_table("yeast")
    with pytest.raises(ModelError, match=r"with esm2_t6_8M_UR50D vectors.*Tables at hand: none"):
        load_gene_table("human", encoder="esm2_t6_8M_UR50D")
    with pytest.raises(UsageError, match="Did you mean human"):
        load_gene_table("humann")
    with pytest.raises(ModelError, match=r"no/such\.h5ad: no such file"):
        load_gene_table("no/such.h5ad")


@pytest.mark.parametrize("species", ["homo_sapiens", "caenorhabditis_elegans"])
def test_bundled_names_are_those_of_the_bundled_table(species):
    assert table_names(species) == set(load_bundled(species).symbols.tolist())


def test_gene_modules_load_without_torch_or_anndata():
    code = (
        "import sys, uce.genes.resolver, uce.genes.species, uce.genes.vocabulary, uce.genes.tables;"
        "print([name for name in ('torch', 'anndata', 'pandas', 'scipy', 'h5py') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("names", [{"encoder": "../../evil"}, {"encoder": ""}, {"species": "a/b"}, {"species": "x\ny"}])
def test_names_that_would_leave_the_folder_of_tables_are_refused(human, names):
    with pytest.raises(ModelError, match="both become names of files"):
        replace(human, **names)
