"""Lists of orthologues, and the vectors that genes take from their relatives."""

import gzip
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uce.errors import InputError, ModelError
from uce.genes.annotations.gene import Gene
from uce.genes.annotations.reading import Annotation, read_annotation
from uce.genes.bundled import own_id_vectors
from uce.genes.collection import load_gene_table
from uce.genes.kinds import BUNDLED_ENCODER
from uce.genes.orthologs import Orthologs, borrow, orthologs_by_symbol, read_orthologs, table_from_orthologs
from uce.genes.tables import GeneTable

H = [f"ENSG{number:011d}" for number in range(1, 7)]
SYMBOLS = ["TP53", "ACTB", "GAPDH", "HBA1", "DUP", "DUP"]


def relative_table(encoder: str = BUNDLED_ENCODER, **changed: object) -> GeneTable:
    """Six human genes; the fourth has a vector of its own id, the last two one symbol."""
    rows = {
        "species": "homo_sapiens",
        "encoder": encoder,
        "ids": H,
        "symbols": SYMBOLS,
        "origins": ["group", "group", "group", "own-id", "group", "group"],
        "vectors": np.random.default_rng(3).normal(size=(6, 8)),
    }
    return GeneTable.from_rows(**(rows | changed))


def annotation_of(*genes: Gene) -> Annotation:
    return Annotation({gene.id: gene for gene in sorted(genes, key=lambda gene: gene.id)}, {}, (), "genes.gtf")


FISH = annotation_of(
    Gene("F1", "tp53", ("p53",), "protein_coding", "3", 100),
    Gene("F2", "actb", (), "protein_coding", "1", 5),
    Gene("F3", "hba1", (), "IG_V_gene", "2", 7),
    Gene("F4", "dup", (), "", "2", 9),
    Gene("F5", "linc", (), "lncRNA", "2", 11),
)


def listed(**pairs: dict[str, float]) -> Orthologs:
    return Orthologs(pairs, "list.csv")


def write(tmp_path, text, name="list.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


# ---- reading lists


@pytest.mark.parametrize(
    "header", ["gene,human_gene", "gene_id,human", "Gene stable ID,Human gene stable ID", "GENE,Human-Orthologs"]
)
def test_the_usual_names_of_columns_are_understood(tmp_path, header):
    found = read_orthologs(write(tmp_path, f"{header}\nG1,{H[0]}\n"))
    assert found.relatives == {"G1": {H[0]: 1.0}}


def test_relatives_stand_in_rows_or_in_one_cell_with_weights_and_without_versions(tmp_path):
    text = (
        f"gene\thuman_gene\tweight\nENSDARG00000000001.4\t{H[0]}.17\t2\nG2\t{H[0]}|{H[1]}\t\nG2\t{H[2]}\t0.5\nG3\t\t\n"
    )
    found = read_orthologs(write(tmp_path, text))
    assert found.relatives == {"ENSDARG00000000001": {H[0]: 2.0}, "G2": {H[0]: 1.0, H[1]: 1.0, H[2]: 0.5}}


def test_a_gzip_list_with_a_byte_order_mark_and_blank_lines_is_the_same_list(tmp_path):
    text = f"gene,human_gene\nG1,{H[0]}\n"
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + text.replace("\n", "\r\n\r\n").encode(), mtime=0))
    assert read_orthologs(packed).relatives == read_orthologs(write(tmp_path, text)).relatives


