"""Training cells in memory: the sets of a manifest as sparse counts in the rank order of their species' genes."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from uce.cells.counts import open_counts
from uce.errors import InputError
from uce.genes.catalogue import canonical_species
from uce.genes.collection import load_gene_table
from uce.genes.resolver import choose_column, names_in, resolve
from uce.genes.tables import GeneTable
from uce.genes.vocabulary import SPECIALS, Vocabulary, build_vocabulary, chromosome_vector, to_ranks
from uce.training.manifest import check_file, read_manifest

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from uce.training.settings import DataSettings

_BLOCK = 4096
_FACTS = ("licence", "accession", "paper", "technology", "tissue")


@dataclass(frozen=True, eq=False)
class Dataset:
    """The cells of one file.

    Attributes
    ----------
    name, species
        As in the manifest; the species by its Latin name.
    counts
        (cells, genes) CSR in rank order, whole numbers; every cell has a count.
    measured
        (genes,) whether the file has a column for the gene: only then does a zero say something.
    vocabulary
        Of the species.
    facts
        What the card says of it.
    """

    name: str
    species: str
    counts: "csr_matrix"
    measured: NDArray[np.bool_]
    vocabulary: Vocabulary
    facts: dict[str, Any]

    @cached_property
    def rates(self) -> NDArray[np.float64]:
        """(genes,) share of the cells in which each gene is seen, (seen + 1) / (cells + 2)."""
        seen = np.bincount(self.counts.indices, minlength=self.counts.shape[1])
        rates: NDArray[np.float64] = (seen + 1) / (self.counts.shape[0] + 2)
        return rates

    @cached_property
    def depths(self) -> NDArray[np.float64]:
        """(cells,) log of the counts of each cell."""
        depths: NDArray[np.float64] = np.log(np.asarray(self.counts.sum(axis=1)).ravel())
        return depths


@dataclass(frozen=True, eq=False)
class Corpus:
    """All datasets of a run, the gene tables they were read through, and the names of the manifest's other datasets."""

    datasets: tuple[Dataset, ...]
    tables: tuple[GeneTable, ...]
    specials: NDArray[np.float32]
    not_read: tuple[str, ...] = ()

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(datasets,) cells of each."""
        return np.array([dataset.counts.shape[0] for dataset in self.datasets], dtype=np.int64)


def read_corpus(settings: "DataSettings") -> Corpus:
    """Read every dataset of a manifest that has one of the roles asked for. Labels are not read.

    Parameters
    ----------
    settings
        Manifest (CSV with the columns dataset, file, species, role; where there is a column sha256, the files are
        checked against it), folder of its files, roles, datasets to leave out, kind of gene vectors.

    Raises
    ------
    UsageError
        The manifest is missing, has other columns, or no row is left; a dataset to leave out is not in it.
    InputError
        A file is missing, changed, or cannot be read as counts.
    ModelError
        There is no gene table of this kind for a species.
    """
    rows, not_read = read_manifest(settings)
    species = sorted({canonical_species(name) for name in rows["species"]})
    tables = {name: load_gene_table(name, encoder=settings.gene_encoder) for name in species}
    specials = special_vectors(next(iter(tables.values())).dim)
    vocabularies = {name: build_vocabulary(table, specials) for name, table in tables.items()}
    datasets = []
    for row in rows.to_dict("records"):
        name = canonical_species(row["species"])
        path = Path(settings.folder) / row["file"]
        check_file(path, row.get("sha256", ""))
        facts = {key: row[key] for key in _FACTS if row.get(key)}
        datasets.append(read_dataset(path, tables[name], vocabularies[name], name=row["dataset"], facts=facts))
    return Corpus(tuple(datasets), tuple(tables.values()), specials, not_read)


def read_dataset(
    path: str | Path, table: GeneTable, vocabulary: Vocabulary, *, name: str, facts: dict[str, Any] | None = None
) -> Dataset:
    """Read the counts of one file into memory, in rank order; cells without a resolved count are left out.

    Raises
    ------
    InputError
        The file cannot be read as counts, or no cell has a gene of the table.
    """
    from scipy.sparse import vstack

    with open_counts(path) as source:
        column = choose_column(source.var, table, column=None, file=source.file)
        rows = resolve(names_in(source.var, column), table, column=column, file=source.file).rows
        blocks = [
            to_ranks(source.read(start, min(start + _BLOCK, source.n_cells)), rows, vocabulary)
            for start in range(0, source.n_cells, _BLOCK)
        ]
    counts = vstack(blocks, format="csr") if blocks else None
    filled = np.flatnonzero(np.diff(counts.indptr)) if counts is not None else np.array([])
    if counts is None or not len(filled):
        msg = (
            f"{path}: no cell has a count in a gene of the table of {table.species}; check the species in the manifest."
        )
        raise InputError(msg)
    measured = np.zeros(len(table), dtype=bool)
    measured[vocabulary.ranks[rows[rows >= 0]]] = True
    known = {"cells": len(filled), "species": table.species, **(facts or {})}
    return Dataset(name, table.species, counts[filled], measured, vocabulary, known)


def special_vectors(dim: int) -> NDArray[np.float32]:
    """(4, dim) vectors of PAD (zeros), OPEN, CLOSE and CLS, drawn by name: every model of this width has the same."""
    vectors = np.zeros((SPECIALS, dim), dtype=np.float32)
    for token, name in enumerate(("open", "close", "cls"), start=1):
        vectors[token] = chromosome_vector("special", name, dim)
    return vectors
