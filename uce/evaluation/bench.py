"""Some of the judged cells with all that is needed to spoil their counts, embed them again and compare.

Beside the network, the mean of the gene vectors goes through the same: the difference is what the network adds.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from uce.engines import Reader, embed_cells
from uce.evaluation.baselines.mean_genes import gene_vectors, mean_vectors
from uce.evaluation.baselines.variable_genes import VARIABLE_GENES, variable_genes
from uce.evaluation.cells import Cells
from uce.evaluation.context import Context
from uce.evaluation.results import NAN, NotPossible
from uce.evaluation.robustness import NEIGHBORS, Floats, Placement, Reference, compare, place
from uce.evaluation.spoiling import add_soup, chosen, keep_genes, thin
from uce.evaluation.subsamples import stratified
from uce.genes.vocabulary import to_ranks

THINNING = (75, 50, 25, 10, 5)  # % of the counts that are kept
PANELS = (5000, 2000, 1000, 500)  # genes drawn at random
DROPOUT = (1, 5, 10, 30)  # % of the expressed genes that are lost
IMAGING = 377  # genes of Xenium's human multi-tissue panel
SOUP = 10  # % of the counts that come from other cells
DRAWS = 5  # of the genes of every cell
_LEAST_CELLS = 30

Point = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Bench:
    """Cells as they were before anything was done to them.

    Attributes
    ----------
    context, cells
        What they are part of, and themselves; all have counts of known genes.
    genes
        Columns of the counts that are genes of the table.
    reference, before
        By the model: what spoiled cells are compared with, and where the cells stand in it unspoiled.
    means, means_before
        The same by the mean of the gene vectors.
    """

    context: Context
    cells: Cells
    genes: NDArray[np.int64]
    reference: Reference
    before: Placement
    means: Reference
    means_before: Placement

    @property
    def counts(self) -> csr_matrix:
        """(cells, columns)."""
        return self.cells.need_counts()

    @property
    def reader(self) -> Reader:
        """The model made ready for these columns."""
        return self.cells.need_reader()

    def rng(self, *words: int) -> np.random.Generator:
        """A generator of its own for every use."""
        return self.context.rng(7, *words)

    def point(self, level: int, counts: csr_matrix) -> Point:
        """A point of a curve: what `compare` finds of the model, and as `mean_genes_...` of the mean gene vectors."""
        found = compare(place(self.embed(counts), self.reference), self.before, self.reference)
        beside = compare(place(_means(counts, self.cells), self.means), self.means_before, self.means)
        kept = counts[:, self.genes].sum() / self.counts[:, self.genes].sum()
        means = {f"mean_genes_{name}": beside[name] for name in ("cosine", "overlap", "accuracy")}
        return {"level": level, **found, **means, "counts_kept": float(kept), "note": ""}

    def embed(self, counts: csr_matrix, *, draw: int = 0) -> Floats:
        """(cells, dim) vectors, under the given draw of the genes of every cell."""
        return embed_cells(counts, self.reader, first_replicate=draw * self.reader.settings.replicates).vectors


def make_bench(context: Context) -> Bench:
    """Choose cells, stratified by label, and embed them.

    Raises
    ------
    NotPossible
        There are no counts, no model, or too few cells that it can read.
    """
    everything = context.cells
    everything.need_counts()
    readable = np.flatnonzero(np.diff(everything.ranked.indptr) > 0)
    if len(readable) < _LEAST_CELLS:
        raise NotPossible(f"{len(readable)} cells with counts of known genes; {_LEAST_CELLS} or more are needed")
    labels, size = everything.labels[readable], context.settings.robustness_cells
    drawn = stratified(labels, np.full(len(labels), ""), size, context.rng(7, 0), least=NEIGHBORS)
    cells = everything.take(readable[drawn])
    groups = cells.groups if cells.groups is not None and len(np.unique(cells.groups)) > 1 else None
    counts, reader = cells.need_counts(), cells.need_reader()
    reference = Reference(embed_cells(counts, reader).vectors, cells.labels, groups)
    means = Reference(_means(counts, cells), cells.labels, groups)
    genes = np.flatnonzero(reader.match.resolution.rows >= 0)
    before, means_before = place(reference.vectors, reference), place(means.vectors, means)
    return Bench(context, cells, genes, reference, before, means, means_before)


def _means(counts: csr_matrix, cells: Cells) -> Floats:
    reader = cells.need_reader()
    return mean_vectors(to_ranks(counts, reader.match.resolution.rows, reader.vocabulary), gene_vectors(cells))


def thinning(bench: Bench) -> list[Point]:
    """Fewer counts, as of shallower sequencing."""
    return [bench.point(kept, thin(bench.counts, kept / 100, bench.rng(1, kept))) for kept in THINNING]


def panels(bench: Bench) -> list[Point]:
    """Fewer genes measured, drawn at random; those of a small panel are part of every larger one."""
    order = bench.rng(2).permutation(bench.genes)
    return [_panel(bench, size, order[:size], needed=size) for size in PANELS]


def imaging(bench: Bench) -> Point:
    """The most variable genes alone, as many as an imaging panel has."""
    return _panel(bench, IMAGING, _variable(bench, IMAGING), needed=IMAGING)


def without_variable(bench: Bench) -> Point:
    """Every gene but the most variable ones."""
    genes = np.setdiff1d(bench.genes, _variable(bench, VARIABLE_GENES))
    return _panel(bench, len(genes), genes, needed=VARIABLE_GENES)


def _variable(bench: Bench, n: int) -> NDArray[np.int64]:
    return bench.genes[variable_genes(bench.cells.log_counts[:, bench.genes], n)]


def _panel(bench: Bench, level: int, genes: NDArray[np.int64], *, needed: int) -> Point:
    if len(bench.genes) <= needed:
        note = f"needs more than {needed:,} known genes, these cells have {len(bench.genes):,}"
        return {"level": level, "cosine": NAN, "overlap": NAN, "accuracy": NAN, "note": note}
    return bench.point(level, keep_genes(bench.counts, chosen(genes, bench.counts.shape[1])))


def dropout(bench: Bench) -> list[Point]:
    """Genes lost, as of symbols that nothing could resolve; those lost first are lost at every further level."""
    seen = np.asarray(bench.counts.sum(axis=0)).ravel() > 0
    order = bench.rng(3).permutation(bench.genes[seen[bench.genes]])
    lost = [chosen(order[: round(len(order) * share / 100)], len(seen)) for share in DROPOUT]
    return [bench.point(share, keep_genes(bench.counts, ~mask)) for share, mask in zip(DROPOUT, lost, strict=True)]


def soup(bench: Bench) -> Point:
    """A share of the counts of every cell is ambient RNA."""
    return bench.point(SOUP, add_soup(bench.counts, SOUP / 100, bench.rng(4)))


def draws(bench: Bench) -> list[Placement]:
    """The same cells under independent draws of their genes, the first as they were embedded."""
    others = [place(bench.embed(bench.counts, draw=draw), bench.reference) for draw in range(1, DRAWS)]
    return [bench.before, *others]