def test_an_equal_pair_counts_once(tmp_path):
    text = f"gene,human_gene\nG1,{H[0]}\nG1,{H[0]}|{H[0]}\n"
    assert read_orthologs(write(tmp_path, text)).relatives == {"G1": {H[0]: 1.0}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: no column gene among none"),
        ("name,human_gene\nG1,H\n", "line 1: no column gene among name, human_gene"),
        ("gene,chicken\nG1,H\n", "line 1: no column human_gene"),
        ("gene,human_gene\nG1,H\n ,H\n", "line 3: no gene"),
        ("gene,human_gene,weight\nG1,H,1\nG1,K,much\n", "line 3: weight 'much' is not a positive number"),
        ("gene,human_gene,weight\nG1,H,-1\n", "line 2: weight '-1'"),
        ("gene,human_gene,weight\nG1,H,nan\n", "line 2: weight 'nan'"),
        ("gene,human_gene,weight\nG1,H,inf\n", "line 2: weight 'inf'"),
        ("gene,human_gene,weight\nG1,H,1\nG1,H,2\n", "line 3: G1 and H have two weights"),
        ("gene,human_gene\nG1\n", "line 2: 1 fields where the header has 2"),
        ("gene,human_gene\nG1,\n", "no gene with a relative"),
        ("# by hand\ngene,human_gene\nG1\n", "line 3: 1 fields"),
        ("gene,human_gene\nG1," + "x" * 200_000 + "\n", "line 2: not readable as CSV"),
        ("x" * 200_000, "line 1: no column gene among none"),
    ],
)
def test_a_bad_list_is_refused_with_its_line(tmp_path, text, said):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as raised:
        read_orthologs(path)
    assert str(raised.value).startswith(str(path))
    assert said in str(raised.value)


def test_a_missing_or_cut_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_orthologs(tmp_path / "none.csv")
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(f"gene,human_gene\nG1,{H[0]}\n".encode() * 50, mtime=0)[:-12])
    with pytest.raises(InputError, match="cannot be read"):
        read_orthologs(cut)


# ---- relatives of the same symbol


def test_symbols_pair_genes_whatever_their_case_if_unique_in_both_and_coding():
    twice = annotation_of(*FISH.genes.values(), Gene("F6", "GAPDH"), Gene("F7", "gapdh"), Gene("F8", "", ()))
    found = orthologs_by_symbol(twice, relative_table())
    assert found.relatives == {"F1": {H[0]: 1.0}, "F2": {H[1]: 1.0}, "F3": {H[3]: 1.0}}
    table, _ = table_from_orthologs(twice, found, relative_table(), species="danio_rerio")
    assert dict(zip(table.ids, table.origins, strict=True)) == {
        "F1": "same-symbol",
        "F2": "same-symbol",
        **dict.fromkeys(["F3", "F4", "F6", "F7", "F8"], "own-id"),
    }


def test_no_common_symbol_is_refused_with_examples():
    with pytest.raises(InputError, match="has the symbol of a gene of homo_sapiens \\(YAL001C\\)"):
        orthologs_by_symbol(annotation_of(Gene("Y1", "YAL001C")), relative_table())


# ---- tables of relatives' vectors


def test_a_gene_has_the_weighted_mean_of_its_relatives():
    relative = relative_table()
    pairs = listed(F1={H[0]: 1.0}, F2={H[1]: 3.0, "GAPDH": 1.0})
    table, _ = table_from_orthologs(FISH, pairs, relative, species="danio_rerio", metadata={"taxon": 7955})
    rows = {gene: row for row, gene in enumerate(table.ids.tolist())}
    np.testing.assert_array_equal(table.vectors[rows["F1"]], relative.vectors[0])
    expected = (3 * relative.vectors[1] + relative.vectors[2]) / 4
    np.testing.assert_allclose(table.vectors[rows["F2"]], expected, rtol=1e-6)
    assert table.origins[[rows["F1"], rows["F2"]]].tolist() == ["group", "groups"]
    assert (table.chromosomes[rows["F1"]], table.starts[rows["F1"]]) == ("3", 100)
    assert (table.symbols[rows["F1"]], table.synonyms[rows["F1"]]) == ("tp53", "p53")
    assert (table.encoder, table.metadata["taxon"]) == (BUNDLED_ENCODER, 7955)
    assert table.metadata["relative_sha256"] == relative.sha256


def test_relatives_that_know_nothing_do_not_count():
    relative = relative_table()
    pairs = listed(F1={H[0]: 1.0, H[3]: 9.0}, F2={H[3]: 1.0})
    table, notes = table_from_orthologs(FISH, pairs, relative, species="danio_rerio")
    np.testing.assert_array_equal(table.vectors[0], relative.vectors[0])
    assert table.origins.tolist() == ["group", "own-id", "own-id", "own-id"]
    np.testing.assert_array_equal(table.vectors[1:], own_id_vectors("danio_rerio", table.ids[1:], 8))
    assert "3 genes without a relative have vectors that say nothing of them" in notes


