"""The genes that two data sets share: equal genes, bundled orthologues, and lists that users give."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

from uce.cells.matching import Match
from uce.engines import Settings as Computing
from uce.engines import prepare_reader
from uce.errors import InputError
from uce.evaluation.cells import Cells
from uce.evaluation.orthology import gene_pairs, shared_genes
from uce.evaluation.results import NotPossible
from uce.genes.collection import load_gene_table
from uce.genes.orthologs import read_orthologs
from uce.genes.resolver import resolve
from uce.genes.tables import GeneTable
from uce.model.checkpoint import Model

Make = Callable[..., Cells]


@pytest.fixture(scope="module")
def cells_of(tiny_model: Model) -> Make:
    """A function (genes, counts, species) -> cells with these columns, read for a small model."""

    def make(genes: Sequence[str], counts: np.ndarray, species: str) -> Cells:
        bundled = load_gene_table(species)
        match = Match(bundled, resolve(genes, bundled), "as given", {}, ())
        reader = prepare_reader(tiny_model, match, Computing(torch.device("cpu"), "fp32"))
        names = np.array([f"c{i}" for i in range(len(counts))], dtype=object)
        return Cells(species, names, names.astype(str), counts=sparse.csr_matrix(counts.astype(float)), reader=reader)

    return make


def table(species: str, ids: Sequence[str], vectors: Sequence[Sequence[float]], origins: Sequence[str]) -> GeneTable:
    """A gene table of the bundled kind."""
    return GeneTable.from_rows(
        species=species, encoder="orthogroups-v1", ids=ids, symbols=ids, vectors=vectors, origins=origins
    )


def symbols_of(species: str, rows: np.ndarray) -> list[str]:
    """Symbols in a bundled table."""
    return load_gene_table(species).symbols[rows].tolist()


def test_bundled_orthologues_of_human_and_mouse_are_the_known_ones() -> None:
    pairs, source = gene_pairs(load_gene_table("human"), load_gene_table("mouse"), None)
    named = dict(zip(symbols_of("human", pairs[:, 0]), symbols_of("mouse", pairs[:, 1]), strict=True))
    assert {gene: named[gene] for gene in ("CD3E", "ALB", "TP53", "HLA-DMA")} == {
        "CD3E": "Cd3e",
        "ALB": "Alb",
        "TP53": "Trp53",
        "HLA-DMA": "H2-DMa",
    }
    assert 15_000 < len(pairs) < 17_000
    assert "bundled" in source


@pytest.mark.parametrize("column", [0, 1])
def test_no_gene_stands_in_two_pairs(column: int) -> None:
    pairs, _ = gene_pairs(load_gene_table("human"), load_gene_table("zebrafish"), None)
    assert len(np.unique(pairs[:, column])) == len(pairs) > 5000


def test_pairs_do_not_depend_on_which_side_is_first() -> None:
    human, fly = load_gene_table("human"), load_gene_table("drosophila_melanogaster")
    there, back = gene_pairs(human, fly, None)[0], gene_pairs(fly, human, None)[0]
    assert sorted(map(tuple, there)) == sorted(map(tuple, back[:, ::-1]))


def test_genes_with_several_relatives_or_none_are_no_orthologues() -> None:
    one, two, mean, own = [1.0, 0], [0, 1.0], [0.5, 0.5], [0.6, 0.8]
    first = table("homo_sapiens", ["a", "b", "c", "d"], [one, two, mean, own], ["group", "group", "groups", "own-id"])
    second = table("mus_musculus", ["p", "q", "r", "s", "t"], [one, two, two, mean, own], ["group"] * 4 + ["own-id"])
    # b has two relatives in the second species, c and s are means of groups, d and t have vectors of their own.
    assert gene_pairs(first, second, None)[0].tolist() == [[0, 0]]


def test_one_species_shares_equal_ids() -> None:
    first = table("homo_sapiens", ["a", "b", "c"], np.eye(3).tolist(), ["own-id"] * 3)
    second = table("homo_sapiens", ["b", "c", "d"], np.eye(3).tolist(), ["own-id"] * 3)
    pairs, source = gene_pairs(first, second, None)
    assert pairs.tolist() == [[1, 0], [2, 1]]
    assert "homo_sapiens" in source


@pytest.mark.parametrize("turned", [False, True])
def test_a_list_gives_its_one_to_one_pairs_in_either_order(tmp_path: Path, turned: bool) -> None:
    pairs = [("a", "p"), ("b", "q"), ("b", "r"), ("c", "s"), ("d", "s"), ("nobody", "p9")]
    rows = [pair[::-1] for pair in pairs] if turned else pairs
    path = tmp_path / "pairs.csv"
    path.write_text("gene,human_gene\n" + "".join(f"{one},{other}\n" for one, other in rows))
    first = table("homo_sapiens", ["a", "b", "c", "d"], np.eye(4).tolist(), ["own-id"] * 4)
    second = table("mus_musculus", ["p", "q", "r", "s"], np.eye(4).tolist(), ["own-id"] * 4)
    assert gene_pairs(first, second, read_orthologs(path))[0].tolist() == [[0, 0]]


def test_a_list_of_other_species_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "rabbit.csv"
    path.write_text("gene,human_gene\nrabbit1,nowhere1\n")
    with pytest.raises(InputError, match=r"rabbit\.csv: pairs no gene of homo_sapiens with one of mus_musculus"):
        gene_pairs(load_gene_table("human"), load_gene_table("mouse"), read_orthologs(path))


def test_vectors_of_another_kind_take_the_bundled_pairs_by_id() -> None:
    human, mouse = load_gene_table("human"), load_gene_table("mouse")
    bundled = gene_pairs(human, mouse, None)[0][:50]
    rng = np.random.default_rng(0)
    some = [
        GeneTable.from_rows(
            species=one.species, encoder="esm2_tiny", ids=one.ids[rows], vectors=rng.standard_normal((50, 8))
        )
        for one, rows in zip((human, mouse), bundled.T, strict=True)
    ]
    pairs = gene_pairs(some[0], some[1], None)[0]
    found = {(str(some[0].ids[i]), str(some[1].ids[j])) for i, j in pairs}
    assert found == {(str(human.ids[i]), str(mouse.ids[j])) for i, j in bundled}


def test_a_species_without_a_bundled_table_needs_a_list() -> None:
    rabbit = GeneTable.from_rows(species="oryctolagus_cuniculus", encoder="esm2_tiny", ids=["a"], vectors=[[1.0, 2]])
    with pytest.raises(NotPossible, match=r"oryctolagus_cuniculus.*--orthologs"):
        gene_pairs(rabbit, load_gene_table("human"), None)


def test_counts_are_lined_up_summed_per_gene_and_their_share_is_told(cells_of: Make) -> None:
    # A human gene may stand in two columns (symbol and id); the mouse file lacks Gapdh.
    cd3e = load_gene_table("human").ids[load_gene_table("human").symbols == "CD3E"][0]
    counts = np.array([[1, 2, 5, 1, 1], [0, 0, 7, 2, 1]])
    human = cells_of(["CD3E", str(cd3e), "ALB", "GAPDH", "NOGENE"], counts, "human")
    mouse = cells_of(["Alb", "Cd3e"], np.array([[4, 9]]), "mouse")
    found = shared_genes(human, mouse)
    symbol = dict(zip(load_gene_table("human").ids, load_gene_table("human").symbols, strict=True))
    by_gene = {
        str(symbol[gene]): [side[:, column].toarray().ravel().tolist() for side in (found.first, found.second)]
        for column, gene in enumerate(found.ids_first)
    }
    assert by_gene == {"CD3E": [[3, 0], [9]], "ALB": [[5, 7], [4]]}
    assert found.share_first == pytest.approx(15 / 20)
    assert found.share_second == 1
    assert len(found) == 2


def test_two_files_without_a_common_gene_say_so(cells_of: Make) -> None:
    human, mouse = cells_of(["CD3E"], np.array([[1]]), "human"), cells_of(["Alb"], np.array([[1]]), "mouse")
    with pytest.raises(NotPossible, match="no gene in common"):
        shared_genes(human, mouse)


def test_cells_without_a_model_say_what_is_missing() -> None:
    bare = Cells("bare", np.array(["c"], dtype=object), np.array(["kind"]))
    with pytest.raises(NotPossible, match="needs a model"):
        shared_genes(bare, bare)
