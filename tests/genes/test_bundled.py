"""The bundled gene tables: what they hold, by which rule, and what happens when they are damaged."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uce.errors import ModelError, UsageError
from uce.genes import bundled
from uce.genes.bundled import ORIGINS, bundled_species, load_bundled, own_id_vectors, reference_vectors
from uce.genes.collection import load_gene_table
from uce.genes.tables import GeneTable

ROOT = Path(__file__).resolve().parents[2]
TWELVE = {
    "homo_sapiens", "mus_musculus", "rattus_norvegicus", "danio_rerio", "macaca_mulatta", "macaca_fascicularis",
    "microcebus_murinus", "sus_scrofa", "xenopus_tropicalis", "gallus_gallus", "drosophila_melanogaster",
    "caenorhabditis_elegans",
}  # fmt: skip


@pytest.fixture(scope="module")
def human() -> GeneTable:
    return load_gene_table("human")


@pytest.fixture(scope="module")
def mouse() -> GeneTable:
    return load_gene_table("mouse")


def vector(table: GeneTable, symbol: str) -> np.ndarray:
    return table.vectors[np.flatnonzero(table.symbols == symbol)[0]]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def manifest(name: str) -> list[dict[str, str]]:
    with (ROOT / "data_manifests" / name).open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_twelve_species_are_bundled_in_less_than_30_megabytes():
    assert set(bundled_species()) == TWELVE
    files = list((ROOT / "uce" / "data" / "genes").iterdir())
    assert sum(file.stat().st_size for file in files) < 30e6


@pytest.mark.parametrize("species", sorted(TWELVE))
def test_every_table_loads_and_names_its_making(species: str):
    table = load_gene_table(species)
    assert (table.species, table.encoder, table.dim) == (species, "orthogroups-v1", 256)
    assert 13_000 < len(table) < 27_000
    assert set(table.origins) <= set(ORIGINS)
    assert {"taxon", "assembly", "release", "sources"} <= set(table.metadata)
    named = table.symbols[table.symbols != ""]
    assert len(named) == len(set(named))
    unplaced = table.chromosomes == "unplaced"
    assert not table.starts[unplaced].any()
    assert not table.projected[unplaced].any()
    assert (table.starts[~unplaced] > 0).all()


def test_the_package_finds_the_bundled_tables_by_common_name(mouse: GeneTable):
    assert load_bundled("10090").sha256 == mouse.sha256


def test_human_has_its_main_chromosomes_alone_and_all_of_the_mitochondrion(human: GeneTable):
    assert set(human.chromosomes) == {*map(str, range(1, 23)), "X", "Y", "MT", "unplaced"}
    assert (human.chromosomes == "MT").sum() == 13
    assert not (human.symbols == "MALAT1").any()


def test_copies_on_alternative_loci_are_synonyms_not_genes(human: GeneTable):
    assert not (human.ids == "ENSG00000229215").any()
    row = np.flatnonzero(human.symbols == "HLA-A")
    assert len(row) == 1
    assert "ENSG00000229215" in human.synonyms[row[0]].split("|")


def test_a_previous_symbol_points_to_the_gene_that_took_it_over(human: GeneTable, mouse: GeneTable):
    for table, previous, symbol in ((human, "SARS", "SARS1"), (human, "SEPT2", "SEPTIN2"), (mouse, "Tceb2", "Elob")):
        owners = [s for s, names in zip(table.symbols, table.synonyms, strict=True) if previous in names.split("|")]
        assert owners == [symbol]


def test_projected_positions_are_flagged_in_the_three_species_without_their_own():
    assert {name for name in TWELVE if load_gene_table(name).projected.any()} == {
        "macaca_fascicularis", "microcebus_murinus", "xenopus_tropicalis",
    }  # fmt: skip


def test_one_to_one_orthologues_share_a_vector(human: GeneTable, mouse: GeneTable):
    assert np.array_equal(vector(human, "TP53"), vector(mouse, "Trp53"))
    assert np.array_equal(vector(human, "CD79A"), vector(load_gene_table("rhesus"), "CD79A"))


def test_the_mitochondrial_proteins_are_the_same_groups_in_every_spelling(human: GeneTable):
    for species, symbol in (("drosophila_melanogaster", "mt:CoI"), ("gallus_gallus", "COX1"), ("pig", "COX1")):
        assert np.array_equal(vector(load_gene_table(species), symbol), vector(human, "MT-CO1"))


def test_genes_of_one_cell_type_are_closer_than_genes_of_two(human: GeneTable):
    b_cell, t_cell = ("MS4A1", "CD79A", "CD79B"), ("CD3D", "CD3E", "TRAC")
    within = [cosine(vector(human, a), vector(human, b)) for a in b_cell for b in b_cell if a < b]
    across = [cosine(vector(human, a), vector(human, b)) for a in b_cell for b in t_cell]
    assert min(within) > max(across)


def test_a_gene_without_orthologue_is_flagged_and_drawn_from_its_id(mouse: GeneTable):
    own = np.flatnonzero(mouse.origins == "own-id")
    assert len(own) > 1000
    drawn = own_id_vectors("mus_musculus", mouse.ids[own[:5]], 256)
    assert np.array_equal(mouse.vectors[own[:5]], drawn)


def test_group_vectors_have_unit_length_and_are_not_shared_within_human(human: GeneTable):
    vectors = human.vectors[human.origins == "group"]
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)
    assert len(np.unique(vectors, axis=0)) == len(vectors)


@given(st.lists(st.text("ABCG0123", min_size=1, max_size=12), min_size=1, max_size=8, unique=True), st.randoms())
def test_an_own_vector_does_not_depend_on_company(ids: list[str], random: object):
    vectors = own_id_vectors("homo_sapiens", np.array(ids), 16)
    order = sorted(range(len(ids)), key=lambda _: random.random())  # type: ignore[attr-defined]
    assert np.array_equal(own_id_vectors("homo_sapiens", np.array(ids)[order], 16), vectors[order])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert not np.array_equal(own_id_vectors("mus_musculus", np.array(ids), 16), vectors)


@given(st.data())
def test_a_gene_gets_the_weighted_mean_of_its_groups(data: st.DataObject):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    counts = np.array(data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=12)))
    groups = rng.normal(size=(6, 5)).astype(np.float32)
    references = rng.integers(6, size=counts.sum())
    weights = rng.integers(1, 5, size=counts.sum()).astype(np.float32)
    found = reference_vectors(groups, counts, references, weights)
    starts = np.cumsum(counts) - counts
    for gene, (start, count) in enumerate(zip(starts, counts, strict=True)):
        chosen = slice(start, start + count)
        plain = np.average(groups[references[chosen]], axis=0, weights=weights[chosen]) if count else np.zeros(5)
        assert np.allclose(found[gene], plain, atol=1e-5)


def test_a_species_without_a_bundled_table_is_refused_with_a_list():
    with pytest.raises(UsageError, match=r"no bundled gene table of .*Bundled: .*homo_sapiens"):
        load_bundled("Trichoplax adhaerens")


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of bundled files of its own, in place of the real one."""
    source = ROOT / "uce" / "data" / "genes"
    for name in ("groups.npz", "caenorhabditis_elegans.npz"):
        shutil.copy(source / name, tmp_path)
    monkeypatch.setattr(bundled, "_folder", lambda: tmp_path)
    return tmp_path


