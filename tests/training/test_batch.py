"""Thinned counts are what a shallower sequencing would have given; sentences are packed without loss."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from uce.training.batch import Cells, cells_of_step, draw_sentences, pack, thin
from uce.training.corpus import Corpus


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.lists(st.integers(0, 10**6), min_size=4, max_size=4), min_size=1, max_size=5),
    chance=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
def test_thinned_counts_are_whole_and_never_above_the_counts(values: list[list[int]], chance: float, seed: int) -> None:
    counts = csr_matrix(np.array(values, dtype=np.float64))
    randoms = [np.random.default_rng([seed, row]) for row in range(len(values))]
    thinned = thin(counts, [chance] * len(values), randoms)
    assert np.array_equal(thinned.indices, counts.indices)  # the same entries, so that what is hidden stays so
    assert (thinned.data == np.floor(thinned.data)).all()
    assert ((thinned.data >= 0) & (thinned.data <= counts.data)).all()
    assert np.array_equal(counts.toarray(), values)


def test_thinning_keeps_all_none_or_the_share_asked_for() -> None:
    counts = csr_matrix(np.full((3, 2000), 50.0))
    thinned = thin(counts, [1.0, 0.0, 0.3], [np.random.default_rng(row) for row in range(3)])
    assert (thinned.data[:2000] == 50).all()
    assert (thinned.data[2000:4000] == 0).all()
    variance = 50 * 0.3 * 0.7
    assert abs(thinned.data[4000:].mean() - 15) < 4 * np.sqrt(variance / 2000)
    assert abs(thinned.data[4000:].var() / variance - 1) < 4 * np.sqrt(2 / 2000)


def test_packed_sentences_are_the_sentences(corpus: Corpus, make_config: "type") -> None:
    config = make_config()
    cells: Cells = cells_of_step(corpus, config, 0)
    nothing = np.zeros(cells.counts.nnz, dtype=bool)
    first = draw_sentences(cells, cells.counts, nothing, config, 0, numbers=cells.samples)
    most = np.ones(cells.counts.nnz, dtype=bool)
    most[::20] = False
    second = draw_sentences(cells, cells.counts, most, config, 0, numbers=cells.samples)
    vocabulary = cells.dataset.vocabulary
    vectors, tokens, keep = pack(vocabulary, [first, second])
    for position, (part, row) in enumerate((part, row) for part in (first, second) for row in range(32)):
        expected = vocabulary.vectors[part.tokens[row, : part.lengths[row]]]
        assert np.array_equal(vectors[tokens[position][keep[position]]], expected)
