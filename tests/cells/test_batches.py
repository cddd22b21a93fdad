"""Batches of equal length: every cell once, never above the limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uce.cells.batches import length_batches

LENGTHS = st.lists(st.integers(0, 12), max_size=60).map(lambda lengths: np.array(lengths, dtype=np.int32))


@settings(deadline=None, derandomize=True)
@given(lengths=LENGTHS, max_tokens=st.integers(1, 50), max_cells=st.integers(1, 9))
def test_every_cell_with_a_sentence_is_in_one_batch_of_its_length(
    lengths: np.ndarray, max_tokens: int, max_cells: int
) -> None:
    batches = length_batches(lengths, max_tokens=max_tokens, max_cells=max_cells)
    together = np.concatenate([np.zeros(0, dtype=np.int64), *batches])
    assert np.sort(together).tolist() == np.flatnonzero(lengths).tolist()
    for batch in batches:
        assert batch.dtype == np.int64
        assert 0 < len(batch) <= max_cells
        assert len(set(lengths[batch].tolist())) == 1
        assert len(batch) == 1 or lengths[batch].sum() <= max_tokens
    firsts = [int(lengths[batch[0]]) for batch in batches]
    assert firsts == sorted(firsts, reverse=True)


def test_batches_are_as_large_as_the_limits_allow_and_keep_the_order_of_the_cells() -> None:
    lengths = np.array([3, 5, 3, 0, 3, 3, 5, 3])
    batches = length_batches(lengths, max_tokens=10, max_cells=4)
    assert [batch.tolist() for batch in batches] == [[1, 6], [0, 2, 4], [5, 7]]
    batches = length_batches(lengths, max_tokens=1000, max_cells=4)
    assert [batch.tolist() for batch in batches] == [[1, 6], [0, 2, 4, 5], [7]]


def test_a_sentence_longer_than_the_limit_is_a_batch_by_itself() -> None:
    assert [batch.tolist() for batch in length_batches(np.array([9, 9]), max_tokens=4, max_cells=8)] == [[0], [1]]


def test_no_sentences_make_no_batches() -> None:
    assert length_batches(np.zeros(0, dtype=np.int32), max_tokens=10, max_cells=1) == []
    assert length_batches(np.zeros(5, dtype=np.int32), max_tokens=10, max_cells=1) == []


@pytest.mark.parametrize("limits", [{"max_tokens": 0, "max_cells": 1}, {"max_tokens": 1, "max_cells": 0}])
def test_limits_below_one_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="give whole numbers from 1"):
        length_batches(np.array([1]), **limits)
