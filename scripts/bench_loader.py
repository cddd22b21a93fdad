"""How quick training reads: cells per second beside other readers, and the start of a corpus of 100 million cells.

    uce corpus build data_manifests/training_cells.csv --folder data -o corpus
    pip install scdataset==0.3.0    # to compare with; without it its rows are left out
    python scripts/bench_loader.py corpus data/cells/human_pbmc_kang.h5ad --out docs/results/loader.json

Readers get the same cells of one dataset: `uce` from the corpus, scDataset and anndata's AnnCollection under a torch
DataLoader from the source file, as it is and again from an uncompressed copy. All shuffle, all hand their counts to the
same tokeniser, all in one process and one thread unless it says otherwise. They take turns within each round, and what
is told is the median of the rounds; a ratio is taken within its round. Files are in the page cache.

The corpus of 100 million cells is an index without data: cells are made when they are read, so what is measured is the
order. Each case has a process of its own.
"""

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from uce.cells.counts import open_counts
from uce.cells.sentences import SentenceRule, write_sentences
from uce.config import read_config
from uce.genes.collection import load_gene_table
from uce.genes.resolver import resolve
from uce.genes.tables import GeneTable, table_record
from uce.genes.vocabulary import build_vocabulary, to_ranks
from uce.training.corpus import Corpus, Dataset, open_corpus, special_vectors
from uce.training.loader import made_ahead
from uce.training.settings import PretrainConfig
from uce.training.stream import Stream

BATCH = 128
WINDOW_BLOCKS, BLOCK_CELLS = 16, 64
CONFIGS = {"uce_mini": 128, "uce_4l": 1024}  # draws of their first updates
SIMULATED = {"10,000 cells": (50, 200), "100 million cells": (500, 200_000), "100 million, one dataset": (1, 10**8)}
FAR_PART = 10**6
Counts = Iterator[csr_matrix]  # batches of 128 cells, for ever


@dataclass(frozen=True)
class Reader:
    """One way to the cells; `take` uses up so many batches of 128."""

    name: str
    take: Callable[[int], object]


def endless(batches: Iterator[object]) -> Callable[[int], object]:
    """Takes the next ones of an endless row."""
    return lambda count: deque(islice(batches, count), maxlen=0)


def configure(name: str, corpus: Path, dataset: str) -> PretrainConfig:
    """A configuration of the repository, for the cells of one dataset of this corpus."""
    path = Path(__file__).parents[1] / "configs" / f"{name}.yaml"
    changes = [f"data.corpus={corpus}", f"batch_size={BATCH}", "accumulate=1", f"data.window={WINDOW_BLOCKS}"]
    config = read_config(PretrainConfig, path, overrides=changes)
    others = [one.name for one in open_corpus(config.data).datasets if one.name != dataset]
    return read_config(PretrainConfig, path, overrides=[*changes, f"data.leave_out={json.dumps(others)}"])


def ours(corpus: Corpus, config: PretrainConfig) -> Counts:
    """Counts in rank order from the corpus, nothing kept in memory from pass to pass."""
    stream = Stream(corpus, config)
    part = 0
    while True:
        yield stream.cells(part).counts
        part += 1


def our_batches(corpus: Corpus, config: PretrainConfig, workers: int) -> Callable[[int], object]:
    """Takes whole batches of the objective, questions and all; nothing is made while others have their turn."""
    stream = Stream(corpus, config)
    first = 0

    def make(part: int) -> object:
        return config.objective.make_batch(stream.cells(part), config, part)

    def take(count: int) -> None:
        nonlocal first
        deque(made_ahead(make, range(first, first + count), workers=workers), maxlen=0)
        first += count

    return take


def by_scdataset(file: Path, rows: np.ndarray, order: Callable[[csr_matrix], csr_matrix]) -> Counts:
    """With scDataset; its buffer has as many cells as our window."""
    import anndata
    from scdataset import BlockShuffling, scDataset

    adata = anndata.read_h5ad(file, backed="r")
    cells = scDataset(
        adata,
        BlockShuffling(block_size=BLOCK_CELLS, indices=rows),
        batch_size=BATCH,
        fetch_factor=WINDOW_BLOCKS * BLOCK_CELLS // BATCH,
        drop_last=True,
        fetch_callback=lambda data, chosen: csr_matrix(data.X[chosen]),
        seed=0,
    )
    while True:
        yield from map(order, cells)


class Rows:
    """What a torch DataLoader reads of an AnnCollection: a batch of random rows at once."""

    def __init__(self, file: Path, rows: np.ndarray) -> None:
        import anndata
        from anndata.experimental import AnnCollection

        self.cells = AnnCollection([anndata.read_h5ad(file, backed="r")], join_vars="inner")
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, chosen: list[int]) -> csr_matrix:
        return csr_matrix(self.cells[np.sort(self.rows[chosen])].X)


