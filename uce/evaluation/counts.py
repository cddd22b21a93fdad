"""Counts of the cells that are judged, and the model made ready for their genes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from uce.cells.counts import Counts, Policy, open_counts
from uce.engines import Reader
from uce.engines import Settings as Computing
from uce.errors import UceError
from uce.evaluation.cells import Cells
from uce.genes.resolver import MIN_SHARE
from uce.jobs import prepare_job
from uce.model.checkpoint import Model

if TYPE_CHECKING:
    from anndata import AnnData

_BLOCK = 1024


@dataclass(frozen=True)
class CountsOptions:
    """Where the counts are and how their genes are read, as for `uce.embed`."""

    species: str | None = None
    gene_column: str | None = None
    min_coverage: float = MIN_SHARE
    layer: str | None = None
    use_raw: bool = False
    counts_policy: Policy = "invert"
    genome: str | None = None


def with_counts(
    data: "str | Path | AnnData",
    cells: Cells,
    model: Model | None,
    computing: Computing | None,
    options: CountsOptions,
    *,
    needed: bool,
) -> Cells:
    """The cells with their counts and, for a model, the reader of their genes."""
    try:
        source = open_counts(
            data, layer=options.layer, use_raw=options.use_raw, policy=options.counts_policy, genome=options.genome
        )
    except UceError as error:
        if model is not None and needed:
            raise
        return replace(cells, why_no_counts=str(error), why_no_reader=str(error))
    with source:
        cells = replace(cells, counts=_read_rows(source, cells.rows))
        if model is None or computing is None:
            return cells
        try:
            return replace(cells, reader=_reader(source, model, computing, options))
        except UceError as error:
            if needed:
                raise
            return replace(cells, why_no_reader=str(error))


def _reader(source: Counts, model: Model, computing: Computing, options: CountsOptions) -> Reader:
    job = prepare_job(
        source,
        model,
        computing,
        counts_policy=options.counts_policy,
        species=options.species,
        species_key=None,
        gene_column=options.gene_column,
        min_coverage=options.min_coverage,
    )
    return next(iter(job.readers.values()))


def _read_rows(source: Counts, rows: NDArray[np.int64]) -> sparse.csr_matrix:
    """Counts of some rows, sorted, read block by block."""
    parts = []
    for start in range(0, source.n_cells, _BLOCK):
        low, high = np.searchsorted(rows, [start, start + _BLOCK])
        if low < high:
            parts.append(source.read(start, start + _BLOCK)[rows[low:high] - start])
    return sparse.vstack(parts, format="csr")
