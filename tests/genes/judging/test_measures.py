"""The numbers a gene table is judged by, each against a direct calculation."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from uce.genes.judging.measures import (
    alignment,
    centred,
    copies,
    cosines,
    family_pairs,
    family_test,
    pair_cosines,
    random_pairs,
    relative_spread,
    same_symbol,
    used_directions,
)
from uce.genes.tables import GeneTable

ROWS = hnp.arrays(
    np.float32, st.tuples(st.integers(2, 40), st.integers(1, 50)), elements=st.floats(-8, 8, width=16)
).filter(lambda rows: rows.any(axis=1).all())


def families_of(*symbols: str) -> set[frozenset[str]]:
    pairs, _ = family_pairs(np.array(symbols))
    return {frozenset((symbols[left], symbols[right])) for left, right in pairs.tolist()}


def test_symbols_of_one_stem_are_a_family() -> None:
    assert families_of("Abcb1a", "Abcb1b", "Abcb4") == {frozenset(("Abcb1a", "Abcb1b"))}
    assert families_of("KCNA1", "kcna2", "KCNB1") == {frozenset(("KCNA1", "kcna2"))}
    assert families_of("SLC2A1", "SLC2A3", "SLC25A3") == {frozenset(("SLC2A1", "SLC2A3"))}


@pytest.mark.parametrize(
    "symbols",
    [
        ("SEC1", "SEC2"),  # yeast: named after what a mutant does
        ("TP53", "TP63"),
        ("TMEM1", "TMEM2"),  # a list
        ("C1orf1", "C1orf2"),
        ("Kcna1", "KCNA1"),  # one gene on two loci
        ("MT-ND1", "MT-ND2"),
        ("unc-1", "unc-2"),
        ("", ""),
    ],
)
def test_what_only_looks_like_a_family_is_none(symbols: tuple[str, str]) -> None:
    assert families_of(*symbols) == set()


def test_a_large_family_gives_ten_pairs_of_different_genes() -> None:
    pairs, stems = family_pairs(np.array([f"Olfr{n}" for n in range(200)] + ["KCNA1", "KCNA2"]))
    assert np.bincount(stems).tolist() == [1, 10]
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert len({tuple(sorted(pair)) for pair in pairs.tolist()}) == 11


def test_a_stem_of_very_many_genes_takes_little_memory() -> None:
    symbols = np.array([f"AGAP{n:06d}" for n in range(12_000)])
    tracemalloc.start()
    pairs, _ = family_pairs(symbols)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(pairs) == 10
    assert peak < 50e6


@given(ROWS)
@settings(deadline=None)
def test_centred_rows_have_length_one_or_none(rows: np.ndarray) -> None:
    units = centred(rows)
    lengths = np.linalg.norm(units, axis=1)
    assert ((np.abs(lengths - 1) < 1e-4) | (lengths == 0)).all()
    rest = rows - rows.mean(axis=0, dtype=np.float64)
    kept = lengths > 0
    np.testing.assert_allclose(units[kept] * np.linalg.norm(rest[kept], axis=1, keepdims=True), rest[kept], atol=1e-4)


def test_equal_rows_are_zero_after_centring() -> None:
    assert not centred(np.full((5, 3), 0.1, np.float32)).any()


@given(ROWS)
@settings(deadline=None)
def test_the_spread_is_the_part_that_the_mean_leaves(rows: np.ndarray) -> None:
    wide = rows.astype(np.float64)
    expected = np.sqrt(((wide - wide.mean(axis=0)) ** 2).sum() / (wide**2).sum())
    assert relative_spread(rows) == pytest.approx(expected, abs=1e-5)


@given(hnp.arrays(np.int64, st.integers(1, 60), elements=st.integers(0, 8)), st.integers(8, 80))
@settings(deadline=None)
def test_copies_are_found_whatever_the_width_and_only_they(labels: np.ndarray, width: int) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(9, width))[labels] + 1e-6 * rng.normal(size=(len(labels), width))
    units = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    expected = [labels.tolist().index(label) for label in labels.tolist()]
    assert copies(units).tolist() == expected


def test_copies_are_found_across_blocks() -> None:
    units = centred(np.random.default_rng(0).normal(size=(1500, 50)).astype(np.float32))
    units[1400] = units[3]
    assert np.flatnonzero(copies(units) != np.arange(1500)).tolist() == [1400]
    assert copies(units)[1400] == 3


def test_the_rank_of_distinct_rows_counts_and_a_layer_norm_costs_one() -> None:
    rows = np.random.default_rng(0).normal(size=(100, 30)).astype(np.float32)
    every = np.arange(100)
    assert used_directions(rows, every) == (30, 30)
    assert used_directions(rows, every[:20]) == (19, 19)
    assert used_directions(rows - rows.mean(axis=1, keepdims=True), every) == (29, 30)
    assert used_directions(rows[:, :10] @ rows[:10], every) == (10, 30)
    assert used_directions(np.tile(rows, 3), every) == (30, 90)
    assert used_directions(np.tile(rows, 3), every[:20]) == (30, 90)  # the columns tell, with genes too few for a rank
    assert used_directions(rows[:1], every[:1]) == (0, 0)


def test_pairs_are_of_different_rows_and_the_same_each_time() -> None:
    pairs = random_pairs(7)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert len(pairs) > 15_000
    np.testing.assert_array_equal(pairs, random_pairs(7))
    assert not len(random_pairs(1))


def test_cosines_of_pairs_are_those_of_their_rows() -> None:
    units = centred(np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32))
    pairs = random_pairs(60)[:2500]
    np.testing.assert_allclose(
        pair_cosines(units, pairs), (units @ units.T)[pairs[:, 0], pairs[:, 1]], atol=1e-6, rtol=0
    )
    found = cosines(np.linspace(-1, 1, 101, dtype=np.float32))
    assert (found.mean, found.low, found.high) == pytest.approx((0, -0.9, 0.9), abs=1e-6)


def test_the_error_of_the_family_test_is_what_varies_between_shuffles() -> None:
    """Without any relation the figure scatters about 0.5 by as much as its standard error says."""
    symbols = np.array([f"fam{a}{b}x{n}" for a in "abcde" for b in "fghij" for n in range(4)])
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(60):
        units = centred(rng.normal(size=(100, 5)).astype(np.float32))
        test = family_test(symbols, units, pair_cosines(units, random_pairs(100)))
        assert test is not None
        scores.append((test.auc - 0.5) / test.error)
    assert abs(np.mean(scores)) < 0.5
    assert 0.7 < np.std(scores) < 1.4


def test_too_few_families_are_no_test() -> None:
    units = centred(np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32))
    few = np.array([f"kcna{n}" for n in range(40)])
    assert family_test(few, units, np.zeros(3, np.float32)) is None


def test_one_symbol_in_two_tables_is_met_once_and_ignoring_case() -> None:
    def table(species: str, *symbols: str) -> GeneTable:
        ids = [f"{species}{row}" for row in range(len(symbols))]
        return GeneTable.from_rows(
            species=species, encoder="x", ids=ids, symbols=symbols, vectors=np.ones((len(symbols), 2))
        )

    first, second = table("a", "TP53", "ACTB", "MYC", "", "GAPDH"), table("b", "Actb", "Tp53", "Myc", "myc", "")
    assert sorted(same_symbol(first, second).tolist()) == [[0, 1], [1, 0]]


@given(st.integers(0, 50))
@settings(deadline=None, max_examples=15)
def test_alignment_is_one_in_the_same_space_and_nought_after_a_turn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scales = 0.8 ** np.arange(40)
    first, second = (centred((rng.normal(size=(400, 40)) * scales).astype(np.float32)) for _ in range(2))
    turn, _ = np.linalg.qr(rng.normal(size=(40, 40)))
    assert alignment(first, second) == pytest.approx(1, abs=0.15)
    assert alignment(first, centred((second @ turn).astype(np.float32))) == pytest.approx(0, abs=0.25)


def test_alignment_says_nothing_where_all_directions_are_alike_or_rows_are_few() -> None:
    rng = np.random.default_rng(0)
    even = centred(np.concatenate([np.eye(60), -np.eye(60)]).astype(np.float32))
    assert alignment(even, even) is None
    few = centred((rng.normal(size=(20, 10)) * 0.5 ** np.arange(10)).astype(np.float32))
    assert alignment(few, few) is None
