"""The hash of a cell: equal for equal cells in any order of genes, other for any other cell."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from uce.corpus.duplicates import cell_hashes, first_of_each, gene_words, top_gene_hashes

IDS = [f"ENSG{i:011d}" for i in range(40)]


@given(st.integers(0, 2**32), st.randoms(use_true_random=False))
def test_the_order_of_the_genes_does_not_matter(seed: int, shuffler: object) -> None:
    counts = np.random.default_rng(seed).poisson(0.6, size=(12, len(IDS)))
    order = np.random.default_rng(seed + 1).permutation(len(IDS))
    plain = cell_hashes(sparse.csr_matrix(counts), gene_words(IDS))
    moved = cell_hashes(sparse.csr_matrix(counts[:, order]), gene_words([IDS[place] for place in order]))
    assert np.array_equal(plain, moved)


def test_any_change_of_a_cell_changes_its_hash() -> None:
    cell = np.zeros((1, len(IDS)), dtype=np.int64)
    cell[0, :5] = [1, 2, 3, 1, 7]
    changed = [cell]
    for gene in range(len(IDS)):
        other = cell.copy()
        other[0, gene] += 1
        changed.append(other)
    swapped = cell.copy()
    swapped[0, [0, 1]] = swapped[0, [1, 0]]
    hashes = cell_hashes(sparse.csr_matrix(np.vstack([*changed, swapped])), gene_words(IDS))
    assert len(set(hashes.tolist())) == len(IDS) + 2


def test_the_hash_is_frozen() -> None:
    counts = sparse.csr_matrix(np.array([[1, 0, 3], [0, 0, 0]]))
    assert cell_hashes(counts, gene_words(IDS[:3])).tolist() == [
        16018177650406009851,
        16294208416658607535,
    ]


def test_the_first_dataset_keeps_a_cell() -> None:
    hashes = [np.array(part, dtype=np.uint64) for part in ([5, 6, 5], [], [7, 6], [7])]
    assert [mask.tolist() for mask in first_of_each(hashes)] == [[True, True, False], [], [True, False], [False]]
    assert first_of_each([]) == []


def test_the_hash_of_the_highest_genes_is_frozen_and_that_of_a_small_cell_is_its_own() -> None:
    ids = [f"ENSG{i:011d}" for i in range(300)]
    counts = sparse.csr_matrix(np.stack([np.arange(300), np.arange(300) < 25]).astype(np.int64))
    assert top_gene_hashes(counts, gene_words(ids)).tolist() == [
        12633771237041710100,
        9716410334619803511,
    ]
    assert top_gene_hashes(counts, gene_words(ids))[1] == cell_hashes(counts, gene_words(ids))[1]
