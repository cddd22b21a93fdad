"""Which cell comes when: sample i is a pure function of (seed, i), so no process or worker holds a state."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

# What a stream of random words is used for; two uses never share words.
DATASET, CELL, SENTENCE, THIN, HIDE, ASK, DROPOUT = range(7)


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
    key = words(seed, use, np.array([2 * index, 2 * index + 1]))
    return np.random.Generator(np.random.Philox(key=key))


def samples_of_step(
    seed: int, step: int, *, batch_size: int, sizes: NDArray[np.int64], balance: float
) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """The batch of a step: all its cells are of one dataset, drawn with replacement.

    Parameters
    ----------
    sizes
        (datasets,) cells of each.
    balance
        A dataset is picked in proportion to its cells to this power.

    Returns
    -------
    dataset, samples, cells
        The dataset's position; (batch_size,) global sample numbers i; (batch_size,) rows within the dataset.
    """
    weights = np.cumsum(sizes.astype(np.float64) ** balance)
    picked = uniforms(seed, DATASET, np.array([step]))[0] * weights[-1]
    # The smallest excess of a rounded product must not point behind the last dataset.
    dataset = min(int(np.searchsorted(weights, picked, side="right")), len(sizes) - 1)
    samples = step * batch_size + np.arange(batch_size)
    cells = (uniforms(seed, CELL, samples) * sizes[dataset]).astype(np.int64)
    return dataset, samples, cells


def _mix(word: Words) -> Words:
    word = word + np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))
