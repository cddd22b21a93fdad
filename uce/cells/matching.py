"""Which species a source is of, and which of its columns is which gene: what embed, check and training share."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from uce.cells.counts import Counts
from uce.errors import InputError
from uce.files import shorten
from uce.genes.catalogue import canonical_species, find_species
from uce.genes.collection import load_gene_table
from uce.genes.columns import choose_column, names_in
from uce.genes.resolver import MIN_SHARE, Resolution, check_coverage, resolve
from uce.genes.species import confirm_species, detect_species
from uce.genes.tables import GeneTable

_SAMPLE_CELLS = 1024
_SAMPLE_SPOTS = 8


@dataclass(frozen=True)
class Match:
    """The genes of one species in a source.

    Attributes
    ----------
    table, resolution
        The gene table, and the row of it that every column of the source names.
    reason
        How the species was found, in words.
    report
        Every name accounted for, and the share of (sampled) counts covered, see `Resolution.report`.
    warnings
        What looks doubtful though not wrong.
    """

    table: GeneTable
    resolution: Resolution
    reason: str
    report: dict[str, Any]
    warnings: tuple[str, ...]

    @cached_property
    def genes_covered(self) -> float:
        """Share of the names that resolved to a gene of the table."""
        return float(np.mean(self.resolution.rows >= 0)) if len(self.resolution.rows) else 0.0

    def sentence(self) -> str:
        """One line for people."""
        facts = self.report
        column = "the gene names" if facts["column"] == "index" else f"var column {facts['column']!r}"
        return (
            f"species: {self.table.species} ({self.reason}); {facts['resolved']:,} of {facts['names']:,} genes "
            f"resolved by {column}, with {facts['counts_resolved']:.1%} of the counts"
        )


def sample_counts(counts: Counts) -> npt.NDArray[np.float64]:
    """Total counts per column (columns,) over about 1,000 cells from all over the source."""
    each = max(1, min(_SAMPLE_CELLS // _SAMPLE_SPOTS, counts.n_cells))
    totals = np.zeros(len(counts.var))
    for start in np.unique(np.linspace(0, max(0, counts.n_cells - each), num=_SAMPLE_SPOTS).astype(int)):
        block = counts.read(int(start), min(int(start) + each, counts.n_cells))
        totals += np.asarray(block.sum(axis=0), np.float64).ravel()
    return totals


def match_species(
    counts: Counts,
    *,
    species: str | None = None,
    species_key: str | None = None,
    gene_column: str | None = None,
    encoder: str,
    min_coverage: float = MIN_SHARE,
) -> tuple[dict[str, Match], npt.NDArray[np.str_]]:
    """Find the species and the genes of a source.

    Parameters
    ----------
    counts
        The opened source.
    species, species_key
        One species for all cells, or the `obs` column that names each cell's; neither: detected from the names.
    gene_column
        Column of `var` with the names, or None for the best one.
    encoder
        Kind of gene vectors the model reads.
    min_coverage
        Share of the counts that must lie in genes of the table, 0 to 1.

    Returns
    -------
    A match per species present, and the species (a key of it) of every cell, (cells,).

    Raises
    ------
    InputError
        No species explains the names, or too few of them resolve.
    UsageError
        The species is not known.
    """
    if not len(counts.var):
        msg = f"{counts.file}: has no genes (0 columns). Nothing can be embedded."
        raise InputError(msg)
    totals = sample_counts(counts)
    if counts.n_cells and not totals.any():
        msg = f"{counts.file}: every sampled cell is empty ({counts.slot} holds only zeros). Is this the right matrix?"
        raise InputError(msg)
    if species_key is None:
        match = _match(counts, totals, species, gene_column, encoder=encoder, min_coverage=min_coverage)
        return {match.table.species: match}, np.full(counts.n_cells, match.table.species)
    labels = _species_of_cells(counts, species_key)
    kinds = sorted(set(labels.tolist()))
    # Where cells of several species share a matrix, no species explains all of its counts.
    least = min_coverage if len(kinds) == 1 else 0.0
    matches = {name: _match(counts, totals, name, gene_column, encoder=encoder, min_coverage=least) for name in kinds}
    return matches, labels


def _match(
    counts: Counts,
    totals: npt.NDArray[np.float64],
    species: str | None,
    gene_column: str | None,
    *,
    encoder: str,
    min_coverage: float,
) -> Match:
    if species is None:
        found = detect_species(
            counts.var, organism=counts.organism, column=gene_column, file=counts.file, encoder=encoder
        )
        name, reason = found.species, found.reason
    else:
        confirm_species(species, counts.var, column=gene_column, file=counts.file)
        name, reason = species, "as given"
    table = load_gene_table(name, encoder=encoder)
    column = choose_column(counts.var, table, column=gene_column, file=counts.file)
    names = names_in(counts.var, column)
    resolution = resolve(names, table, column=column, file=counts.file)
    warnings = check_coverage(
        resolution,
        names,
        table,
        file=counts.file,
        column_counts=totals if totals.any() and min_coverage > 0 else None,
        min_share=min_coverage,
        cell_names=counts.obs_names[:5000].tolist(),
    )
    if (verdict := table.metadata.get("health", "sound")) != "sound":
        warnings.append(
            f"the gene table of {name} was judged {verdict} when it was made; see `uce species check {name}`"
        )
    return Match(table, resolution, reason, resolution.report(names, totals), tuple(warnings))


def _species_of_cells(counts: Counts, species_key: str) -> npt.NDArray[np.str_]:
    labels = counts.obs_column(species_key)
    known = {str(label): find_species(str(label)) for label in np.unique(labels)}
    strange = [label for label, name in known.items() if name is None]
    if strange:
        msg = (
            f"{counts.file}: obs column {species_key!r} names species that are not known: {shorten(strange)}. "
            f"`uce species list` shows those that are."
        )
        raise InputError(msg)
    return np.array([canonical_species(str(label)) for label in labels], dtype=np.str_)
