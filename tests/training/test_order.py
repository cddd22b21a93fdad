"""Which cell comes when is a pure function of seed and part: every cell once in a pass, every dataset its share."""

from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uce.training.order import CELL, HIDE, ROUND_PARTS, Schedule, Walk, dataset_shares, generator, uniforms, words

SEEDS = st.integers(0, 2**63 - 1)
SHARDS = st.lists(st.integers(1, 400), min_size=1, max_size=4)

GOLDEN_WORDS = [1144098325850660273, 15810120502376614252, 5327295910975547985]
GOLDEN_TURNS = [(0, 0), (1, 0), (0, 2747), (0, 549994)]
GOLDEN_ROWS = "d46cc3c863241ae7"


def walked(walk: Walk, first: int, count: int) -> np.ndarray:
    """(count,) rows at these places of the endless sequence."""
    pieces = [walk.window(turn, window).rows[taken] for turn, window, taken in walk.pieces(first, count)]
    return np.concatenate(pieces)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, shards=SHARDS, window=st.integers(1, 40), turn=st.integers(0, 10**6))
def test_every_cell_comes_once_in_a_pass(seed: int, shards: list[int], window: int, turn: int) -> None:
    walk = Walk(seed, "set", shards, window=window)
    rows = walked(walk, turn * walk.n_cells, walk.n_cells)
    np.testing.assert_array_equal(np.sort(rows), np.arange(sum(shards)))


@settings(max_examples=40, deadline=None)
@given(
    seed=SEEDS, shards=SHARDS, first=st.integers(0, 5000), sizes=st.lists(st.integers(1, 300), min_size=1, max_size=5)
)
def test_the_sequence_is_the_same_however_it_is_cut(seed: int, shards: list[int], first: int, sizes: list[int]) -> None:
    walk = Walk(seed, "set", shards, window=2)
    ends = first + np.cumsum([0, *sizes])
    cut = [walked(Walk(seed, "set", shards, window=2), start, size) for start, size in zip(ends, sizes, strict=False)]
    np.testing.assert_array_equal(np.concatenate(cut), walked(walk, first, sum(sizes)))


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, shards=SHARDS, window=st.integers(1, 12))
def test_a_window_reads_whole_blocks_that_lie_in_one_shard(seed: int, shards: list[int], window: int) -> None:
    walk = Walk(seed, "set", shards, window=window)
    numbers = sorted({place for _, place, _ in walk.pieces(0, walk.n_cells)})
    blocks = np.concatenate([walk.window(0, number).blocks for number in numbers])
    assert all(len(walk.window(0, number).blocks) == window for number in numbers[:-1])
    shard = np.searchsorted(np.cumsum(shards), blocks, side="right")
    np.testing.assert_array_equal(shard[:, 0], np.searchsorted(np.cumsum(shards), blocks[:, 1] - 1, side="right"))
    begins = np.cumsum([0, *shards])[shard[:, 0]]
    assert ((blocks[:, 0] - begins) % 64 == 0).all()
    assert (np.diff(blocks, axis=1) <= 64).all()


def test_passes_and_windows_differ_and_are_shuffled() -> None:
    walk = Walk(3, "set", [1000], window=4)
    first, second = walked(walk, 0, 1000), walked(walk, 1000, 1000)
    assert (first == second).mean() < 0.02
    assert (np.diff(first) == 1).mean() < 0.02
    assert (walked(Walk(4, "set", [1000], window=4), 0, 1000) == first).mean() < 0.02
    assert (walked(Walk(3, "another", [1000], window=4), 0, 1000) == first).mean() < 0.02


def test_one_cell_and_windows_beyond_the_dataset() -> None:
    np.testing.assert_array_equal(walked(Walk(0, "one", [1], window=16), 7, 5), np.zeros(5))
    wide = Walk(0, "set", [70, 3], window=1 << 20)
    assert [(turn, window) for turn, window, _ in wide.pieces(70, 80)] == [(0, 0), (1, 0), (2, 0)]


def brute(schedule: Schedule, parts: int, datasets: int) -> np.ndarray:
    """(parts, datasets) how many parts up to and including each were of each dataset, asking part by part."""
    counts = np.zeros(datasets, dtype=np.int64)
    counted = []
    for part in range(parts):
        dataset, before = schedule.at(part)
        assert before == counts[dataset]
        counts[dataset] += 1
        counted.append(counts.copy())
    return np.array(counted)