def test_kinds_without_a_rule_for_genes_without_relatives_leave_them_out():
    table, notes = table_from_orthologs(
        FISH, listed(F1={H[0]: 1.0}), relative_table("esm2_t6_8M_UR50D"), species="danio_rerio"
    )
    assert table.ids.tolist() == ["F1"]
    assert table.encoder == "esm2_t6_8M_UR50D"
    assert "3 genes without a relative are left out" in notes


def test_a_listed_gene_that_is_not_coding_is_kept_if_its_relative_has_a_vector():
    pairs = listed(F1={H[0]: 1.0}, F5={H[1]: 1.0})
    table, _ = table_from_orthologs(FISH, pairs, relative_table(), species="danio_rerio")
    assert "F5" in table.ids


def test_without_an_annotation_the_genes_are_those_of_the_list_without_places():
    pairs = listed(ENSDARG00000000001={H[0]: 1.0}, abc={H[1]: 1.0}, xyz={H[3]: 1.0})
    table, _ = table_from_orthologs(None, pairs, relative_table(), species="danio_rerio")
    assert table.ids.tolist() == ["ENSDARG00000000001", "abc", "xyz"]
    assert table.symbols.tolist() == ["", "abc", "xyz"]
    assert set(table.chromosomes) == {"unplaced"}
    assert table.origins.tolist() == ["group", "group", "own-id"]


def test_names_of_one_gene_join_their_relatives():
    pairs = listed(F1={H[0]: 1.0}, p53={H[1]: 1.0})
    table, _ = table_from_orthologs(FISH, pairs, relative_table(), species="danio_rerio")
    np.testing.assert_allclose(table.vectors[0], relative_table().vectors[:2].mean(axis=0), rtol=1e-6)


def test_relatives_of_another_table_are_refused_beside_five_of_it():
    pairs = listed(F1={"ENSMUSG00000000001": 1.0}, F2={"ENSMUSG00000000002": 1.0}, F3={H[0]: 1.0})
    with pytest.raises(InputError) as raised:
        table_from_orthologs(FISH, pairs, relative_table(), species="danio_rerio")
    said = str(raised.value)
    assert said.startswith("list.csv: 1 of 3 relatives are in the gene table of homo_sapiens")
    assert "ENSMUSG00000000001, ENSMUSG00000000002" in said
    assert ", ".join(H[:5]) in said


def test_a_list_of_another_annotation_is_refused_and_one_that_fits_in_part_is_noted():
    strange = listed(X1={H[0]: 1.0}, X2={H[1]: 1.0}, F1={H[2]: 1.0})
    with pytest.raises(InputError, match=r"1 of 3 genes of the list of orthologues are in genes.gtf; unknown are X1"):
        table_from_orthologs(FISH, strange, relative_table(), species="danio_rerio")
    table, notes = table_from_orthologs(
        FISH, listed(X1={H[0]: 1.0}, F1={H[2]: 1.0}), relative_table(), species="danio_rerio"
    )
    assert any("1 of 2 genes of the list" in note for note in notes)
    assert table.chromosomes[table.ids == "X1"].tolist() == ["unplaced"]


def test_a_list_that_gives_no_vector_is_refused():
    with pytest.raises(InputError, match="none of 4 genes has a relative with a vector in homo_sapiens"):
        table_from_orthologs(FISH, listed(F1={H[3]: 1.0}), relative_table(), species="danio_rerio")


@given(st.permutations([("F1", H[0]), ("F1", H[1]), ("F1", H[2]), ("F2", H[4]), ("F2", H[2])]))
def test_the_order_of_the_list_does_not_matter(pairs):
    relatives: dict[str, dict[str, float]] = {}
    for gene, relative in pairs:
        relatives.setdefault(gene, {})[relative] = 1.0 + H.index(relative)
    table, _ = table_from_orthologs(FISH, listed(**relatives), relative_table(), species="danio_rerio")
    straight = {"F1": {H[0]: 1.0, H[1]: 2.0, H[2]: 3.0}, "F2": {H[2]: 3.0, H[4]: 5.0}}
    again, _ = table_from_orthologs(FISH, listed(**straight), relative_table(), species="danio_rerio")
    assert table.sha256 == again.sha256