def by_anncollection(file: Path, rows: np.ndarray, order: Callable[[csr_matrix], csr_matrix]) -> Counts:
    """With the collection of anndata and the shuffling of torch."""
    import torch

    def whole(batch: csr_matrix) -> csr_matrix:
        return batch

    cells = torch.utils.data.DataLoader(
        Rows(file, rows), batch_size=BATCH, shuffle=True, drop_last=True, collate_fn=whole
    )
    while True:
        yield from map(order, cells)


def tokenised(counts: Counts, dataset: Dataset, draws: int) -> Iterator[object]:
    """The sentences of what a reader reads; the same work for all of them."""
    vocabulary = dataset.vocabulary
    for number, batch in enumerate(counts):
        yield write_sentences(
            batch,
            vocabulary.gene_chromosomes,
            vocabulary.gene_keys,
            rule=SentenceRule(draws=draws, max_tokens=1536),
            seed=number,
            n_chromosomes=len(vocabulary.chromosome_names),
            threads=1,
        )


def readers(corpus: Corpus, config: PretrainConfig, file: Path, plain: Path) -> dict[str, Callable[[], Counts]]:
    """Everybody's counts of the same cells, in rank order."""
    (dataset,) = corpus.datasets
    table = load_gene_table(dataset.species, encoder=corpus.gene_encoder)
    labels = dataset.labels("src_row")
    assert labels is not None, "every store has it"
    rows = np.sort(labels.astype(np.int64))
    with open_counts(file) as counts:
        resolved = resolve(counts.var.index.tolist(), table).rows

    def order(counts: csr_matrix) -> csr_matrix:
        return to_ranks(counts.astype(np.float64), resolved, dataset.vocabulary)

    found: dict[str, Callable[[], Counts]] = {"uce": partial(ours, corpus, config)}
    kinds = {"AnnCollection + DataLoader": by_anncollection}
    if importlib.util.find_spec("scdataset"):
        kinds = {"scDataset": by_scdataset, **kinds}
    for kind, read in kinds.items():
        for place, path in (("source file", file), ("uncompressed", plain)):
            found[f"{kind}, {place}"] = partial(read, path, rows, order)
    return found


def seconds(reader: Reader, batches: int) -> float:
    """For so many batches."""
    began = time.perf_counter()
    reader.take(batches)
    return time.perf_counter() - began


def take_turns(contenders: list[Reader], *, batches: int, rounds: int) -> list[dict[str, object]]:
    """Medians over the rounds: cells per second, and how many times those of the first contender another one's are."""
    for reader in contenders:
        seconds(reader, 2)
    runs = [[seconds(reader, batches) for reader in contenders] for _ in range(rounds)]
    lines = []
    for column, reader in enumerate(contenders):
        ratios = sorted(run[column] / run[0] for run in runs)
        rate = median(batches * BATCH / run[column] for run in runs)
        lines.append(
            {"reader": reader.name, "cells_per_second": rate, "times": median(ratios), "range": [ratios[0], ratios[-1]]}
        )
    return lines


def compare(corpus_folder: Path, file: Path, *, batches: int, rounds: int) -> dict[str, list[dict[str, object]]]:
    """Reading alone, and with sentences or whole batches as two configurations need them."""
    import anndata

    tables = {}
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.h5ad"
        anndata.read_h5ad(file).write_h5ad(plain)
        for name, draws in CONFIGS.items():
            config = configure(name, corpus_folder, file.stem)
            corpus = open_corpus(config.data)
            ways = readers(corpus, config, file, plain)
            if not tables:
                alone = [Reader(way, endless(counts())) for way, counts in ways.items()]
                tables["reading alone"] = take_turns(alone, batches=batches, rounds=rounds)
            fed = [Reader(way, endless(tokenised(counts(), corpus.datasets[0], draws))) for way, counts in ways.items()]
            whole = [
                Reader(
                    f"uce, whole batches, {workers} worker{'s' * (workers != 1)}", our_batches(corpus, config, workers)
                )
                for workers in (0, 1, 2)
            ]
            tables[f"{name}: {draws} draws"] = take_turns([*fed, *whole], batches=batches, rounds=rounds)
    return tables


