"""The cells that are judged: their labels, batches and groups, their counts, and the model that reads them."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from uce.engines import Reader
from uce.evaluation.results import NotPossible
from uce.genes.vocabulary import to_ranks

Texts = NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells with a label (and a batch, where batches are asked for), the same for every embedding.

    Attributes
    ----------
    name
        Of the dataset, for titles.
    names
        (cells,) names of the cells, each another.
    labels
        (cells,) what each cell is.
    batches
        (cells,) technical batch of each, or None.
    groups, datasets, assays
        (cells,) independent units that cells come from (donors; studies; technologies), or None. Splits and intervals
        are made of these, never of cells.
    counts
        (cells, columns of the file) CSR float64, or None where the source has no counts.
    reader
        A model made ready for the species and the genes of these counts, or None.
    why_no_counts, why_no_reader
        In words, where they are None.
    rows
        (cells,) position of each cell in the source.
    """

    name: str
    names: NDArray[np.object_]
    labels: Texts
    batches: Texts | None = None
    groups: Texts | None = None
    datasets: Texts | None = None
    assays: Texts | None = None
    counts: csr_matrix | None = None
    reader: Reader | None = None
    why_no_counts: str = "the counts were not read"
    why_no_reader: str = "no model was asked for"
    rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Some of the cells, by position, in the order given."""
        columns = ("names", "labels", "batches", "groups", "datasets", "assays", "counts", "rows")
        return replace(
            self, **{c: value[rows] for c in columns if (value := getattr(self, c)) is not None and value.shape[0]}
        )

    def need_counts(self) -> csr_matrix:
        """The counts.

        Raises
        ------
        NotPossible
            There are none; with the reason.
        """
        if self.counts is None:
            raise NotPossible(f"needs raw counts: {self.why_no_counts}")
        return self.counts

    def need_reader(self) -> Reader:
        """The model made ready for these genes.

        Raises
        ------
        NotPossible
            There is none; with the reason.
        """
        if self.reader is None:
            raise NotPossible(f"needs a model that reads these cells: {self.why_no_reader}")
        return self.reader

    @cached_property
    def ranked(self) -> csr_matrix:
        """(cells, genes of the table) counts in the order of `reader.vocabulary`'s genes.

        Raises
        ------
        NotPossible
            There are no counts or no model.
        """
        reader = self.need_reader()
        return to_ranks(self.need_counts(), reader.match.resolution.rows, reader.vocabulary)

    @cached_property
    def log_counts(self) -> csr_matrix:
        """(cells, columns) log1p of the counts per 10,000 of the cell, float32.

        Raises
        ------
        NotPossible
            There are no counts.
        """
        return log_cp10k(self.need_counts())


def log_cp10k(counts: csr_matrix) -> csr_matrix:
    """(cells, genes) log1p of the counts per 10,000 of the cell, float32; a cell without counts stays empty."""
    depth = np.asarray(counts.sum(axis=1)).ravel()
    scaled = counts.astype(np.float32)
    scaled.data *= np.repeat((1e4 / np.maximum(depth, 1)).astype(np.float32), np.diff(counts.indptr))
    return scaled.log1p()
