"""The genes that two data sets share: the same genes, or one-to-one orthologues where the species differ."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from uce.errors import InputError, ModelError
from uce.evaluation.cells import Cells
from uce.evaluation.results import NotPossible
from uce.files import shorten
from uce.genes.collection import load_gene_table
from uce.genes.kinds import BUNDLED_ENCODER, plain_kind
from uce.genes.lookup import name_index
from uce.genes.orthologs import Orthologs
from uce.genes.tables import GeneTable

Key = TypeVar("Key", str, bytes)

# A gene whose vector is a mean of several groups has several relatives; one with a vector of its own has none.
_SINGLE = ("group", "same-symbol")


@dataclass(frozen=True, eq=False)
class SharedGenes:
    """Counts of two data sets in the genes that both have.

    Attributes
    ----------
    first, second
        (cells, genes) CSR float64, columns lined up.
    ids_first, ids_second
        (genes,) ids in the gene table of each species.
    source
        How the pairs were found, in words.
    share_first, share_second
        Share of each side's counts that lies in these genes.
    """

    first: csr_matrix
    second: csr_matrix
    ids_first: NDArray[np.str_]
    ids_second: NDArray[np.str_]
    source: str
    share_first: float
    share_second: float

    def __len__(self) -> int:
        return len(self.ids_first)


def shared_genes(first: Cells, second: Cells, orthologs: Orthologs | None = None) -> SharedGenes:
    """Both sides' counts in the genes they share, summed per gene of the tables.

    Parameters
    ----------
    orthologs
        Pairs of genes of the two species, in either order; the one-to-one pairs among them are taken. Without it the
        bundled tables say which genes are orthologues. Not used for two data sets of one species.

    Raises
    ------
    NotPossible
        A side has no counts or its genes are not known; no pairs of these species are known; none was measured in both.
    InputError
        The list of orthologues is not of these species.
    """
    tables = [cells.need_reader().match.table for cells in (first, second)]
    pairs, source = gene_pairs(tables[0], tables[1], orthologs)
    there = [_measured(cells) for cells in (first, second)]
    pairs = pairs[there[0][pairs[:, 0]] & there[1][pairs[:, 1]]]
    if not len(pairs):
        raise NotPossible(f"{first.name} and {second.name} have no gene in common ({source})")
    counts = [_columns(cells, rows) for cells, rows in zip((first, second), pairs.T, strict=True)]
    shares = [
        float(some.sum() / max(1.0, cells.need_counts().sum()))
        for some, cells in zip(counts, (first, second), strict=True)
    ]
    ids = [table.ids[rows] for table, rows in zip(tables, pairs.T, strict=True)]
    return SharedGenes(counts[0], counts[1], ids[0], ids[1], source, shares[0], shares[1])


def gene_pairs(first: GeneTable, second: GeneTable, orthologs: Orthologs | None) -> tuple[NDArray[np.int64], str]:
    """(pairs, 2) rows of the two tables that are one gene or one-to-one orthologues, ascending; and how that is known.

    Raises
    ------
    NotPossible
        The species differ, no list is given, and the bundled tables lack one of them.
    InputError
        The list is not of these species.
    """
    if first.species == second.species:
        pairs = _joined(_owners(first.ids), _owners(second.ids))
        return pairs, f"equal gene ids of {first.species}"
    if orthologs is not None:
        return _listed(first, second, orthologs), "one-to-one pairs of the list given"
    known = [_groups(table) for table in (first, second)]
    return _joined(known[0], known[1]), "one-to-one orthologues of the bundled gene tables"


def _groups(table: GeneTable) -> dict[bytes, int]:
    """Orthogroup -> row of `table`, for groups that one gene of the species alone refers to."""
    if plain_kind(table.encoder) == BUNDLED_ENCODER:
        known = gene_groups(table)
    else:
        try:
            known = gene_groups(load_gene_table(table.species))
        except ModelError as error:
            msg = f"no orthologues of {table.species} are known here. Give a list: --orthologs pairs.csv"
            raise NotPossible(msg) from error
    counted, rows = Counter(known.values()), _owners(table.ids)
    return {group: rows[gene] for gene, group in known.items() if counted[group] == 1 and gene in rows}


def gene_groups(bundled: GeneTable) -> dict[str, bytes]:
    """Gene id -> orthogroup, of the genes of a bundled table that refer to one group alone.

    These tables give orthologues the vector of their group, equal to the bit; so the vector names the group.
    """
    single = np.flatnonzero(np.isin(bundled.origins, _SINGLE)).tolist()
    return {str(bundled.ids[row]): bundled.vectors[row].tobytes() for row in single}


def _owners(ids: NDArray[np.str_]) -> dict[str, int]:
    return {gene: row for row, gene in enumerate(ids.tolist())}


def _joined(first: Mapping[Key, int], second: Mapping[Key, int]) -> NDArray[np.int64]:
    pairs = sorted((row, second[key]) for key, row in first.items() if key in second)
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _listed(first: GeneTable, second: GeneTable, orthologs: Orthologs) -> NDArray[np.int64]:
    """One-to-one pairs of a list, whichever of the two species stands in its first column."""
    found = [_found(one, other, orthologs) for one, other in ((first, second), (second, first))]
    pairs = max(found[0], [(row, other) for other, row in found[1]], key=len)
    times = [Counter(rows) for rows in zip(*pairs, strict=True)] if pairs else []
    single = sorted(pair for pair in pairs if times[0][pair[0]] == times[1][pair[1]] == 1)
    if not single:
        shown = shorten(list(orthologs.relatives))
        species = f"{first.species} with one of {second.species}"
        msg = f"{orthologs.file}: pairs no gene of {species} one to one ({shown}). Give a list of these two species."
        raise InputError(msg)
    return np.array(single, dtype=np.int64)


def _found(one: GeneTable, other: GeneTable, orthologs: Orthologs) -> list[tuple[int, int]]:
    index, others = name_index(one), name_index(other)
    pairs = {
        (index.ids.get(gene, index.symbols.get(gene, -1)), others.ids.get(name, others.symbols.get(name, -1)))
        for gene, relatives in orthologs.relatives.items()
        for name in relatives
    }
    return [pair for pair in pairs if min(pair) >= 0]


def _measured(cells: Cells) -> NDArray[np.bool_]:
    """(rows of the gene table,) whether a column of the file is of that gene."""
    match = cells.need_reader().match
    there = np.zeros(len(match.table), dtype=bool)
    rows = match.resolution.rows
    there[rows[rows >= 0]] = True
    return there


def _columns(cells: Cells, rows: NDArray[np.int64]) -> csr_matrix:
    return cells.ranked[:, cells.need_reader().vocabulary.ranks[rows]]
