"""The cells of any part, the same whoever asks and whatever is in memory; what was read lately is not read again."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import blake2b
from threading import Event, Lock

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from uce.errors import InputError
from uce.training.corpus import Corpus, Dataset
from uce.training.order import ROUND_PARTS
from uce.training.settings import DataSettings, PretrainConfig, RunSettings
from uce.training.stream import Stream

MakeCorpus = Callable[..., Corpus]
MakeConfig = Callable[..., PretrainConfig]
PLENTY = RunSettings(cache_gb=1.0)


class Spied:
    """A dataset that counts what is read of it, may fail, and may wait for a word before it reads."""

    def __init__(self, dataset: Dataset) -> None:
        self.reads: list[tuple[int, int, int]] = []
        self.failing = False
        self.begun, self.go = Event(), Event()
        self.go.set()
        self._fetch, self._lock = dataset.fetch, Lock()
        self.dataset = replace(dataset, fetch=self.fetch)

    def fetch(self, shard: int, start: int, stop: int) -> csr_matrix:
        with self._lock:
            self.reads.append((shard, start, stop))
        self.begun.set()
        self.go.wait()
        if self.failing:
            raise InputError("shard-00000.zarr: a chunk is damaged")
        return self._fetch(shard, start, stop)


def spied(corpus: Corpus) -> tuple[Corpus, list[Spied]]:
    spies = [Spied(dataset) for dataset in corpus.datasets]
    return replace(corpus, datasets=tuple(spy.dataset for spy in spies)), spies


def in_shards(dataset: Dataset, *sizes: int) -> Dataset:
    """The same cells in several shards."""
    begins = np.cumsum([0, *sizes])
    counts = dataset.stored([(0, dataset.n_cells)])
    return replace(
        dataset, shards=sizes, fetch=lambda shard, start, stop: counts[begins[shard] + start : begins[shard] + stop]
    )


def same(first: csr_matrix, second: csr_matrix) -> bool:
    return first.shape == second.shape and (first != second).nnz == 0


def test_counts_are_those_of_the_rows(make_corpus: MakeCorpus, make_config: MakeConfig) -> None:
    corpus = make_corpus(sizes=(400, 100, 3))
    stream = Stream(corpus, make_config(batch_size=48))
    seen = set()
    for part in range(40):
        cells = stream.cells(part)
        everything = cells.dataset.by_rank(cells.dataset.stored([(0, cells.dataset.n_cells)]))
        assert cells.counts.dtype == np.float64
        assert same(cells.counts, everything[cells.rows])
        np.testing.assert_array_equal(cells.samples, part * 48 + np.arange(48))
        np.testing.assert_allclose(np.exp(cells.depths), cells.counts.sum(axis=1).A1)
        seen.add(cells.dataset.name)
    assert seen == {"set0", "set1", "set2"}


def test_all_cells_of_a_dataset_come_once_before_any_comes_again(
    make_corpus: MakeCorpus, make_config: MakeConfig
) -> None:
    stream = Stream(make_corpus(sizes=(400, 100)), make_config(batch_size=50))
    shown: dict[str, list[int]] = {"set0": [], "set1": []}
    for part in range(60):
        cells = stream.cells(part)
        shown[cells.dataset.name] += cells.rows.tolist()
    for name, cells_in_it in (("set0", 400), ("set1", 100)):
        passes = np.array(shown[name])[: len(shown[name]) // cells_in_it * cells_in_it].reshape(-1, cells_in_it)
        assert len(passes) >= 2
        np.testing.assert_array_equal(np.sort(passes, axis=1), np.tile(np.arange(cells_in_it), (len(passes), 1)))


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_processes_share_the_cells_of_a_part_whatever_their_number(
    make_corpus: MakeCorpus, make_config: MakeConfig, world: int
) -> None:
    corpus, config = make_corpus(), make_config(batch_size=48, accumulate=2)
    alone = Stream(corpus, config)
    # Every process has a stream of its own, and hands on its share of what all of them read.
    shares = [[Stream(corpus, config).cells(part).part(rank, world) for rank in range(world)] for part in range(4)]
    for part, shared in enumerate(shares):
        cells = alone.cells(part)
        assert {len(share.samples) for share in shared} == {24 // world}
        assert {share.dataset.name for share in shared} == {cells.dataset.name}
        order = np.argsort(np.concatenate([share.samples for share in shared]))
        np.testing.assert_array_equal(np.concatenate([share.rows for share in shared])[order], cells.rows)
        counts = np.concatenate([share.counts.toarray() for share in shared])[order]
        np.testing.assert_array_equal(counts, cells.counts.toarray())


def test_the_order_of_a_dataset_does_not_depend_on_the_others(make_corpus: MakeCorpus, make_config: MakeConfig) -> None:
    corpus, config = make_corpus(sizes=(400, 100, 70)), make_config()
    alone = Stream(replace(corpus, datasets=corpus.datasets[1:2]), config)
    among = Stream(corpus, config)
    turns = [among.cells(part).rows for part in range(60) if among.schedule.at(part)[0] == 1]
    assert len(turns) > 5
    for turn, rows in enumerate(turns):
        np.testing.assert_array_equal(alone.cells(turn).rows, rows)


def test_the_order_is_that_of_every_earlier_version(make_corpus: MakeCorpus, make_config: MakeConfig) -> None:
    """Frozen: a run that goes on after an update of the package must be shown the cells it would have been shown."""
    corpus = make_corpus(sizes=(500, 70, 1))
    split = replace(corpus, datasets=(in_shards(corpus.datasets[0], 300, 1, 199), *corpus.datasets[1:]))
    stream = Stream(split, make_config(seed=9, batch_size=64, data=DataSettings(corpus="corpus", window=3)))
    digest = blake2b(digest_size=8)
    for part in (0, 1, 2, 3, 700, 10**6):
        cells = stream.cells(part)
        digest.update(cells.dataset.name.encode() + cells.rows.astype("<i8").tobytes())
    assert digest.hexdigest() == "8997b37f858bbced"


def test_shards_change_what_is_read_together_and_nothing_else(make_corpus: MakeCorpus, make_config: MakeConfig) -> None:
    corpus = make_corpus(sizes=(200,))
    corpus = replace(corpus, datasets=(in_shards(corpus.datasets[0], 1, 130, 5, 64),))
    corpus, (spy,) = spied(corpus)
    stream = Stream(corpus, make_config(batch_size=40, data=DataSettings(corpus="corpus", window=2)))
    rows = np.concatenate([stream.cells(part).rows for part in range(5)])
    np.testing.assert_array_equal(np.sort(rows), np.arange(200))
    blocks = [(0, 0, 1), (1, 0, 64), (1, 64, 128), (1, 128, 130), (2, 0, 5), (3, 0, 64)]
    assert sorted(spy.reads) == blocks


def test_the_mixture_is_that_of_the_settings(make_corpus: MakeCorpus, make_config: MakeConfig) -> None:
    corpus = make_corpus(sizes=(400, 100))
    (big, small) = corpus.datasets

    def shares(datasets: tuple[Dataset, ...], **data: float) -> list[float]:
        config = make_config(data=DataSettings(corpus="corpus", **data))
        stream = Stream(replace(corpus, datasets=datasets), config)
        return (stream.schedule.turns(8 * ROUND_PARTS) / (8 * ROUND_PARTS)).tolist()

    close = pytest.approx
    assert shares((big, small), balance=0.5) == close([2 / 3, 1 / 3], abs=1e-3)
    assert shares((big, small), balance=1.0) == close([0.8, 0.2], abs=1e-3)
    assert shares((big, replace(small, weight=4.0)), balance=1.0) == close([0.5, 0.5], abs=1e-3)
    assert shares((big, replace(small, weight=0.0))) == [1, 0]
    mouse = replace(small, species="mus_musculus")
    assert shares((big, mouse), balance=1.0, species_balance=0.0) == close([0.5, 0.5], abs=1e-3)


def test_tiny_datasets_fill_parts_by_coming_again(make_corpus: MakeCorpus, make_config: MakeConfig) -> None:
    for size in (1, 5):
        stream = Stream(make_corpus(sizes=(size,)), make_config(batch_size=12))
        rows = np.concatenate([stream.cells(part).rows for part in range(5)])
        np.testing.assert_array_equal(np.bincount(rows), np.full(size, 60 // size))


def test_threads_that_ask_at_once_get_what_one_gets(make_corpus: MakeCorpus, make_config: MakeConfig) -> None:
    corpus, config = make_corpus(), make_config(run=RunSettings(cache_gb=1e-5))
    expected = [Stream(corpus, config).cells(part) for part in range(30)]
    stream = Stream(corpus, config)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(stream.cells, [*range(30), *range(29, -1, -1)]))
    for cells, wanted in zip(found, [*expected, *expected[::-1]], strict=True):
        np.testing.assert_array_equal(cells.rows, wanted.rows)
        assert same(cells.counts, wanted.counts)


def ask_while_reading(stream: Stream, spy: Spied, threads: int) -> list[object]:
    """What each of several threads gets for part 0, the cells or the error; the first is held while the others come."""

    def ask(_: int) -> object:
        try:
            return stream.cells(0)
        except InputError as error:
            return error

    spy.begun.clear()
    spy.go.clear()
    with ThreadPoolExecutor(threads) as pool:
        asked = [pool.submit(ask, number) for number in range(threads)]
        spy.begun.wait()
        time.sleep(0.05)
        spy.go.set()
        return [answer.result() for answer in asked]


def test_a_window_is_read_once_while_others_wait_for_it(make_corpus: MakeCorpus, make_config: MakeConfig) -> None:
    corpus, (spy,) = spied(make_corpus(sizes=(60,)))
    found = ask_while_reading(Stream(corpus, make_config(run=PLENTY)), spy, 4)
    assert spy.reads == [(0, 0, 60)]
    assert all(same(cells.counts, found[0].counts) for cells in found)


def test_a_failed_reading_is_told_to_all_and_tried_again(make_corpus: MakeCorpus, make_config: MakeConfig) -> None:
    corpus, (spy,) = spied(make_corpus(sizes=(60,)))
    stream = Stream(corpus, make_config(run=PLENTY))
    spy.failing = True
    found = ask_while_reading(stream, spy, 4)
    assert [str(error) for error in found] == ["shard-00000.zarr: a chunk is damaged"] * 4
    assert all(isinstance(error, InputError) for error in found)
    failed = len(spy.reads)
    spy.failing = False
    assert stream.cells(0).counts.shape[0] == 32
    assert len(spy.reads) == failed + 1


def reads_of_two_turns(corpus: Corpus, config: PretrainConfig) -> int:
    """Windows read when a part of each of three small datasets is asked for twice."""
    corpus, spies = spied(corpus)
    stream = Stream(corpus, replace(config, batch_size=20))
    of_each = {stream.schedule.at(part): part for part in range(60)}
    for _ in range(2):
        for dataset in range(3):
            stream.cells(of_each[dataset, 0])
    return sum(len(spy.reads) for spy in spies)


def test_a_dataset_of_a_single_window_is_read_once_however_often_it_is_shown(
    make_corpus: MakeCorpus, make_config: MakeConfig
) -> None:
    """Its passes differ in their order alone, so that a reading for each would fill the memory with the same cells."""
    corpus, spies = spied(make_corpus(sizes=(3, 60)))
    stream = Stream(corpus, make_config(run=PLENTY))
    for part in range(40):
        stream.cells(part)
    assert [len(spy.reads) for spy in spies] == [1, 1]


@pytest.mark.parametrize(("windows", "reads"), [(4, 3), (1.5, 6), (0, 6)])
def test_memory_for_what_was_read_is_limited(
    make_corpus: MakeCorpus, make_config: MakeConfig, windows: float, reads: int
) -> None:
    corpus = make_corpus(sizes=(60, 60, 60))
    counts = corpus.datasets[0].stored([(0, 60)])
    window = counts.data.nbytes + counts.indices.nbytes + counts.indptr.nbytes
    config = make_config(run=RunSettings(cache_gb=windows * window / 1e9))
    assert reads_of_two_turns(corpus, config) == reads
