"""Which cell comes when is a function of the seed and the step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uce.training.order import CELL, HIDE, samples_of_step, uniforms


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**63 - 1),
    step=st.integers(0, 10**9),
    sizes=st.lists(st.integers(1, 10**6), min_size=1, max_size=6),
    balance=st.floats(0, 1),
)
def test_every_sample_is_a_cell_of_its_dataset(seed: int, step: int, sizes: list[int], balance: float) -> None:
    numbers = np.array(sizes)
    dataset, samples, cells = samples_of_step(seed, step, batch_size=16, sizes=numbers, balance=balance)
    assert 0 <= dataset < len(sizes)
    assert ((cells >= 0) & (cells < sizes[dataset])).all()
    np.testing.assert_array_equal(samples, step * 16 + np.arange(16))


@pytest.mark.parametrize(("balance", "share"), [(0.0, 0.5), (0.5, 0.75), (1.0, 0.9)])
def test_datasets_are_picked_in_proportion_to_a_power_of_their_size(balance: float, share: float) -> None:
    sizes = np.array([9000, 1000])
    picked = [samples_of_step(3, step, batch_size=1, sizes=sizes, balance=balance)[0] for step in range(4000)]
    assert np.mean(np.array(picked) == 0) == pytest.approx(share, abs=0.03)


def test_random_numbers_are_uniform_and_uses_do_not_share_them() -> None:
    drawn = uniforms(7, CELL, np.arange(100_000))
    share, _ = np.histogram(drawn, bins=20, range=(0, 1))
    assert ((share - 5000) ** 2 / 5000).sum() < 45  # chi-square, 19 degrees of freedom: 1 in 1,000 is above 43.8
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(drawn, uniforms(7, HIDE, np.arange(100_000)))[0, 1]) < 0.01
