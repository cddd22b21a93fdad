from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, random_array

from uce.errors import ModelError
from uce.genes.vocabulary import SPECIALS, build_vocabulary, chromosome_vector, gene_keys, to_ranks


@pytest.fixture
def vocabulary(human):
    return build_vocabulary(human, np.arange(4 * human.dim, dtype=np.float32).reshape(4, -1))


def test_tokens_are_specials_then_chromosomes_then_genes(human, vocabulary):
    names = vocabulary.chromosome_names
    assert names == tuple(sorted(set(human.chromosomes.tolist())))
    assert vocabulary.first_gene == SPECIALS + len(names)
    assert vocabulary.vectors.shape == (SPECIALS + len(names) + len(human), human.dim)
    assert vocabulary.vectors.dtype == np.float32
    np.testing.assert_array_equal(vocabulary.vectors[:4], np.arange(4 * human.dim).reshape(4, -1))
    for code, name in enumerate(names):
        expected = chromosome_vector("homo_sapiens", name, human.dim)
        np.testing.assert_array_equal(vocabulary.vectors[SPECIALS + code], expected)
    for row in range(len(human)):
        token = vocabulary.first_gene + vocabulary.ranks[row]
        np.testing.assert_array_equal(vocabulary.vectors[token], human.vectors[row])


def test_ranks_are_sorted_by_chromosome_then_start_then_id(human, vocabulary):
    assert sorted(vocabulary.ranks.tolist()) == list(range(len(human)))
    by_rank = np.argsort(vocabulary.ranks)
    places = [(human.chromosomes[row], human.starts[row], human.ids[row]) for row in by_rank]
    assert places == sorted(places)
    assert [vocabulary.chromosome_names[c] for c in vocabulary.gene_chromosomes] == [place[0] for place in places]


def test_vectors_named_by_a_model_win_over_drawn_ones(human):
    own = np.full(human.dim, 7, dtype=np.float32)
    specials = np.ones((4, human.dim), np.float32)
    named = {"homo_sapiens:6": own, "mus_musculus:11": own}
    vocabulary = build_vocabulary(human, specials, chromosome_vectors=named)
    plain = build_vocabulary(human, specials)
    changed = np.flatnonzero((vocabulary.vectors != plain.vectors).any(axis=1))
    assert changed.tolist() == [SPECIALS + vocabulary.chromosome_names.index("6")]
    np.testing.assert_array_equal(vocabulary.vectors[changed[0]], own)


def test_vectors_named_by_a_table_win_over_drawn_ones_and_lose_to_a_model(human):
    sixes, sevens = np.full(human.dim, 6, np.float32), np.full(human.dim, 7, np.float32)
    table = replace(human, chromosome_vectors={"6": sixes, "11": sixes})
    vocabulary = build_vocabulary(
        table, np.ones((4, human.dim), np.float32), chromosome_vectors={"homo_sapiens:11": sevens}
    )
    vectors = {name: vocabulary.vectors[SPECIALS + code] for code, name in enumerate(vocabulary.chromosome_names)}
    np.testing.assert_array_equal(vectors["6"], sixes)
    np.testing.assert_array_equal(vectors["11"], sevens)
    np.testing.assert_array_equal(vectors["X"], chromosome_vector("homo_sapiens", "X", human.dim))


def test_widths_that_do_not_fit_are_refused_with_both_numbers(human):
    with pytest.raises(ModelError, match=r"6 wide.*\(4, 5\)"):
        build_vocabulary(human, np.ones((4, 5), np.float32))
    with pytest.raises(ModelError, match=r"homo_sapiens:6 has shape \(5,\)"):
        build_vocabulary(
            human, np.ones((4, 6), np.float32), chromosome_vectors={"homo_sapiens:6": np.ones(5, np.float32)}
        )