def test_the_bundled_mouse_table_comes_out_of_its_sources_again(shared):
    """All vectors of orthologues are equal. Antigen receptors that have no orthologue but the symbol of a human gene
    take that gene's in the bundled tables (here one gene, Trgv5), which a list of orthologues does not say."""
    path = shared / "data" / "genes" / "mus_musculus.csv.gz"
    made, _ = table_from_orthologs(
        read_annotation(path), read_orthologs(path), load_gene_table("human"), species="mus_musculus"
    )
    bundled = load_gene_table("mouse")
    rows = {gene: row for row, gene in enumerate(made.ids.tolist())}
    same = np.array([rows[gene] for gene in bundled.ids.tolist()])
    equal = (np.abs(made.vectors[same] - bundled.vectors) <= 1e-6).all(axis=1)
    assert equal[np.isin(bundled.origins, ["group", "groups", "own-id"])].all()
    assert bundled.symbols[~equal].tolist() == ["Trgv5"]
    assert (made.origins[same] == bundled.origins)[equal].all()
    # The bundled table leaves out genes that were retired, and genes without a protein whose relative has one.
    assert len(made) - len(bundled) < 0.015 * len(bundled)


# ---- vectors lent to a table made from proteins


@pytest.fixture
def proteins() -> GeneTable:
    return GeneTable.from_rows(
        species="danio_rerio",
        encoder="esm2_t6_8M_UR50D",
        ids=["F0", "F2"],
        symbols=["other", "actb"],
        origins=["protein", "protein"],
        proteins=[2, 1],
        vectors=np.random.default_rng(4).normal(size=(2, 8)),
        metadata={"encoder_sha256": "aa" * 32, "taxon": 7955},
        chromosome_vectors={"1": np.ones(8, np.float32)},
    )


def test_genes_without_a_protein_borrow_and_the_others_stay_bit_for_bit(proteins):
    relative = relative_table("esm2_t6_8M_UR50D")
    pairs = listed(F1={H[0]: 1.0, H[1]: 1.0}, F2={H[2]: 1.0})
    grown, notes = borrow(proteins, FISH, pairs, relative)
    assert grown.ids.tolist() == ["F0", "F1", "F2"]
    assert grown.origins.tolist() == ["protein", "ortholog", "protein"]
    assert grown.proteins.tolist() == [2, 0, 1]
    assert grown.vectors[[0, 2]].tobytes() == proteins.vectors.tobytes()
    np.testing.assert_allclose(grown.vectors[1], relative.vectors[:2].mean(axis=0), rtol=1e-6)
    assert (grown.chromosomes[1], grown.starts[1]) == ("3", 100)
    assert grown.metadata["taxon"] == 7955
    assert grown.metadata["borrowed_genes"] == 1
    assert grown.chromosome_vectors.keys() == {"1"}
    assert "1 genes without a protein have the vectors of their relatives in homo_sapiens" in notes


def test_a_gene_that_the_table_knows_by_symbol_borrows_nothing(proteins):
    grown, _ = borrow(proteins, None, listed(actb={H[1]: 1.0}), relative_table("esm2_t6_8M_UR50D"))
    assert grown is proteins


@pytest.mark.parametrize(
    "relative",
    [
        relative_table("esm2_t12_35M_UR50D"),
        relative_table("esm2_t6_8M_UR50D", vectors=np.ones((6, 4))),
        relative_table("esm2_t6_8M_UR50D", metadata={"encoder_sha256": "bb" * 32}),
    ],
)
def test_vectors_of_another_kind_are_never_borrowed(proteins, relative):
    with pytest.raises(ModelError, match="kinds of vectors are never mixed") as raised:
        borrow(proteins, FISH, listed(F1={H[0]: 1.0}), relative)
    assert "esm2_t6_8M_UR50D, 8 wide" in str(raised.value)
    assert f"{relative.encoder}, {relative.dim} wide" in str(raised.value)


def test_nothing_is_borrowed_from_vectors_that_know_nothing(proteins):
    relative = replace(relative_table("esm2_t6_8M_UR50D"), origins=np.full(6, "own-id"))
    grown, _ = borrow(proteins, FISH, listed(F1={H[0]: 1.0}), relative)
    assert grown is proteins
