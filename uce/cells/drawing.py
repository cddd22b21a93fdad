"""The compiled half of a sentence: keys, uniform numbers, the draw, and the tokens in their order.

Every function here works on one cell at a time and on nothing else, so a sentence cannot depend on the company of its
cell. All compiled functions live in this one file because numba renews its cache when the file of the called function
changes, not when a file it imports from does.

The uniforms come from Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3",
SC 2011), a bijection of 128-bit counters under a 64-bit key. A cell key is 128 bits: one half is Philox's key, the
other fills the upper half of the counter; the lower half holds the block number and what the block is used for.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np
import numpy.typing as npt

from uce.genes.vocabulary import CLOSE, CLS, SPECIALS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Words = npt.NDArray[np.uint64]
_Function = TypeVar("_Function", bound=Callable[..., Any])

_SMALL = 1024  # log1p of whole counts below this is looked up
_DRAWS, _ORDER = np.uint64(0), np.uint64(1)  # what a block of random words is used for
_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


class Rows(NamedTuple):
    """Cells as canonical CSR: (cells + 1,), then three arrays over the non-zeros; `exclude` is empty if nothing is."""

    indptr: Ints
    genes: Codes
    counts: Floats
    exclude: npt.NDArray[np.bool_]


class Genes(NamedTuple):
    """Per rank, the chromosome code and the key of the gene; and how many chromosomes there are."""

    chromosomes: Codes
    keys: Words
    n_chromosomes: int


class Plan(NamedTuple):
    """How many draws, under which seed per cell, and which repetition."""

    draws: int
    seeds: Words
    replicate: np.uint64


class Written(NamedTuple):
    """What the sentences are written into: (cells, room), (cells,), (cells,), all zero before."""

    tokens: Codes
    lengths: Codes
    left_out: Codes


def _compiled(function: _Function) -> _Function:
    """Compile on first call, without the interpreter's lock; keep the result on disk where that is possible."""
    compiled: Any
    try:
        compiled = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache folder can be written
        compiled = numba.njit(nogil=True)(function)
    result: _Function = compiled
    return result


def _inlined(function: _Function) -> _Function:
    """Compile into each caller, so that its loop over cells or draws can be vectorised."""
    compiled: Any = numba.njit(inline="always")(function)
    result: _Function = compiled
    return result


@_inlined
def mix64(word: Any) -> Any:
    """The output of SplitMix64 in state `word` (Steele, Lea and Flood, OOPSLA 2014): a strong 64-bit bijection."""
    word = word + np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@_inlined
def philox(counter: Any, key: Any) -> Any:
    """Philox4x32-10: four random 32-bit words of a counter of four and a key of two, all held in uint64."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (product1 >> _32) ^ c1 ^ k0, product1 & _LOW, (product0 >> _32) ^ c3 ^ k1, product0 & _LOW
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & _LOW, (k1 + np.uint64(0xBB67AE85)) & _LOW
    return c0, c1, c2, c3


@_inlined
def random_words(index: Any, use: Any, key: Any) -> Any:
    """Two random uint64 words: block `index` of a cell's stream for `use`."""
    w0, w1, w2, w3 = philox((index, use, key[1] & _LOW, key[1] >> _32), (key[0] & _LOW, key[0] >> _32))
    return (w0 << _32) | w1, (w2 << _32) | w3


@_compiled
def cell_key(genes: Codes, counts: Floats, gene_keys: Words, seed: Any, replicate: Any) -> Any:
    """Two uint64 words from the set of (gene key, count) of a cell, the seed and the replicate.

    The hashes of the non-zero entries are added modulo 2^64, in two lanes, so their order has no say; zeros do not
    count. Philox under a key made of seed and replicate then scrambles the two sums.
    """
    bits = counts.view(np.uint64)
    first, second = np.uint64(0), np.uint64(0)
    for i in range(len(genes)):
        gene, count = gene_keys[genes[i]], mix64(bits[i])
        if counts[i] != 0.0:
            first += mix64(gene + count)
            second += mix64(gene ^ count)
    word = mix64(mix64(seed) + replicate)
    w0, w1, w2, w3 = philox((first & _LOW, first >> _32, second & _LOW, second >> _32), (word & _LOW, word >> _32))
    return (w0 << _32) | w1, (w2 << _32) | w3


