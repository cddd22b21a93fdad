"""A corpus as training sees it: the datasets of one split, their cells by rows in the rank order of their genes.

Opening touches no cells: its time grows with the number of files, of which a shard of some 30,000 cells has dozens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from uce.corpus.layout import CorpusIndex, check_tables, read_index
from uce.corpus.shards import ShardReader, read_gene_columns, read_obs_column
from uce.corpus.store import ShardRecord, check_stores, read_record
from uce.errors import InputError, UsageError
from uce.files import nearest, sha256_file, shorten
from uce.genes.collection import load_gene_table
from uce.genes.tables import table_record
from uce.genes.vocabulary import SPECIALS, Vocabulary, build_vocabulary, chromosome_vector, to_ranks

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from uce.training.settings import DataSettings

TableRecord: TypeAlias = dict[str, str | int]
_OPEN_SHARDS = 16  # of each dataset, not all: their row bounds stay in memory
_FACTS = ("species", "licence", "study", "assay", "tissue")


@dataclass(frozen=True, eq=False)
class Dataset:
    """The cells of one dataset that are of one split.

    Attributes
    ----------
    name, species
        As in the corpus; the species by its Latin name.
    shards
        Cells of each shard. Rows are counted through all of them.
    fetch
        (shard, start, stop) to counts (stop - start, genes) CSR, by row of the gene table.
    fetch_genes
        () to what is known of each gene of the table: whether the source has a column for it, and in how many cells of
        these shards it is seen; both (genes,).
    vocabulary
        Of the species.
    facts
        What the card says of it.
    weight
        Of the mixture.
    fetch_labels
        Name of a column of the cells to (cells,), or None.
    """

    name: str
    species: str
    shards: tuple[int, ...]
    fetch: "Callable[[int, int, int], csr_matrix]"
    fetch_genes: "Callable[[], tuple[NDArray[np.bool_], NDArray[np.int64]]]"
    vocabulary: Vocabulary
    facts: dict[str, Any]
    weight: float = 1.0
    fetch_labels: Callable[[str], NDArray[Any] | None] = lambda _column: None

    @property
    def n_cells(self) -> int:
        """Cells of all shards."""
        return sum(self.shards)

    @cached_property
    def measured(self) -> NDArray[np.bool_]:
        """(genes,) in rank order, whether the source has a column for the gene: only then does a zero say something."""
        return self._genes[0]

    @cached_property
    def rates(self) -> NDArray[np.float64]:
        """(genes,) in rank order, share of the cells in which each gene is seen, (seen + 1) / (cells + 2)."""
        rates: NDArray[np.float64] = (self._genes[1] + 1) / (self.n_cells + 2)
        return rates

    @property
    def genes_per_cell(self) -> float:
        """Genes seen in a cell, their mean."""
        return float(self._genes[1].sum() / self.n_cells)

    @cached_property
    def _genes(self) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        measured, seen = self.fetch_genes()
        order = np.argsort(self.vocabulary.ranks)
        return measured[order], seen[order]

    def stored(self, spans: "NDArray[np.int64] | Sequence[tuple[int, int]]") -> "csr_matrix":
        """Counts of spans of rows, one after the other, (cells, genes) CSR by row of the gene table, as stored.

        Parameters
        ----------
        spans
            (spans, 2) first row and row behind the last; each lies in one shard.
        """
        from scipy.sparse import vstack

        parts, ends = [], np.cumsum(self.shards)
        for start, stop in spans:
            shard = int(np.searchsorted(ends, start, side="right"))
            before = int(ends[shard]) - self.shards[shard]
            parts.append(self.fetch(shard, int(start) - before, int(stop) - before))
        return vstack(parts, format="csr")

    def by_rank(self, stored: "csr_matrix") -> "csr_matrix":
        """Stored counts as (cells, genes) CSR float64 in rank order."""
        return to_ranks(stored.astype(np.float64), np.arange(stored.shape[1]), self.vocabulary)

    def labels(self, column: str) -> NDArray[Any] | None:
        """(cells,) a column of the cells, such as cell_type; None where the store has none."""
        return self.fetch_labels(column)

    def codes(self, column: str, classes: tuple[str, ...]) -> NDArray[np.int64]:
        """(cells,) place of each cell's label among `classes`, -1 where it is none of them; read once."""
        key = (column, classes)
        if key not in self._codes:
            labels = self.labels(column)
            names = np.zeros(self.n_cells, np.str_) if labels is None else labels.astype(str)
            places = {label: place for place, label in enumerate(classes)}
            kinds, which = np.unique(names, return_inverse=True)
            self._codes[key] = np.array([places.get(kind, -1) for kind in kinds.tolist()], dtype=np.int64)[which]
        return self._codes[key]

    @cached_property
    def _codes(self) -> dict[tuple[str, tuple[str, ...]], NDArray[np.int64]]:
        return {}