@settings(max_examples=15, deadline=None)
@given(
    seed=SEEDS, weights=st.lists(st.floats(0, 1), min_size=1, max_size=8).filter(lambda weights: sum(weights) > 1e-6)
)
def test_turns_agree_with_a_count_and_shares_are_kept_in_every_round(seed: int, weights: list[float]) -> None:
    shares = np.array(weights) / sum(weights)
    schedule = Schedule(seed, shares)
    counted = brute(schedule, 3 * ROUND_PARTS, len(shares))
    for parts in (1, 500, ROUND_PARTS, ROUND_PARTS + 1, 3 * ROUND_PARTS):
        np.testing.assert_array_equal(schedule.turns(parts), counted[parts - 1])
    rounds = np.diff(counted[ROUND_PARTS - 1 :: ROUND_PARTS], axis=0, prepend=0)
    assert (np.abs(rounds - ROUND_PARTS * shares) < 1 + 1e-6).all()
    assert not counted[-1][shares == 0].any()


def test_the_parts_of_a_round_are_shuffled_and_rounds_differ() -> None:
    schedule = Schedule(5, np.array([0.5, 0.5]))
    picked = np.array([schedule.at(part)[0] for part in range(2 * ROUND_PARTS)]).reshape(2, ROUND_PARTS)
    assert abs((picked[:, 1:] == picked[:, :-1]).mean() - 0.5) < 0.05
    assert abs((picked[0] == picked[1]).mean() - 0.5) < 0.06


def test_parts_a_billion_updates_away_are_counted_like_near_ones() -> None:
    shares = np.array([0.7, 0.1, 0.2])
    schedule, parts = Schedule(1, shares), 10**9
    turns = schedule.turns(parts)
    assert turns.sum() == parts
    assert np.abs(turns - parts * shares).max() < 5000  # each of 1e6 rounds rounds by itself
    dataset, before = schedule.at(parts)
    assert before == turns[dataset]
    far = walked(Walk(1, "set", [10**8], window=16), 10**17, 128)
    assert len(set(far.tolist())) == 128
    assert far.max() < 10**8


def test_shares_are_weight_times_a_power_of_the_cells() -> None:
    cells, weights, species = np.array([900, 100, 400]), np.array([1.0, 3.0, 0.0]), ["a", "a", "b"]

    def shares(balance: float, species_balance: float = 1.0) -> list[float]:
        given = dataset_shares(cells, weights, species, balance=balance, species_balance=species_balance)
        return given.tolist()

    assert shares(0) == pytest.approx([1 / 4, 3 / 4, 0])
    assert shares(0.5) == pytest.approx([1 / 2, 1 / 2, 0])
    assert shares(1) == pytest.approx([3 / 4, 1 / 4, 0])
    assert shares(0.5, 0) == pytest.approx([1 / 2, 1 / 2, 0])  # a species without weight stays without


@pytest.mark.parametrize(("species_balance", "share"), [(1.0, 0.9), (0.5, 0.75), (0.0, 0.5)])
def test_species_can_be_evened_out_whatever_their_cells(species_balance: float, share: float) -> None:
    cells, species = np.array([500, 400, 100]), ["man", "man", "mouse"]
    given = dataset_shares(cells, np.ones(3), species, balance=1, species_balance=species_balance)
    assert given[:2].sum() == pytest.approx(share)
    assert given[0] / given[1] == pytest.approx(500 / 400)


def test_random_numbers_are_uniform_and_uses_do_not_share_them() -> None:
    drawn = uniforms(7, CELL, np.arange(100_000))
    share, _ = np.histogram(drawn, bins=20, range=(0, 1))
    assert ((share - 5000) ** 2 / 5000).sum() < 45  # chi-square, 19 degrees of freedom: 1 in 1,000 is above 43.8
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(drawn, uniforms(7, HIDE, np.arange(100_000)))[0, 1]) < 0.01


def test_a_generator_of_its_own_for_every_number() -> None:
    first = generator(7, HIDE, 12).random(4)
    np.testing.assert_array_equal(first, generator(7, HIDE, 12).random(4))
    for other in (generator(8, HIDE, 12), generator(7, CELL, 12), generator(7, HIDE, 13)):
        assert not (other.random(4) == first).any()


def test_the_order_is_that_of_every_earlier_version() -> None:
    """Frozen: a run goes on with another order of cells, and gives another model, where one of these changes."""
    assert words(1, 2, np.array([0, 1, 10**12])).tolist() == GOLDEN_WORDS
    schedule = Schedule(11, np.array([0.55, 0.3, 0.15]))
    assert [schedule.at(part) for part in (0, 1, 5000, 10**6)] == GOLDEN_TURNS
    walk = Walk(11, "set", [1000, 333], window=4)
    rows = np.concatenate([walked(walk, first, 200) for first in (0, 1300, 10**9)])
    assert blake2b(rows.astype("<i8").tobytes(), digest_size=8).hexdigest() == GOLDEN_ROWS
