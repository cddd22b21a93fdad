"""Thinned counts are what a shallower sequencing would have given; sentences are packed without loss."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from uce.genes.vocabulary import build_vocabulary
from uce.training.batch import draw_sentences, pack, thin, to_tensors, token_tables
from uce.training.corpus import Corpus, special_vectors
from uce.training.objectives.masked import MaskedSettings
from uce.training.settings import PretrainConfig

from .conftest import WIDTH, batch_of, cells_of, planted_table

Configure = Callable[..., PretrainConfig]


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


def test_packed_sentences_are_the_sentences(corpus: Corpus, make_config: Configure) -> None:
    config = make_config()
    cells = cells_of(corpus, config, 0)
    nothing = np.zeros(cells.counts.nnz, dtype=bool)
    first = draw_sentences(cells, cells.counts, nothing, config, 0, numbers=cells.samples)
    most = np.ones(cells.counts.nnz, dtype=bool)
    most[::20] = False
    second = draw_sentences(cells, cells.counts, most, config, 0, numbers=cells.samples)
    vectors, tokens, keep = pack([first, second])
    assert (np.diff(vectors) > 0).all()  # each token once
    for position, (part, row) in enumerate((part, row) for part in (first, second) for row in range(32)):
        assert np.array_equal(vectors[tokens[position][keep[position]]], part.tokens[row, : part.lengths[row]])


@pytest.mark.parametrize("masking", ["cell", "panel"])
def test_on_the_device_a_batch_has_the_vectors_of_its_own_species(
    corpus: Corpus, make_config: Configure, masking: str
) -> None:
    mouse_vocabulary = build_vocabulary(planted_table("mus_musculus"), -special_vectors(WIDTH))
    mouse = replace(corpus.datasets[0], name="mice", species="mus_musculus", vocabulary=mouse_vocabulary)
    mice = replace(corpus, datasets=(mouse,))
    device = torch.device("cpu")
    tables = token_tables([corpus, mice], device)
    config = make_config(objective=MaskedSettings(masking=masking, queries=64))
    for species, cells in {"homo_sapiens": corpus, "mus_musculus": mice}.items():
        batch = batch_of(cells, config, 0)
        tensors = to_tensors(batch, tables, device)
        table = cells.datasets[0].vocabulary.vectors
        assert batch.species == species
        assert np.array_equal(tensors["vectors"].numpy(), table[batch.vectors])
        assert np.array_equal(tensors["queries"].numpy(), table[batch.queries])
        assert ("asked" in tensors) == (masking == "cell")
        assert np.array_equal(tensors["labels"].numpy(), batch.labels)
    assert not np.array_equal(tables["homo_sapiens"], tables["mus_musculus"])


def test_the_parts_of_an_update_may_be_of_different_datasets(corpus: Corpus, make_config: Configure) -> None:
    config = make_config(accumulate=2)
    names = [{cells_of(corpus, config, 2 * step + number).dataset.name for number in range(2)} for step in range(20)]
    assert {1, 2} == {len(found) for found in names}
    assert len(batch_of(corpus, config, 0).tokens) == config.batch_size // 2