@_compiled
def fill_uniforms(key: Any, uniforms: Floats) -> None:
    """Fill `uniforms`, of even length, with numbers in [0, 1): the upper 53 bits of each word."""
    for i in range(len(uniforms) // 2):
        word0, word1 = random_words(np.uint64(i), _DRAWS, key)
        uniforms[2 * i] = np.float64(word0 >> np.uint64(11)) * 2.0**-53
        uniforms[2 * i + 1] = np.float64(word1 >> np.uint64(11)) * 2.0**-53


@_compiled
def cumulative_weights(counts: Floats, exclude: npt.NDArray[np.bool_], logs: Floats) -> Floats:
    """Running sum of log1p(count), 0 where excluded; `logs` holds log1p(0), log1p(1), ..."""
    cumulative = np.empty(len(counts))
    total = 0.0
    for i in range(len(counts)):
        if len(exclude) == 0 or not exclude[i]:
            whole = np.int64(min(counts[i], np.float64(len(logs))))
            total += logs[whole] if whole < len(logs) and whole == counts[i] else np.log1p(counts[i])
        cumulative[i] = total
    return cumulative


@_compiled
def draw(genes: Codes, cumulative: Floats, uniforms: Floats) -> tuple[Codes, Codes]:
    """The genes drawn, ascending, and how often each: per uniform the first whose running sum exceeds it times total.

    The binary searches of all draws advance together, a step at a time, and without a branch that depends on a random
    number (it would be guessed wrong half of the time): the step is read from a table of two. As no uniform reaches 1,
    no scaled one reaches the total, and genes of weight 0 are never drawn.
    """
    scaled = uniforms * cumulative[-1]
    positions = np.zeros(len(uniforms), dtype=np.uint32)  # unsigned: a signed index may count from the end, which costs
    steps = np.zeros(2, dtype=np.uint32)  # in memory, because compilers turn any arithmetic on a test into a branch
    left = len(genes)
    while left > 1:
        half = left // 2
        steps[1] = half
        for i in range(len(scaled)):
            positions[i] += steps[np.uint64(cumulative[positions[i] + half - 1] <= scaled[i])]
        left -= half
    drawn, repeats = np.empty(len(genes), dtype=np.int32), np.zeros(len(genes), dtype=np.int32)
    for position in positions:
        repeats[position] += 1
    n = 0
    for i in range(len(genes)):
        drawn[n], repeats[n] = genes[i], repeats[i]
        n += repeats[i] > 0
    return drawn[:n], repeats[:n]


@_compiled
def find_chromosomes(drawn: Codes, repeats: Codes, gene_chromosomes: Codes, spans: Ints) -> Ints:
    """The chromosomes drawn, ascending; fills `spans[code]` with (first gene, gene after the last, draws).

    The genes ascend, and with them the codes of their chromosomes.
    """
    found = np.empty(min(len(drawn), len(spans)), dtype=np.int64)
    n, i = 0, 0
    while i < len(drawn):
        code, start, draws = gene_chromosomes[drawn[i]], i, 0
        while i < len(drawn) and gene_chromosomes[drawn[i]] == code:
            draws += repeats[i]
            i += 1
        spans[code] = start, i, draws
        found[n] = code
        n += 1
    return found[:n]


@_compiled
def shuffle_chromosomes(key: Any, found: Ints) -> Ints:
    """The chromosomes of `found` in the order of one random word each, of (cell key, chromosome code)."""
    words = np.empty(len(found), dtype=np.uint64)
    for i in range(len(found)):
        words[i] = random_words(np.uint64(found[i]), _ORDER, key)[0]
    return found[np.argsort(words)]


@_compiled
def place_tokens(drawn: Codes, repeats: Codes, spans: Ints, order: Ints, out: Codes) -> tuple[int, int]:
    """Write CLS and the chromosomes of `order` into `out`; return the length and the number of draws left out.

    A chromosome that no longer fits is left out whole; one that would not fit into an empty sentence either is cut.
    """
    out[0] = CLS
    length, left_out = 1, 0
    for code in order:
        start, stop, draws = spans[code]
        room = len(out) - length - 2  # beside the two tokens of the chromosome itself
        kept = draws
        if draws > room:
            kept = max(room, 0) if draws > len(out) - 3 else 0
        left_out += draws - kept
        if kept == 0:
            continue
        out[length] = SPECIALS + code
        length += 1
        end = length + kept
        for i in range(start, stop):
            for _ in range(min(repeats[i], end - length)):
                out[length] = SPECIALS + len(spans) + drawn[i]
                length += 1
        out[length] = CLOSE
        length += 1
    return length, left_out


@_compiled
def write_rows(part: tuple[int, int], rows: Rows, genes: Genes, plan: Plan, written: Written) -> None:
    """Write the sentences of cells `part[0]` to before `part[1]`; cells without a weight are left as they are."""
    logs = np.array([np.log1p(np.float64(count)) for count in range(_SMALL)])
    uniforms, spans = np.empty(plan.draws + plan.draws % 2), np.empty((genes.n_chromosomes, 3), dtype=np.int64)
    for cell in range(part[0], part[1]):
        a, b = rows.indptr[cell], rows.indptr[cell + 1]
        present, counts = rows.genes[a:b], rows.counts[a:b]
        cumulative = cumulative_weights(counts, rows.exclude[a:b], logs)
        if len(cumulative) == 0 or cumulative[-1] == 0.0:
            continue
        key = cell_key(present, counts, genes.keys, plan.seeds[cell], plan.replicate)
        fill_uniforms(key, uniforms)
        drawn, repeats = draw(present, cumulative, uniforms[: plan.draws])
        order = shuffle_chromosomes(key, find_chromosomes(drawn, repeats, genes.chromosomes, spans))
        length, left_out = place_tokens(drawn, repeats, spans, order, written.tokens[cell])
        written.lengths[cell], written.left_out[cell] = length, left_out


@_compiled
def key_rows(rows: Rows, gene_keys: Words, seeds: Words, replicate: Any, keys: Words) -> None:
    """Write the key of every cell into `keys`, (cells, 2)."""
    for cell in range(len(keys)):
        a, b = rows.indptr[cell], rows.indptr[cell + 1]
        keys[cell] = cell_key(rows.genes[a:b], rows.counts[a:b], gene_keys, seeds[cell], replicate)
