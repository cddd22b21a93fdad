"""Kinds of gene vectors: tables of several kinds side by side, variants, and how to make the one that is missing."""

from dataclasses import replace

import pytest

from uce.errors import ModelError, UsageError
from uce.genes.collection import all_kinds, list_species, load_gene_table, table_kinds, table_path
from uce.genes.kinds import check_kind, how_to_make, plain_kind
from uce.genes.tables import table_record, write_table


def install(table, encoder):
    path = table_path(table.species, encoder)
    path.parent.mkdir(parents=True)
    write_table(replace(table, encoder=encoder), path)


def test_tables_of_several_kinds_live_side_by_side(human):
    install(human, "esm2_t33_650M_UR50D")
    install(human, "mine")
    assert table_kinds("homo_sapiens") == ["esm2_t33_650M_UR50D", "mine", "orthogroups-v1"]
    assert all_kinds() == ["orthogroups-v1", "esm2_t33_650M_UR50D", "mine"]
    assert load_gene_table("human", encoder="mine").encoder == "mine"
    assert load_gene_table("human").encoder == "orthogroups-v1"
    assert list_species(encoder="mine") == ["homo_sapiens"]


def test_a_variant_of_a_kind_falls_back_on_the_plain_one(human):
    install(human, "esm2_big")
    assert load_gene_table("human", encoder="esm2_big+shifted").encoder == "esm2_big"
    assert list_species(encoder="esm2_big+shifted") == ["homo_sapiens"]
    install(human, "esm2_big+shifted")
    assert load_gene_table("human", encoder="esm2_big+shifted").encoder == "esm2_big+shifted"
    assert load_gene_table("human", encoder="esm2_big").encoder == "esm2_big"


def test_a_missing_table_names_the_command_that_makes_it_and_the_other_kinds(human):
    install(human, "esm2_small")
    with pytest.raises(
        ModelError, match=r"human \(homo_sapiens\) with esm2_t33_650M_UR50D.*esm2_small, orthogroups-v1;"
    ) as info:
        load_gene_table("human", encoder="esm2_t33_650M_UR50D")
    assert "uce species add --name homo_sapiens --taxon 9606" in str(info.value)
    assert "--fasta PEP.fa.gz --encoder esm2_t33_650M_UR50D" in str(info.value)
    with pytest.raises(ModelError, match=r"--orthologs FILE\.csv"):
        load_gene_table("yeast")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("orthogroups-v1", "--orthologs FILE.csv"),
        ("esm2_t48_15B_UR50D", "stretched to that width"),
        ("esm2_t48_15B_UR50D+shifted", "--encoder esm2_t48_15B_UR50D`"),
        ("esm2_t6_8M_UR50D", "--fasta PEP.fa.gz"),
        ("prott5", "--embeddings FILE --encoder prott5"),
    ],
)
def test_every_kind_has_its_recipe(kind, words):
    assert words in how_to_make("lepus_europaeus", kind)
    assert "--name lepus_europaeus --taxon N" in how_to_make("lepus_europaeus", kind)


def test_names_of_kinds_are_names_of_folders():
    assert check_kind("esm2_t48_15B_UR50D+shifted") == "esm2_t48_15B_UR50D+shifted"
    assert plain_kind("esm2_t48_15B_UR50D+shifted") == "esm2_t48_15B_UR50D"
    for bad in ("", "..", "a/b", ".hidden", "a b", "x" * 129, "a\n"):
        with pytest.raises(UsageError, match="--encoder"):
            check_kind(bad)


def test_a_record_of_a_table_has_the_hash_of_the_protein_encoder_where_it_is_known(human):
    assert table_record(human) == {
        "species": "homo_sapiens",
        "encoder": "test-vectors",
        "dim": 6,
        "genes": 18,
        "sha256": human.sha256,
    }
    assert table_record(replace(human, metadata={"encoder_sha256": "ab"}))["encoder_sha256"] == "ab"