def test_a_cut_file_is_an_error_that_says_so(copied: Path):
    file = copied / "caenorhabditis_elegans.npz"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"caenorhabditis_elegans.npz: the bundled gene table cannot be read"):
        load_bundled("worm")


def test_a_file_with_wrong_content_is_an_error_that_says_so(copied: Path):
    file = copied / "caenorhabditis_elegans.npz"
    with np.load(file) as content:
        kept = {name: content[name] for name in content.files}
    for changed in ({"references": kept["references"] + np.uint16(40000)}, {"starts": kept["starts"][:-1]}):
        np.savez(file, **{**kept, **changed})
        with pytest.raises(ModelError, match="caenorhabditis_elegans"):
            load_bundled("worm")


def test_the_manifests_name_every_source_with_hash_origin_and_licence():
    for row in manifest("gene_tables.csv"):
        assert len(row["sha256"]) == 64
        assert "@" in row["origins"]
        assert row["licence"]
        assert row["used_for"]
        assert not Path(row["file"]).is_absolute()
    files = {row["file"] for row in manifest("gene_tables.csv")}
    assert {f"genes/{species}.csv.gz" for species in TWELVE} < files


def test_no_validation_set_is_among_the_training_sets():
    rows = manifest("training_cells.csv")
    train = {row["dataset"] for row in rows if row["role"] == "train"}
    assert len(train) == 11
    assert not train & {row["dataset"] for row in rows if row["role"] != "train"}
    assert all(len(row["sha256"]) == 64 and row["commit"] and row["licence"] for row in rows)
