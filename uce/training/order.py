"""Which cell comes when: a pure function of the corpus, the seed and the number of the part. Nobody holds a state.

An update is made of parts, each of cells of one dataset. `Schedule` says which dataset a part is of and how many parts
that dataset had before; `Walk` says which cells come at which place of a dataset's endless sequence. The order of one
dataset does not depend on which others there are. Ranks and workers only choose who computes what.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

# What a stream of random words is used for; two uses never share words.
DATASET, CELL, SENTENCE, THIN, HIDE, ASK, DROPOUT, ROUND, BLOCK = range(9)
BLOCK_CELLS = 64  # neighbours in a store, read together; a chunk on the disk holds as many
ROUND_PARTS = 1024


def words(seed: int, use: int, index: NDArray[np.integer[Any]]) -> Words:
    """(n,) 64 random bits for each of `index`: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), applied three times."""
    state = _mix(np.array([seed % (1 << 64)], dtype=np.uint64))
    state = _mix(state ^ np.uint64(use))
    return _mix(state ^ _mix(np.asarray(index).astype(np.uint64)))


def uniforms(seed: int, use: int, index: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """(n,) numbers in [0, 1), one for each of `index`."""
    fractions: NDArray[np.float64] = (words(seed, use, index) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return fractions


def generator(seed: int, use: int, index: int) -> np.random.Generator:
    """A generator of its own for (seed, use, index), where more than one number is needed."""
    return generators(seed, use, np.array([index]))[0]


def generators(seed: int, use: int, index: NDArray[np.integer[Any]]) -> list[np.random.Generator]:
    """(n,) a generator for each of `index`."""
    keys = words(seed, use, 2 * np.asarray(index)[:, None] + np.arange(2))
    return [np.random.Generator(np.random.Philox(key=key)) for key in keys]


def permutation(seed: int, use: int, start: int, length: int) -> NDArray[np.int64]:
    """(length,) a permutation: random words `start`, `start + 1`, ... sorted."""
    return np.argsort(words(seed, use, start + np.arange(length)), kind="stable")


def dataset_shares(
    cells: NDArray[np.int64],
    weights: NDArray[np.float64],
    species: Sequence[str],
    *,
    balance: float,
    species_balance: float,
) -> NDArray[np.float64]:
    """(datasets,) the share of the parts that each dataset has.

    Parameters
    ----------
    cells, weights, species
        (datasets,) of each.
    balance
        A share is in proportion to the weight times the cells to this power.
    species_balance
        The sums of a species' shares are taken to this power.
    """
    shares = weights * cells.astype(np.float64) ** balance
    _, code = np.unique(np.array(species), return_inverse=True)
    sums = np.bincount(code, weights=shares)
    shares = shares * np.where(sums > 0, sums, 1.0)[code] ** (species_balance - 1)
    normed: NDArray[np.float64] = shares / shares.sum()
    return normed


class Schedule:
    """Which dataset each part is of.

    Parts come in rounds of 1,024; in each round every dataset has its share to within one part (systematic sampling),
    and the parts of a round are shuffled.

    Parameters
    ----------
    shares
        (datasets,) from `dataset_shares`.
    """

    def __init__(self, seed: int, shares: NDArray[np.float64]) -> None:
        self._seed = seed
        edges = np.minimum(np.concatenate([[0.0], np.cumsum(shares)[:-1]]), 1.0)
        self._rest, self._whole = np.modf(edges * ROUND_PARTS)
        self._round = lru_cache(maxsize=4)(self._make_round)

    def at(self, part: int) -> tuple[int, int]:
        """The dataset of a part, and how many parts before it were of that dataset."""
        number, place = divmod(part, ROUND_PARTS)
        picked, before = self._round(number)
        dataset = int(picked[place])
        return dataset, int(before[dataset] + np.count_nonzero(picked[:place] == dataset))

    def turns(self, parts: int) -> NDArray[np.int64]:
        """(datasets,) how many of the first parts are of each."""
        number, place = divmod(parts, ROUND_PARTS)
        picked, before = self._round(number)
        return before + np.bincount(picked[:place], minlength=len(before))

    def _make_round(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The datasets of the parts of a round, and how many parts before it were of each."""
        before, here = self._counts(np.arange(number)), self._counts(np.array([number]))
        in_order = np.repeat(np.arange(len(here)), here)
        return in_order[permutation(self._seed, ROUND, number * ROUND_PARTS, ROUND_PARTS)], before

    def _counts(self, rounds: NDArray[np.int64]) -> NDArray[np.int64]:
        """(datasets,) parts of each in these rounds: points u, u + 1, ... between its edges, u drawn for each round."""
        starts = np.sort(uniforms(self._seed, DATASET, rounds))
        below = len(rounds) * self._whole.astype(np.int64) + np.searchsorted(starts, self._rest)
        counts: NDArray[np.int64] = np.diff(below, append=len(rounds) * ROUND_PARTS)
        return counts


