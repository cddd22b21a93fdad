"""The published sentence, exact where it is determined and statistically right where it is drawn."""

from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, vstack
from scipy.stats import chisquare

from uce.cells import drawing
from uce.cells.sentences import SentenceRule, Sentences, arrange, cell_keys, write_sentences
from uce.errors import InputError, UsageError

WORD = (1 << 64) - 1
CHROMOSOME_TOKENS = 143_574  # first row of the published table that belongs to a chromosome
PROPERTY = settings(max_examples=40, deadline=None, derandomize=True)


class Species:
    """Genes in rank order, spread over chromosomes, and cells that have counts of them."""

    def __init__(self, genes: int = 300, chromosomes: int = 6, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.codes = np.sort(self.random.integers(0, chromosomes, genes)).astype(np.int32)
        self.keys = self.random.integers(0, WORD, genes, dtype=np.uint64, endpoint=True)
        self.n_chromosomes = chromosomes

    def cells(self, n: int, density: float = 0.3) -> csr_matrix:
        dense = self.random.geometric(0.4, (n, len(self.codes))) * (self.random.random((n, len(self.codes))) < density)
        return csr_matrix(dense.astype(np.float64))

    def write(self, counts: csr_matrix, *, draws: int = 64, max_tokens: int = 1536, **options: Any) -> Sentences:
        rule = SentenceRule(draws=draws, max_tokens=max_tokens)
        return write_sentences(counts, self.codes, self.keys, rule=rule, n_chromosomes=self.n_chromosomes, **options)

    def drawn(self, sentences: Sentences) -> np.ndarray:
        """(cells, genes), how often each gene stands in each sentence."""
        genes = sentences.tokens - (4 + self.n_chromosomes)
        return np.stack([np.bincount(row[row >= 0], minlength=len(self.codes)) for row in genes])


def assert_equal(one: Sentences, other: Sentences) -> None:
    np.testing.assert_array_equal(one.lengths, other.lengths)
    np.testing.assert_array_equal(one.left_out, other.left_out)
    np.testing.assert_array_equal(one.tokens, other.tokens)


# --- random numbers -------------------------------------------------------------------------------------------------


def plain_mix64(word: int) -> int:
    word = (word + 0x9E3779B97F4A7C15) & WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORD
    return word ^ (word >> 31)


def plain_philox(counter: tuple[int, ...], key: tuple[int, ...]) -> list[int]:
    """Philox4x32-10 as the paper describes it, on Python's own integers."""
    (a, b, c, d), (k, m) = counter, key
    for _ in range(10):
        high, low = divmod(0xD2511F53 * a, 1 << 32)
        high2, low2 = divmod(0xCD9E8D57 * c, 1 << 32)
        a, b, c, d = high2 ^ b ^ k, low2, high ^ d ^ m, low
        k, m = (k + 0x9E3779B9) % (1 << 32), (m + 0xBB67AE85) % (1 << 32)
    return [a, b, c, d]


def halves(word: int) -> tuple[int, int]:
    return word & 0xFFFFFFFF, word >> 32


def plain_words(index: int, use: int, key: tuple[int, int]) -> tuple[int, int]:
    w = plain_philox((index, use, *halves(key[1])), halves(key[0]))
    return w[0] << 32 | w[1], w[2] << 32 | w[3]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers_of_its_authors(
    counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    words = drawing.philox(tuple(np.uint64(word) for word in counter), tuple(np.uint64(word) for word in key))
    assert tuple(int(word) for word in words) == expected
    assert tuple(plain_philox(counter, key)) == expected


@pytest.mark.parametrize(("state", "expected"), [(0, 0xE220A8397B1DCDAF), (1234567, 6457827717110365317)])
def test_mix64_gives_the_known_first_outputs_of_splitmix64(state: int, expected: int) -> None:
    assert int(drawing.mix64(np.uint64(state))) == expected == plain_mix64(state)


def test_uniforms_are_uniform_and_below_one() -> None:
    uniforms = np.empty(100_000)
    drawing.fill_uniforms((np.uint64(5), np.uint64(7)), uniforms)
    assert uniforms.min() >= 0
    assert uniforms.max() < 1
    assert 1e-3 < chisquare(np.histogram(uniforms, 256, (0, 1))[0]).pvalue < 1 - 1e-3
    pairs = np.histogram2d(uniforms[:-1], uniforms[1:], 16, ((0, 1), (0, 1)))[0]
    assert 1e-3 < chisquare(pairs.ravel()).pvalue < 1 - 1e-3


# --- keys -----------------------------------------------------------------------------------------------------------


@PROPERTY
@given(seed=st.integers(0, 999))
def test_the_key_of_a_cell_does_not_depend_on_the_order_of_its_genes(seed: int) -> None:
    species = Species(seed=seed)
    counts = species.cells(4)
    order = species.random.permutation(len(species.keys))
    shuffled = csr_matrix(counts[:, order])
    shuffled.sort_indices()
    keys = cell_keys(counts, species.keys, seed=3)
    np.testing.assert_array_equal(keys, cell_keys(shuffled, species.keys[order], seed=3))


def test_the_key_of_a_cell_changes_with_anything_that_it_is_made_of() -> None:
    gene_keys = np.array([11, 12, 13], dtype=np.uint64)
    cells = [[1, 2, 0], [2, 1, 0], [1, 3, 0], [1, 2, 1], [0, 1, 2], [1, 0, 2], [1.5, 2, 0], [0, 0, 0]]
    counts = csr_matrix(np.array(cells, dtype=np.float64))
    variants = [(0, 0), (1, 0), (0, 1), (1, 1), (-1, 0), (2**63, 0)]
    keys = np.concatenate([cell_keys(counts, gene_keys, seed=seed, replicate=r) for seed, r in variants])
    assert len(np.unique(keys[:, 0])) == len(np.unique(keys[:, 1])) == len(cells) * len(variants)


def test_keys_of_many_small_cells_do_not_collide_in_either_half() -> None:
    n = 300
    gene_keys = np.arange(n, dtype=np.uint64)  # worse than hashed keys
    rows, columns = np.divmod(np.arange(n * n), n)
    singles = csr_matrix((rows + 1.0, columns, np.arange(n * n + 1)), shape=(n * n, n))
    keys = cell_keys(singles, gene_keys, seed=0)
    assert len(np.unique(keys[:, 0])) == len(np.unique(keys[:, 1])) == n * n


def test_stored_zeros_and_the_number_format_do_not_change_a_cell() -> None:
    species = Species()
    counts = species.cells(5)
    with_zeros = csr_matrix((counts.toarray() + 1).astype(np.float32))
    with_zeros.data -= 1
    wide = csr_matrix((counts.data.astype(np.int16), counts.indices, counts.indptr), shape=counts.shape)
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    for same in (with_zeros, wide):
        np.testing.assert_array_equal(cell_keys(same, species.keys, seed=1), cell_keys(counts, species.keys, seed=1))
        assert_equal(species.write(same), species.write(counts))


# --- against the published code -------------------------------------------------------------------------------------


def test_published_draws_and_order_give_the_published_human_sentences(shared: Any) -> None:
    golden = np.load(shared / "golden" / "sentences_human.npz")
    codes, starts, rows = golden["chrom_code"].astype(int), golden["start"], golden["token_row"]
    assert golden["chrom_token_offset"] == CHROMOSOME_TOKENS
    for cell in range(len(golden["seed"])):
        expected = golden["tokens"][cell][: golden["seq_len"][cell]]
        found = published_tokens(golden["draw"][cell], golden["chrom_order"][cell], codes, starts, rows)
        assert_published(found, expected, starts=dict(zip(rows.tolist(), starts.tolist(), strict=True)))
        assert golden["mask"][cell].sum() == len(found)


def test_published_draws_give_the_published_sentences_of_the_shifted_zebrafish(shared: Any) -> None:
    golden = np.load(shared / "golden" / "sentences_zebrafish_duplicates.npz")
    codes, starts = golden["chrom_code_misaligned"][:60].astype(int), golden["start_misaligned"][:60]
    rows = golden["token_row"]
    for cell in range(len(golden["tokens"])):
        expected = golden["tokens"][cell][: golden["seq_len"][cell]]
        found = published_tokens(golden["draw"][cell], golden["chrom_order"][cell], codes, starts, rows)
        assert_published(found, expected, starts=dict(zip(rows.tolist(), starts.tolist(), strict=True)))


def published_tokens(
    draw: np.ndarray, order: np.ndarray, codes: np.ndarray, starts: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Our sentence of the columns drawn, in the published token ids."""
    columns = np.lexsort((starts, codes))  # rank -> column
    ranks = np.argsort(columns)
    first, n = codes.min(), codes.max() - codes.min() + 1
    order = order[order >= 0].astype(int) - first
    tokens, left_out = arrange(ranks[draw], order, gene_chromosomes=codes[columns] - first, n_chromosomes=n)
    assert left_out == 0
    return np.array(
        [
            t if t < 4 else CHROMOSOME_TOKENS + first + t - 4 if t < 4 + n else rows[columns[t - 4 - n]]
            for t in tokens.tolist()
        ]
    )


def assert_published(found: np.ndarray, expected: np.ndarray, *, starts: dict[int, int]) -> None:
    """Equal, but genes of one start (which an unstable sort leaves in any order) may change places."""
    places, expected_places = ([starts.get(t, -t) for t in tokens.tolist()] for tokens in (found, expected))
    assert places == expected_places
    bounds = np.flatnonzero(np.diff(places)) + 1
    for tie, expected_tie in zip(np.split(found, bounds), np.split(expected, bounds), strict=True):
        np.testing.assert_array_equal(np.sort(tie), np.sort(expected_tie))


def test_published_uniforms_give_the_published_draws(shared: Any) -> None:
    golden = np.load(shared / "golden" / "sentences_human.npz")
    logs = np.log1p(np.arange(1024.0))
    for cell, seed in enumerate(golden["seed"]):
        present = np.flatnonzero(golden["counts"][cell]).astype(np.int32)
        counts = golden["counts"][cell][present].astype(np.float64)
        cumulative = drawing.cumulative_weights(counts, np.zeros(0, dtype=np.bool_), logs)
        uniforms = np.random.RandomState(int(seed)).random_sample(1024)
        drawn, repeats = drawing.draw(present, cumulative, uniforms)
        np.testing.assert_array_equal(np.repeat(drawn, repeats), np.sort(golden["draw"][cell]))


# --- against a slow plain version -----------------------------------------------------------------------------------


def plain_sentence(
    counts: np.ndarray, species: Species, *, draws: int, max_tokens: int, seed: int, replicate: int
) -> tuple[list[int], int]:
    """One sentence by Python's own integers and numpy's search."""
    sums = [0, 0]
    for gene, count in zip(species.keys.tolist(), counts.tolist(), strict=True):
        if count:
            hashed = plain_mix64(int(np.float64(count).view(np.uint64)))
            sums[0] = (sums[0] + plain_mix64((gene + hashed) & WORD)) & WORD
            sums[1] = (sums[1] + plain_mix64(gene ^ hashed)) & WORD
    secret = plain_mix64((plain_mix64(seed) + replicate) & WORD)
    w = plain_philox((*halves(sums[0]), *halves(sums[1])), halves(secret))
    key = (w[0] << 32 | w[1], w[2] << 32 | w[3])
    words = [word for block in range((draws + 1) // 2) for word in plain_words(block, 0, key)][:draws]
    running = np.cumsum(np.log1p(counts))
    drawn = np.searchsorted(running, np.array([word >> 11 for word in words]) * 2.0**-53 * running[-1], side="right")
    codes = np.unique(species.codes[drawn]).tolist()
    tokens = [3]
    for code in sorted(codes, key=lambda code: plain_words(code, 1, key)[0]):
        genes = np.sort(drawn[species.codes[drawn] == code])
        room = max_tokens - len(tokens) - 2
        if len(genes) + 3 > max_tokens:
            genes = genes[: max(room, 0)]
        if 0 < len(genes) <= room:
            tokens += [4 + code, *(4 + species.n_chromosomes + genes).tolist(), 2]
    return tokens, draws - sum(token >= 4 + species.n_chromosomes for token in tokens)


@PROPERTY
@given(
    seed=st.integers(0, 999),
    chromosomes=st.sampled_from([1, 2, 7, 60]),
    draws=st.integers(1, 120),
    max_tokens=st.integers(4, 200),
    replicate=st.integers(0, 3),
)
def test_sentences_equal_a_slow_plain_version(
    seed: int, chromosomes: int, draws: int, max_tokens: int, replicate: int
) -> None:
    species = Species(genes=150, chromosomes=chromosomes, seed=seed)
    counts = species.cells(3)
    counts.data[::7] += 0.5
    counts.data[::11] *= 5000
    written = species.write(counts, draws=draws, max_tokens=max_tokens, seed=seed, replicate=replicate)
    for cell, row in enumerate(counts.toarray()):
        expected, left_out = plain_sentence(
            row, species, draws=draws, max_tokens=max_tokens, seed=seed, replicate=replicate
        )
        assert written.tokens[cell][: written.lengths[cell]].tolist() == expected
        assert not written.tokens[cell][written.lengths[cell] :].any()
        assert written.left_out[cell] == left_out


def test_a_written_sentence_is_what_arrange_makes_of_its_genes_and_order() -> None:
    species = Species(chromosomes=40)
    written = species.write(species.cells(20), draws=300, max_tokens=2000)
    for tokens, length in zip(written.tokens, written.lengths, strict=True):
        sentence = tokens[:length]
        order = sentence[(sentence >= 4) & (sentence < 44)] - 4
        drawn = sentence[sentence >= 44] - 44
        again, left_out = arrange(drawn[::-1], order, gene_chromosomes=species.codes, n_chromosomes=40)
        np.testing.assert_array_equal(again, sentence)
        assert left_out == 0


# --- statistics -----------------------------------------------------------------------------------------------------


def test_genes_are_drawn_in_proportion_to_log1p_of_their_counts() -> None:
    species = Species(genes=40)
    row = np.array([0, 1, 2, 3, 5, 10, 100, 2000, 0.5, 70000] * 4, dtype=np.float64)
    cells = csr_matrix(np.tile(row, (400, 1)))
    drawn = species.drawn(species.write(cells, draws=1024, seed=np.arange(400, dtype=np.uint64))).sum(axis=0)
    weights = np.log1p(row)
    assert not drawn[row == 0].any()
    expected = weights / weights.sum() * drawn.sum()
    assert 1e-3 < chisquare(drawn[row > 0], expected[row > 0]).pvalue < 1 - 1e-3


def test_a_uniform_on_a_boundary_draws_the_next_gene_and_never_one_without_weight() -> None:
    genes, cumulative = np.arange(4, dtype=np.int32), np.array([0.0, 1.0, 2.0, 2.0])
    drawn, repeats = drawing.draw(genes, cumulative, np.array([0.0, 0.5, 1 - 2.0**-53]))
    assert drawn.tolist() == [1, 2]
    assert repeats.tolist() == [1, 2]


def test_every_order_of_the_chromosomes_is_equally_likely() -> None:
    species = Species(genes=8, chromosomes=4)
    species.codes = np.repeat(np.arange(4, dtype=np.int32), 2)
    n = 12_000
    written = species.write(csr_matrix(np.full((n, 8), 9.0)), draws=100, seed=np.arange(n, dtype=np.uint64))
    orders = [tuple(row[(row >= 4) & (row < 8)] - 4) for row in written.tokens]
    counted = [orders.count(order) for order in permutations(range(4))]
    assert sum(counted) == n
    assert 1e-3 < chisquare(counted).pvalue < 1 - 1e-3


@pytest.mark.parametrize("other", [{"replicate": 1}, {"seed": 1}])
def test_replicates_and_seeds_are_independent(other: dict[str, int]) -> None:
    species = Species(genes=50)
    cells = csr_matrix(species.random.integers(1, 6, (2000, 50)).astype(np.float64))
    one, two = species.drawn(species.write(cells)), species.drawn(species.write(cells, **other))
    expected = np.log1p(cells.toarray())
    expected *= 64 / expected.sum(axis=1, keepdims=True)
    correlation = np.corrcoef((one - expected).ravel(), (two - expected).ravel())[0, 1]
    assert abs(correlation) < 4 / np.sqrt(one.size)


# --- the same cell, the same sentence -------------------------------------------------------------------------------


@PROPERTY
@given(seed=st.integers(0, 999), cut=st.integers(0, 30), threads=st.integers(1, 5))
def test_a_cell_gets_the_same_sentence_in_any_company_order_and_batch(seed: int, cut: int, threads: int) -> None:
    species = Species(seed=seed)
    cells = species.cells(30)
    whole = species.write(cells, threads=1)
    order = species.random.permutation(30)
    moved = species.write(csr_matrix(vstack([species.cells(7), cells[order]])), threads=threads)
    parts = [species.write(part) for part in (cells[:cut], cells[cut:])]
    for cell in range(30):
        sentence = whole.tokens[cell][: whole.lengths[cell]]
        position = 7 + int(np.flatnonzero(order == cell)[0])
        np.testing.assert_array_equal(moved.tokens[position][: moved.lengths[position]], sentence)
        part, row = (parts[0], cell) if cell < cut else (parts[1], cell - cut)
        np.testing.assert_array_equal(part.tokens[row][: part.lengths[row]], sentence)


def test_threads_change_nothing_and_may_call_at_once() -> None:
    species = Species()
    cells = species.cells(700)
    expected = species.write(cells, threads=1)
    for threads in (2, 3, 8, None):
        assert_equal(species.write(cells, threads=threads), expected)
    with ThreadPoolExecutor(4) as pool:
        for written in pool.map(lambda _: species.write(cells), range(8)):
            assert_equal(written, expected)


def test_each_cell_can_have_its_own_seed() -> None:
    species = Species()
    cells = species.cells(3)
    seeds = np.array([5, 2**64 - 1, 5], dtype=np.uint64)
    together = species.write(cells, seed=seeds)
    for cell, seed in enumerate(seeds.tolist()):
        alone = species.write(cells[cell : cell + 1], seed=seed)
        np.testing.assert_array_equal(together.tokens[cell][: together.lengths[cell]], alone.tokens[0])


def test_read_only_arrays_are_welcome() -> None:
    species = Species()
    cells = species.cells(3)
    expected = species.write(cells)
    for array in (cells.data, cells.indices, cells.indptr, species.codes, species.keys):
        array.flags.writeable = False
    assert_equal(species.write(cells), expected)


def test_functions_compile_where_nothing_can_be_cached() -> None:
    scope: dict[str, Any] = {}
    exec("def double(x): return 2 * x", scope)  # no source file, so numba finds no place for its cache
    assert drawing._compiled(scope["double"])(4) == 8


# --- excluded genes -------------------------------------------------------------------------------------------------


def test_excluded_entries_are_never_drawn_and_the_others_in_proportion() -> None:
    species = Species(genes=20)
    row = np.arange(1.0, 21.0)
    cells = csr_matrix(np.tile(row, (300, 1)))
    exclude = np.tile(np.arange(20) % 3 == 1, 300)
    seeds = np.arange(300, dtype=np.uint64)
    drawn = species.drawn(species.write(cells, draws=512, seed=seeds, exclude=exclude)).sum(axis=0)
    weights = np.where(exclude[:20], 0, np.log1p(row))
    assert not drawn[exclude[:20]].any()
    expected = weights / weights.sum() * drawn.sum()
    assert 1e-3 < chisquare(drawn[weights > 0], expected[weights > 0]).pvalue < 1 - 1e-3


def test_excluding_nothing_changes_nothing_and_excluding_all_leaves_no_sentence() -> None:
    species = Species()
    cells = species.cells(4)
    nothing = np.zeros(cells.nnz, dtype=np.bool_)
    assert_equal(species.write(cells, exclude=nothing), species.write(cells))
    second = np.repeat(np.arange(4), np.diff(cells.indptr)) == 1
    written = species.write(cells, exclude=second)
    assert written.lengths[1] == 0
    assert written.lengths[[0, 2, 3]].tolist() == species.write(cells).lengths[[0, 2, 3]].tolist()


# --- sentences that do not fit --------------------------------------------------------------------------------------


@PROPERTY
@given(seed=st.integers(0, 999), chromosomes=st.integers(1, 400), max_tokens=st.integers(4, 700))
def test_long_sentences_give_up_whole_chromosomes_and_count_them(seed: int, chromosomes: int, max_tokens: int) -> None:
    species = Species(genes=600, chromosomes=chromosomes, seed=seed)
    cells = species.cells(3)
    full = species.drawn(species.write(cells, draws=256, max_tokens=10_000))
    written = species.write(cells, draws=256, max_tokens=max_tokens)
    kept = species.drawn(written)
    assert written.lengths.max() <= max_tokens
    assert (written.tokens[:, 0] == 3).all()
    np.testing.assert_array_equal(kept.sum(axis=1) + written.left_out, 256)
    for cell in range(3):
        for code in range(chromosomes):
            here = species.codes == code
            whole = np.array_equal(kept[cell][here], full[cell][here])
            too_long_alone = full[cell][here].sum() + 3 > max_tokens
            assert whole or not kept[cell][here].any() or too_long_alone
        sentence = written.tokens[cell][: written.lengths[cell]]
        assert sentence[-1] == 2
        assert (sentence == 2).sum() == ((sentence >= 4) & (sentence < 4 + chromosomes)).sum() > 0


def test_a_thousand_scaffolds_never_overflow_the_published_length() -> None:
    species = Species(genes=3000, chromosomes=1092)
    written = species.write(species.cells(20, density=0.9), draws=1024)
    assert written.lengths.max() <= 1536
    assert written.lengths.min() > 1500
    assert (written.left_out > 0).all()


def test_one_chromosome_too_long_by_itself_is_cut_at_its_end() -> None:
    tokens, left_out = arrange(
        np.array([2, 0, 1, 1, 2, 2]), np.array([0]), gene_chromosomes=np.zeros(3, dtype=np.int32), max_tokens=7
    )
    assert tokens.tolist() == [3, 4, 5, 6, 6, 7, 2]
    assert left_out == 2


def test_a_later_chromosome_that_still_fits_is_kept() -> None:
    drawn, codes = np.array([0, 1, 2, 3, 4, 5]), np.array([0, 0, 0, 1, 1, 2], dtype=np.int32)
    tokens, left_out = arrange(drawn, np.array([0, 1, 2]), gene_chromosomes=codes, max_tokens=9)
    assert tokens.tolist() == [3, 4, 7, 8, 9, 2, 6, 12, 2]
    assert left_out == 2


# --- edges ----------------------------------------------------------------------------------------------------------


def test_cells_without_counts_have_no_sentence() -> None:
    species = Species()
    counts = csr_matrix(vstack([csr_matrix((1, 300)), species.cells(1), csr_matrix((1, 300))]))
    written = species.write(counts)
    assert (written.lengths > 0).tolist() == [False, True, False]
    assert not written.tokens[[0, 2]].any()
    assert species.write(csr_matrix((3, 300))).tokens.shape == (3, 0)
    assert species.write(csr_matrix((0, 300))).tokens.shape == (0, 0)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_counts_that_are_none_are_refused_with_their_row(bad: float) -> None:
    species = Species()
    counts = species.cells(3)
    counts.data[counts.indptr[2]] = bad
    with pytest.raises(InputError, match=rf"{bad} found in row 2; a sentence needs counts that are finite"):
        species.write(counts)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"draws": 0}, "draws: 0 found; give a whole number from 1"),
        ({"draws": 1.5}, r"draws: 1\.5 found"),
        ({"max_tokens": 3}, "max_tokens: 3 found; give a whole number from 4"),
        ({"max_tokens": True}, "max_tokens: True found"),
    ],
)
def test_impossible_rules_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SentenceRule(**values)


def test_arrays_that_do_not_fit_together_are_refused() -> None:
    species = Species(genes=4, chromosomes=2)
    species.codes = np.array([0, 0, 1, 1], dtype=np.int32)
    counts = csr_matrix(np.ones((2, 4)))
    unsorted = csr_matrix((np.ones(2), np.array([3, 1]), np.array([0, 2])), shape=(1, 4))
    with pytest.raises(ValueError, match="unsorted or repeated"):
        species.write(unsorted)
    with pytest.raises(ValueError, match="3 columns found; the vocabulary has 4 genes"):
        species.write(csr_matrix(np.ones((2, 3))))
    with pytest.raises(ValueError, match=r"give booleans of shape \(8,\)"):
        species.write(counts, exclude=np.zeros(3, dtype=np.bool_))
    with pytest.raises(ValueError, match="one seed, or one per cell"):
        species.write(counts, seed=np.zeros(3, dtype=np.uint64))
    with pytest.raises(ValueError, match="1 found; the genes lie on 2"):
        write_sentences(counts, species.codes, species.keys, rule=SentenceRule(), n_chromosomes=1)
    with pytest.raises(ValueError, match="genes in rank order"):
        write_sentences(counts, species.codes[::-1], species.keys, rule=SentenceRule())
    with pytest.raises(ValueError, match="name each chromosome drawn once"):
        arrange(np.array([0, 2]), np.array([0]), gene_chromosomes=species.codes)
    with pytest.raises(ValueError, match="ranks from 0 to 4 found; there are 4 genes"):
        arrange(np.array([0, 4]), np.array([0]), gene_chromosomes=species.codes)