def test_a_chromosome_vector_never_changes():
    # Frozen for ever: models are trained with these numbers.
    first = chromosome_vector("homo_sapiens", "1", 4)
    np.testing.assert_array_equal(first, FROZEN)
    np.testing.assert_array_equal(chromosome_vector("homo_sapiens", "1", 5120)[:4], first)
    np.testing.assert_array_equal(chromosome_vector("homo_sapiens", "1", 3), first[:3])


FROZEN = np.array([-0.5580902099609375, 2.15692138671875, 2.65679931640625, -0.718353271484375], dtype=np.float32)


def test_chromosome_vectors_are_normal_and_unrelated():
    drawn = np.stack([chromosome_vector("danio_rerio", str(name), 512) for name in range(400)]).astype(np.float64)
    n = drawn.size
    assert abs(drawn.mean()) < 4 / np.sqrt(n)
    assert abs(drawn.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs((drawn**4).mean() - 3) < 4 * np.sqrt(96 / n)
    correlations = np.corrcoef(drawn)[np.triu_indices(400, 1)]
    assert np.abs(correlations).max() < 6 / np.sqrt(512)
    assert not np.array_equal(chromosome_vector("a", "1", 8), chromosome_vector("b", "1", 8))


def test_gene_keys_depend_on_the_id_alone(human, make_table, vocabulary):
    keys = dict(zip(human.ids[np.argsort(vocabulary.ranks)].tolist(), vocabulary.gene_keys.tolist(), strict=True))
    part = make_table([("ENSG00000198851", "x", "", "2", 5), ("A", "y", "", "1", 1)], seed=3)
    other = build_vocabulary(part, np.ones((4, 6), np.float32))
    assert keys["ENSG00000198851"] in other.gene_keys.tolist()
    assert len(set(keys.values())) == len(human)
    assert gene_keys(np.array(["ENSG00000198851"])).tolist() == [2453619089932353223]


def _slow_ranks(counts, rows, vocabulary):
    dense = np.zeros((counts.shape[0], len(vocabulary.ranks)))
    matrix = counts.toarray()
    for column, row in enumerate(rows):
        if row >= 0:
            dense[:, vocabulary.ranks[row]] += matrix[:, column]
    return dense


@given(seed=st.integers(0, 2**32 - 1), cells=st.integers(0, 6), columns=st.integers(1, 40))
def test_to_ranks_equals_adding_column_by_column(vocabulary_once, seed, cells, columns):
    random = np.random.default_rng(seed)
    counts = csr_matrix(random_array((cells, columns), density=0.4, rng=random))
    counts.data = np.rint(counts.data * 5)
    rows = random.integers(-1, len(vocabulary_once.ranks), columns)
    before = counts.copy()
    ranked = to_ranks(counts, rows, vocabulary_once)
    np.testing.assert_array_equal(ranked.toarray(), _slow_ranks(counts, rows, vocabulary_once))
    assert ranked.has_canonical_format
    assert (ranked.data > 0).all()
    assert ranked.dtype == np.float64
    np.testing.assert_array_equal(counts.toarray(), before.toarray())
    shuffled = random.permutation(columns)
    again = to_ranks(counts[:, shuffled], rows[shuffled], vocabulary_once)
    assert (again != ranked).nnz == 0


@pytest.fixture(scope="session")
def vocabulary_once(human):
    return build_vocabulary(human, np.ones((4, human.dim), np.float32))


def test_large_counts_are_summed_exactly(vocabulary_once):
    counts = csr_matrix(np.array([[2.0**31, 2.0**40, 1.0]]))
    assert to_ranks(counts, np.array([3, 3, 3]), vocabulary_once).data.tolist() == [2.0**31 + 2.0**40 + 1]


def test_a_file_without_resolved_names_gives_empty_cells(vocabulary_once):
    ranked = to_ranks(csr_matrix(np.ones((3, 2))), np.array([-1, -1]), vocabulary_once)
    assert ranked.shape == (3, len(vocabulary_once.ranks))
    assert ranked.nnz == 0