@dataclass(frozen=True)
class Window:
    """Some blocks that are read together, and the order in which their cells come.

    Attributes
    ----------
    blocks
        (blocks, 2) first row of each within its dataset, and the row behind the last.
    order
        (cells,) positions in the joined blocks.
    """

    blocks: NDArray[np.int64]
    order: NDArray[np.int64]

    @property
    def rows(self) -> NDArray[np.int64]:
        """(cells,) rows of the dataset in the order in which they come."""
        joined = np.concatenate([np.arange(start, stop) for start, stop in self.blocks.tolist()])
        return joined[self.order]


class Walk:
    """The endless sequence of the cells of one dataset: pass after pass through all of them, each in another order.

    In a pass the blocks are shuffled, and the cells within a window of so many blocks. As cells are shuffled once when
    a store is written, blocks are random samples of the dataset themselves, and small windows do.

    Parameters
    ----------
    name
        Of the dataset.
    shards
        Cells of each of its shards; a block lies in one of them.
    window
        Blocks that are shuffled together.
    """

    def __init__(self, seed: int, name: str, shards: Sequence[int], *, window: int) -> None:
        key = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")
        self._seed = int(words(seed, DATASET, np.array([key], dtype=np.uint64))[0])
        self._window = window
        ends = np.cumsum(shards)
        starts = [np.arange(end - size, end, BLOCK_CELLS) for size, end in zip(shards, ends.tolist(), strict=True)]
        stops = [np.minimum(first + BLOCK_CELLS, end) for first, end in zip(starts, ends.tolist(), strict=True)]
        self._blocks = np.stack([np.concatenate(starts), np.concatenate(stops)], axis=1).astype(np.int64)
        self.n_cells = int(ends[-1])
        self._pass = lru_cache(maxsize=2)(self._make_pass)

    def pieces(self, first: int, count: int) -> Iterator[tuple[int, int, slice]]:
        """The places `first` to `first + count` of the sequence: pass, window of the pass, and slice of the window."""
        while count:
            number, place = divmod(first, self.n_cells)
            _, ends = self._pass(number)
            window = int(np.searchsorted(ends, place, side="right"))
            start = int(ends[window - 1]) if window else 0
            taken = min(count, int(ends[window]) - place)
            yield number, window, slice(place - start, place - start + taken)
            first, count = first + taken, count - taken

    def window(self, number: int, window: int) -> Window:
        """A window of a pass."""
        order, ends = self._pass(number)
        blocks = self._blocks[order[window * self._window : (window + 1) * self._window]]
        start = int(ends[window - 1]) if window else 0
        return Window(blocks, permutation(self._seed, CELL, number * self.n_cells + start, int(ends[window]) - start))

    def _make_pass(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The blocks in the order of a pass, and how many cells come before the end of each window."""
        order = permutation(self._seed, BLOCK, number * len(self._blocks), len(self._blocks))
        ends = np.cumsum(self._blocks[order, 1] - self._blocks[order, 0])
        last = np.minimum(np.arange(self._window, len(order) + self._window, self._window), len(order)) - 1
        return order, ends[last]


def _mix(word: Words) -> Words:
    word = word + np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))
