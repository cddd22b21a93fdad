"""From proteins to gene tables: isoforms pooled, names and places gathered, real vectors."""

import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uce.errors import InputError
from uce.genes.proteins.build import table_from_vectors
from uce.genes.proteins.headers import Protein
from uce.genes.tables import read_table, write_table

PROTEINS = [
    Protein("p3", "G2", "TNF", "MSTESMIRD", "6", 300),
    Protein("p1", "G1", "TP53", "MEEPQSD", "HSCHR17_ALT", 5),
    Protein("p2", "G1", "TP53", "MEEPQSDPSV", "17", 900),
    Protein("p4", "", "Abcb1a", "MELEED"),
    Protein("p5", "G1", "P53", "MEEPQSD", "17", 800),
]


def table_of(proteins: list[Protein], vectors: np.ndarray, **options: Any) -> Any:
    return table_from_vectors(proteins, vectors, species="homo_sapiens", encoder="toy", **options)


def test_a_gene_has_the_plain_mean_of_its_proteins() -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    table = table_of(PROTEINS, vectors)
    assert table.ids.tolist() == ["Abcb1a", "G1", "G2"]
    assert table.symbols.tolist() == ["Abcb1a", "TP53", "TNF"]
    assert table.synonyms.tolist() == ["", "P53", ""]
    assert table.chromosomes.tolist() == ["unplaced", "17", "6"]
    assert table.starts.tolist() == [0, 800, 300]
    assert set(table.origins) == {"protein"}
    expected = vectors[[1, 2, 4]].astype(np.float64).mean(0).astype(np.float32)
    np.testing.assert_array_equal(table.vectors, np.stack([vectors[3], expected, vectors[0]]))


def test_the_order_of_the_file_does_not_change_a_bit() -> None:
    rng = np.random.default_rng(1)
    proteins = [Protein(f"p{i}", f"G{i % 7}", f"S{i % 7}", "M" * (1 + i % 5)) for i in range(60)]
    vectors = (rng.normal(size=(60, 6)) * 10.0 ** rng.integers(-6, 6, size=(60, 6))).astype(np.float32)
    order = rng.permutation(60)
    for isoforms in ("mean", "longest"):
        one = table_of(proteins, vectors, isoforms=isoforms)
        two = table_of([proteins[i] for i in order], vectors[order], isoforms=isoforms)
        assert one.sha256 == two.sha256


def test_the_longest_isoform_can_stand_for_the_gene() -> None:
    vectors = np.arange(1, 41, dtype=np.float32).reshape(5, 8)
    table = table_of(PROTEINS, vectors, isoforms="longest")
    np.testing.assert_array_equal(table.vectors[1], vectors[2])
    assert table.metadata["isoforms"] == "longest"


def test_a_table_counts_the_proteins_a_vector_is_made_of() -> None:
    assert table_of(PROTEINS, np.ones((5, 2))).proteins.tolist() == [1, 3, 1]
    assert table_of(PROTEINS, np.ones((5, 2)), isoforms="longest").proteins.tolist() == [1, 1, 1]


def test_other_symbols_and_aliases_become_synonyms_once() -> None:
    proteins = [
        Protein("p1", "G1", "TP53", "MK", aliases=("P04637", "LFS1", "a|b")),
        Protein("p2", "G1", "TP53", "ML", aliases=("K7PPA8", "LFS1", "G1", "TP53")),
        Protein("p3", "G1", "P53", "MV"),
        Protein("p4", "G2", "", "MV"),
    ]
    table = table_of(proteins, np.ones((4, 2)))
    assert table.symbols.tolist() == ["TP53", ""]
    assert table.synonyms.tolist() == ["P04637|LFS1|K7PPA8|P53", ""]


def test_a_vector_for_every_protein_is_demanded() -> None:
    with pytest.raises(InputError, match=r"vectors of shape \(4, 2\) for 5 proteins"):
        table_of(PROTEINS, np.ones((4, 2)))


# Real vectors


@pytest.fixture(scope="module")
def families(shared: Path) -> dict[str, set[str]]:
    """HGNC gene groups by symbol."""
    with gzip.open(shared / "data" / "genes" / "human_gene_groups.csv.gz", "rt") as stream:
        return {row["symbol"]: set(filter(None, row["gene_group_id"].split("|"))) for row in csv.DictReader(stream)}


def test_real_esm2_vectors_put_families_together_after_the_way_through_a_table(
    shared: Path, families: dict[str, set[str]], tmp_path: Path
) -> None:
    with np.load(shared / "data" / "gene_vectors" / "esm2_8m_kinases.npz") as content:
        stored = dict(content)
        named = np.flatnonzero(stored["symbol"] != "")
        proteins = [
            Protein(
                f"{stored['dataset'][i]}:{stored['key'][i]}", "", str(stored["symbol"][i]), str(stored["sequence"][i])
            )
            for i in named
        ]
        vectors = stored["vectors"][named]
    table = table_from_vectors(proteins, vectors, species="homo_sapiens", encoder="esm2_t6_8M_UR50D")
    write_table(table, tmp_path / "kinases.h5ad")
    table = read_table(tmp_path / "kinases.h5ad")
    assert table.vectors.shape == (326, 320)
    centred = table.vectors - table.vectors.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    cosines = centred @ centred.T
    np.fill_diagonal(cosines, -2)
    groups = [families.get(symbol, set()) for symbol in table.ids]
    kin = np.array([[bool(one & other) for other in groups] for one in groups])
    np.fill_diagonal(kin, False)
    near = kin[np.arange(326), cosines.argmax(axis=1)].mean()
    chance = kin.sum() / (326 * 325)
    assert 0.48 < near < 0.58
    assert chance < 0.05