@dataclass(frozen=True, eq=False)
class Corpus:
    """All datasets of a run.

    Attributes
    ----------
    tables
        What the card says of the gene tables, a species each; their vectors are those of the vocabularies.
    specials
        (4, width) vectors of PAD, OPEN, CLOSE and CLS.
    not_read
        Names of the corpus's other datasets.
    gene_encoder
        Kind of the gene vectors.
    sha256
        Of the index, which vouches for all the rest.
    """

    datasets: tuple[Dataset, ...]
    tables: tuple[TableRecord, ...]
    specials: NDArray[np.float32]
    not_read: tuple[str, ...] = ()
    gene_encoder: str = ""
    sha256: str = ""

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(datasets,) cells of each."""
        return np.array([dataset.n_cells for dataset in self.datasets], dtype=np.int64)


def open_corpus(settings: "DataSettings", *, split: str | None = None, beside: Corpus | None = None) -> Corpus:
    """Open the datasets of a split. Labels are not read.

    Parameters
    ----------
    split
        Instead of that of the settings. Where no dataset has cells of it, the corpus has no datasets.
    beside
        Another split of the corpus, whose gene vectors are shared: they may be gigabytes.

    Raises
    ------
    InputError
        There is no corpus, it is not finished, or a file of it is missing or cut short.
    ModelError
        The gene tables at hand are not those it was built with.
    UsageError
        A dataset to leave out is not in it, or none is left to train on.
    """
    index = read_index(settings.corpus)
    if beside is None:
        check_tables(index)
        if problems := check_stores(index):
            msg = f"{problems[0]}. `uce corpus build` mends it."
            raise InputError(msg)
    rows = {row["dataset_id"]: row for row in index.datasets() if row["dataset_id"] in index.stores}
    if strangers := [name for name in settings.leave_out if name not in rows]:
        msg = f"{settings.corpus}: data.leave_out: no dataset {strangers[0]} in it.{nearest(strangers[0], list(rows))}"
        raise UsageError(msg)
    wanted = split or settings.split
    shards = {name: _shards(index, name, wanted) for name in rows}
    used = [name for name in rows if shards[name] and name not in settings.leave_out]
    if split is None and not used:
        splits = shorten(sorted({facts["split"] for name in rows for facts in _records(index, name).values()}))
        msg = f"{settings.corpus}: no dataset is left with split {wanted}; its splits are {splits}."
        raise UsageError(msg)
    encoder = str(index.content["gene_encoder"])
    known = _known(beside)
    species = sorted({rows[name]["species"] for name in used})
    loaded = {name: load_gene_table(name, encoder=encoder) for name in species if name not in known}
    specials = beside.specials if beside else special_vectors(next((table.dim for table in loaded.values()), 1))
    known |= {name: (table_record(table), build_vocabulary(table, specials)) for name, table in loaded.items()}
    return Corpus(
        tuple(_open_dataset(rows[name], shards[name], known[rows[name]["species"]][1]) for name in used),
        tuple(known[name][0] for name in species),
        specials,
        tuple(name for name in rows if name not in used),
        encoder,
        sha256_file(index.folder / "corpus.json"),
    )


def _known(corpus: Corpus | None) -> dict[str, tuple[TableRecord, Vocabulary]]:
    """What is in memory of the gene tables, by species."""
    records = {str(record["species"]): record for record in corpus.tables} if corpus else {}
    return {one.species: (records[one.species], one.vocabulary) for one in corpus.datasets} if corpus else {}


def _records(index: CorpusIndex, name: str) -> dict[str, ShardRecord]:
    record = read_record(index.folder / "data" / name)
    return dict(record["shards"]) if record else {}


def _shards(index: CorpusIndex, name: str, split: str) -> list[tuple[Path, int]]:
    shards = _records(index, name).items()
    return [(index.folder / "data" / name / file, facts["cells"]) for file, facts in shards if facts["split"] == split]


def _open_dataset(row: dict[str, str], shards: list[tuple[Path, int]], vocabulary: Vocabulary) -> Dataset:
    paths, sizes = zip(*shards, strict=True)
    opened = lru_cache(maxsize=_OPEN_SHARDS)(ShardReader)

    def fetch(shard: int, start: int, stop: int) -> "csr_matrix":
        return opened(paths[shard]).read(start, stop)

    def fetch_genes() -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        columns = [read_gene_columns(path) for path in paths]
        return columns[0][0], np.sum([seen for _, seen in columns], axis=0, dtype=np.int64)

    def fetch_labels(column: str) -> NDArray[Any] | None:
        found = [values for path in paths if (values := read_obs_column(path, column)) is not None]
        return np.concatenate(found) if len(found) == len(paths) else None

    return Dataset(
        name=row["dataset_id"],
        species=row["species"],
        shards=sizes,
        fetch=fetch,
        fetch_genes=fetch_genes,
        vocabulary=vocabulary,
        facts={"cells": sum(sizes), **{key: row[key] for key in _FACTS if row.get(key)}},
        weight=float(row["weight"]),
        fetch_labels=fetch_labels,
    )


def special_vectors(dim: int) -> NDArray[np.float32]:
    """(4, dim) vectors of PAD (zeros), OPEN, CLOSE and CLS, drawn by name: every model of this width has the same."""
    vectors = np.zeros((SPECIALS, dim), dtype=np.float32)
    for token, name in enumerate(("open", "close", "cls"), start=1):
        vectors[token] = chromosome_vector("special", name, dim)
    return vectors