def simulated_corpus(datasets: int, cells: int) -> Corpus:
    """An index of cells that are not there: 1,000 genes, a hundred of them once in each cell."""
    genes, seen = 1000, 100
    table = GeneTable.from_rows(
        species="homo_sapiens",
        encoder="simulated",
        ids=[f"G{gene:04d}" for gene in range(genes)],
        symbols=[""] * genes,
        vectors=np.ones((genes, 4), dtype=np.float32),
        chromosomes=[str(gene % 20) for gene in range(genes)],
        starts=np.arange(genes),
    )
    specials = special_vectors(4)
    vocabulary = build_vocabulary(table, specials)

    def fetch(_shard: int, start: int, stop: int) -> csr_matrix:
        n = stop - start
        columns = np.tile(np.arange(0, genes, genes // seen, dtype=np.int32), n)
        return csr_matrix((np.ones(n * seen, np.uint16), columns, seen * np.arange(n + 1)), shape=(n, genes))

    def fetch_genes() -> tuple[np.ndarray, np.ndarray]:
        return np.ones(genes, dtype=bool), np.zeros(genes, dtype=np.int64)

    return Corpus(
        tuple(
            Dataset(f"set{number}", "homo_sapiens", (cells,), fetch, fetch_genes, vocabulary, {})
            for number in range(datasets)
        ),
        (table_record(table),),
        specials,
    )


def simulate(datasets: int, cells: int, part: int) -> dict[str, float]:
    """Seconds from the index to the cells of a part, and memory beyond that of Python and its libraries in MB."""
    corpus = simulated_corpus(datasets, cells)
    path = Path(__file__).parents[1] / "configs" / "uce_mini.yaml"
    config = read_config(PretrainConfig, path, overrides=[f"batch_size={BATCH}", "accumulate=1"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    Stream(corpus, config).cells(part)
    took = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": took, "more_mb": (peak - before) / 1024, "peak_mb": peak / 1024}


def simulate_all(rounds: int) -> list[dict[str, object]]:
    """Every simulated corpus, at the first part and far on, each in a process of its own; medians of the rounds."""
    lines: list[dict[str, object]] = []
    for name, (datasets, cells) in SIMULATED.items():
        for part in (0, FAR_PART):
            command = [sys.executable, __file__, "--simulate", str(datasets), str(cells), str(part)]
            runs = [json.loads(subprocess.check_output(command, text=True)) for _ in range(rounds)]
            medians = {key: median(run[key] for run in runs) for key in runs[0]}
            lines.append({"corpus": name, "datasets": datasets, "part": part, **medians})
    return lines


def show(tables: dict[str, list[dict[str, Any]]], starts: list[dict[str, Any]]) -> None:
    """Print what was measured."""
    for name, lines in tables.items():
        print(f"\n{name:44}{'cells/s':>10}{'uce is so many times quicker':>32}")
        for line in lines:
            low, high = line["range"]
            print(
                f"  {line['reader']:42}{line['cells_per_second']:>10,.0f}{line['times']:>14.2f} ({low:.2f}-{high:.2f})"
            )
    print(f"\n{'start':30}{'part':>12}{'seconds':>10}{'MB more':>10}{'MB in all':>12}")
    for line in starts:
        numbers = f"{line['seconds']:>10.3f}{line['more_mb']:>10.0f}{line['peak_mb']:>12.0f}"
        print(f"{line['corpus']:30}{line['part']:>12,}{numbers}")


def draw(tables: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Bars of the rates, a panel for each table."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(tables), figsize=(5.2 * len(tables), 3.4), layout="constrained", squeeze=False)
    for axes, (name, lines) in zip(panels[0], tables.items(), strict=True):
        names = [line["reader"] for line in lines][::-1]
        rates = [line["cells_per_second"] for line in lines][::-1]
        bars = axes.barh(names, rates, color=["#4477aa" if one.startswith("uce") else "#bbbbbb" for one in names])
        axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("cells per second")
        axes.margins(x=0.2)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print, and with --out write the numbers and a picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="?", type=Path, help="folder of uce corpus build")
    parser.add_argument("file", nargs="?", type=Path, help="source file of a dataset of it, named as the dataset is")
    parser.add_argument("--batches", type=int, default=32, help="of 128 cells, in each round (32)")
    parser.add_argument("--rounds", type=int, default=7, help="in which all take turns (7)")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write the numbers there, and a picture beside them")
    parser.add_argument(
        "--simulate", type=int, nargs=3, metavar=("DATASETS", "CELLS", "PART"), help="one start, as JSON"
    )
    args = parser.parse_args()
    if args.simulate:
        print(json.dumps(simulate(*args.simulate)))
        return
    if not args.corpus or not args.file:
        parser.error("name a corpus, and the source file of one of its datasets")
    # First, while this process is small: Linux counts the memory of the parent among the peak of a child.
    starts = simulate_all(min(args.rounds, 3))
    tables = compare(args.corpus, args.file, batches=args.batches, rounds=args.rounds)
    show(tables, starts)
    if args.out:
        args.out.write_text(json.dumps({"readers": tables, "starts": starts}, indent=1) + "\n", encoding="utf-8")
        draw(tables, args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
