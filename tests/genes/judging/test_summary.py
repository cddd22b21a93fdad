"""What a table says of itself, and of one gene."""

import json

import numpy as np
import pytest

from uce.errors import UsageError
from uce.genes.collection import load_gene_table
from uce.genes.judging.summary import describe, describe_gene
from uce.genes.tables import GeneTable

AXES = np.eye(4, dtype=np.float32)


@pytest.fixture(scope="module")
def table() -> GeneTable:
    """Five genes: CD3E and CD3D point nearly one way, and all have a large common part."""
    vectors = 10 * AXES[3] + np.stack([AXES[0], AXES[0] + 0.1 * AXES[1], AXES[1], -AXES[0], AXES[2]])
    return GeneTable.from_rows(
        species="homo_sapiens",
        encoder="esm2_made_up",
        ids=[f"ENSG0000000000{n}" for n in range(5)],
        symbols=["CD3E", "CD3D", "TP53", "NKX2-1", ""],
        synonyms=["T3E", "T3D|OKT3", "P53|LFS1", "TTF1|T3", "T3"],
        chromosomes=["11", "11", "17", "14", "unplaced"],
        starts=[118304730, 118338954, 7661779, 36516392, 0],
        projected=[False, True, False, False, False],
        origins=["protein"] * 4 + ["ortholog"],
        proteins=[3, 1, 9, 1, 0],
        vectors=vectors,
        metadata={"taxon": 9606},
        chromosome_vectors={"11": AXES[0]},
    )


def test_the_facts_of_a_table_are_counted(table: GeneTable) -> None:
    facts = describe(table)
    assert facts == facts | {
        "species": "homo_sapiens",
        "genes": 5,
        "encoder": "esm2_made_up",
        "dim": 4,
        "with symbol": 4,
        "with synonyms": 5,
        "with protein count": 4,
        "chromosomes": 3,
        "unplaced": 1,
        "position projected": 1,
        "chromosome vectors": 1,
        "vector from protein": 4,
        "vector from ortholog": 1,
        "taxon": 9606,
        "sha256": table.sha256,
    }
    json.dumps(facts)


def test_a_gene_is_shown_with_its_row_and_its_nearest(table: GeneTable) -> None:
    facts = describe_gene(table, "CD3D")
    nearest = facts.pop("nearest")
    assert facts == {
        "id": "ENSG00000000001",
        "symbol": "CD3D",
        "synonyms": "T3D, OKT3",
        "found by": "symbol",
        "chromosome": "11",
        "start": 118338954,
        "position projected": True,
        "proteins": 1,
        "vector from": "protein",
        "norm": pytest.approx(np.sqrt(101.01), rel=1e-5),
    }
    rest = table.vectors - table.vectors.mean(axis=0)
    cosine = rest[0] @ rest[1] / np.linalg.norm(rest[0]) / np.linalg.norm(rest[1])
    assert nearest[0] == ["CD3E", pytest.approx(cosine, abs=1e-5)]
    assert len(nearest) == len(table) - 1
    assert nearest[0][1] > nearest[1][1]
    json.dumps([facts["start"], nearest])


def test_the_nearest_of_all_genes_leave_out_the_gene_itself_and_go_by_id_without_a_symbol(table: GeneTable) -> None:
    names = [name for name, _ in describe_gene(table, "TP53")["nearest"]]
    assert sorted(names) == ["CD3D", "CD3E", "ENSG00000000004", "NKX2-1"]


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("ENSG00000000002", "id"),
        ("ENSG00000000002.17", "id"),
        ("TP53", "symbol"),
        ("tp53", "case"),
        ("P53", "alias"),
        (" TP53 ", "symbol"),
    ],
)
def test_a_gene_is_found_as_the_names_of_a_cell_file_are(name: str, how: str, table: GeneTable) -> None:
    facts = describe_gene(table, name)
    assert (facts["symbol"], facts["found by"]) == ("TP53", how)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("CD3F", r"called 'CD3F'\. Did you mean CD3E or CD3D\?"),
        ("cd3f", r"Did you mean CD3E or CD3D\?"),
        ("zzzzzz", r"called 'zzzzzz'\. Give an id, a symbol or an alias of a gene"),
        ("T3", r"'T3' is an alias of more than one gene of human"),
        ("bad\x1b[31m", r"\\x1b"),
        ("A" * 5000, r"AAA\.\.\.'"),
        ("", r"\(empty\)"),
    ],
)
def test_an_unknown_name_is_answered_by_the_nearest(name: str, said: str, table: GeneTable) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        describe_gene(table, name)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_the_relatives_of_a_potassium_channel_are_potassium_channels() -> None:
    facts = describe_gene(load_gene_table("human"), "KCNA1")
    assert facts["chromosome"] == "12"
    assert len(facts["nearest"]) == 10
    assert all(name.startswith("KCN") for name, _ in facts["nearest"][:5])
