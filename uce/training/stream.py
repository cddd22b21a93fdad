"""The cells of a part, read from the stores window by window; windows that were read lately stay in memory."""

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property, partial
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from uce.training.corpus import Corpus, Dataset
from uce.training.order import BLOCK_CELLS, Schedule, Walk, dataset_shares

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from uce.training.settings import PretrainConfig

_STORED_BYTES = 6  # of a count in memory: 2 of the number, 4 of the gene
_Key = tuple[int, bytes]  # dataset, first rows of blocks


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells of one dataset, and the sample numbers under which they are shown.

    Attributes
    ----------
    dataset
        Whose cells they are.
    samples
        (B,) sample numbers, unique in a run.
    rows
        (B,) rows of the dataset; in a small one a row may come twice.
    counts
        (B, genes) CSR in rank order.
    """

    dataset: Dataset
    samples: NDArray[np.int64]
    rows: NDArray[np.int64]
    counts: "csr_matrix"

    @cached_property
    def depths(self) -> NDArray[np.float64]:
        """(B,) log of the counts of each cell."""
        depths: NDArray[np.float64] = np.log(np.asarray(self.counts.sum(axis=1)).ravel())
        return depths

    def part(self, rank: int, world: int) -> "Cells":
        """The share of process `rank`: cells rank, rank + world, ..."""
        own = slice(rank, None, world)
        return Cells(self.dataset, self.samples[own], self.rows[own], self.counts[own])


class Stream:
    """The cells of any part of a run, at once. May be asked by several threads.

    Raises
    ------
    InputError
        From `cells`: a store was damaged since the run began.
    """

    def __init__(self, corpus: Corpus, config: "PretrainConfig") -> None:
        data = config.data
        self.corpus, self._size, self._window = corpus, config.part_size, data.window
        self.shares = dataset_shares(
            corpus.sizes,
            np.array([dataset.weight for dataset in corpus.datasets]),
            [dataset.species for dataset in corpus.datasets],
            balance=data.balance,
            species_balance=data.species_balance,
        )
        self.schedule = Schedule(config.seed, self.shares)
        self._walks = [
            Walk(config.seed, dataset.name, dataset.shards, window=data.window) for dataset in corpus.datasets
        ]
        self._windows = _Lately(int(config.run.cache_gb * 1e9))

    def window_bytes(self) -> int:
        """Memory of one window of each dataset, which are open at the same time."""
        cells = np.minimum(self.corpus.sizes, self._window * BLOCK_CELLS)
        genes = np.array([dataset.genes_per_cell for dataset in self.corpus.datasets])
        return int((cells * genes).sum()) * _STORED_BYTES

    def cells(self, part: int) -> Cells:
        """All cells of a part, those of every process."""
        from scipy.sparse import vstack

        number, before = self.schedule.at(part)
        walk, dataset = self._walks[number], self.corpus.datasets[number]
        rows, counts = [], []
        for turn, place, taken in walk.pieces(before * self._size, self._size):
            window = walk.window(turn, place)
            # In the order of the dataset, so that one that is a single window is read once and not in every pass.
            blocks = window.blocks[np.argsort(window.blocks[:, 0])]
            read = self._windows.get((number, blocks[:, 0].tobytes()), partial(dataset.stored, blocks))
            rows.append(window.rows[taken])
            counts.append(read[_places(blocks, rows[-1])])
        return Cells(
            dataset,
            part * self._size + np.arange(self._size),
            np.concatenate(rows),
            dataset.by_rank(vstack(counts, format="csr")),
        )


def _places(blocks: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where rows of a dataset are in its joined blocks, which are in order."""
    starts, sizes = blocks[:, 0], blocks[:, 1] - blocks[:, 0]
    block = np.searchsorted(starts, rows, side="right") - 1
    places: NDArray[np.int64] = (np.cumsum(sizes) - sizes - starts)[block] + rows
    return places


class _Lately:
    """What was read lately, up to a number of bytes; what one thread reads, others wait for."""

    def __init__(self, most: int) -> None:
        self._most, self._held, self._lock = most, 0, Lock()
        self._kept: OrderedDict[_Key, Future[csr_matrix]] = OrderedDict()
        self._sizes: dict[_Key, int] = {}  # of those that have been read

    def get(self, key: _Key, read: "Callable[[], csr_matrix]") -> "csr_matrix":
        with self._lock:
            found = self._kept.get(key)
            mine = found is None
            if found is None:
                found = self._kept[key] = Future()
            self._kept.move_to_end(key)
        if mine:
            try:
                counts = read()
            except BaseException as error:
                with self._lock:
                    del self._kept[key]
                found.set_exception(error)
                raise
            found.set_result(counts)
            self._keep(key, _bytes(counts))
        return found.result()

    def _keep(self, key: _Key, size: int) -> None:
        """Count what was read, and let go of the oldest while there is too much."""
        with self._lock:
            self._sizes[key] = size
            self._held += size
            while self._held > self._most:
                oldest = next(one for one in self._kept if one in self._sizes)
                if oldest == key:
                    return
                del self._kept[oldest]
                self._held -= self._sizes.pop(oldest)


def _bytes(counts: "csr_matrix") -> int:
    return int(counts.data.nbytes + counts.indices.nbytes + counts.indptr.nbytes)
