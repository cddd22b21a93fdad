"""Proteins with their vectors become a gene table: isoforms are pooled, names and places gathered."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uce.errors import InputError
from uce.genes.annotations.gene import other_names, place_order
from uce.genes.proteins.headers import Protein
from uce.genes.tables import GeneTable

Isoforms = Literal["mean", "longest"]


def table_from_vectors(
    proteins: Sequence[Protein],
    vectors: ArrayLike,
    *,
    species: str,
    encoder: str,
    isoforms: Isoforms = "mean",
    metadata: Mapping[str, str | int | float] | None = None,
) -> GeneTable:
    """A gene table from one vector per protein. The order of the proteins does not matter.

    Genes go by their stable id, or by symbol where there is none. `isoforms` is "mean", the plain mean over a gene's
    proteins added in float64 (as SATURN and UCE did it), or "longest" (of equally long ones the first by id). The
    symbol is that of most proteins; others and their aliases become synonyms. Of several places the one on a chromosome
    wins, then the first base (see `place_order`).

    Parameters
    ----------
    proteins
        Each with a gene or a symbol, as `place_proteins` leaves them.
    vectors
        (proteins, dim), finite.

    Raises
    ------
    InputError
        There is not one vector for every protein.
    ModelError
        A vector is not usable.
    """
    matrix = np.asarray(vectors)
    if matrix.ndim != 2 or len(matrix) != len(proteins):
        msg = f"vectors of shape {matrix.shape} for {len(proteins)} proteins; one row for every protein is needed."
        raise InputError(msg)
    genes: dict[str, list[int]] = {}
    for row in sorted(range(len(proteins)), key=lambda row: (proteins[row].id, proteins[row].sequence)):
        genes.setdefault(proteins[row].gene or proteins[row].symbol, []).append(row)
    members = [[proteins[row] for row in rows] for rows in genes.values()]
    pooled = [_pooled(rows, proteins, isoforms) for rows in genes.values()]
    symbols = [_symbol(gene) for gene in members]
    places = [min(((protein.chromosome, protein.start) for protein in gene), key=place_order) for gene in members]
    return GeneTable.from_rows(
        species=species,
        encoder=encoder,
        ids=list(genes),
        symbols=symbols,
        synonyms=[_synonyms(gene, key, symbol) for gene, key, symbol in zip(members, genes, symbols, strict=True)],
        chromosomes=[chromosome for chromosome, _ in places],
        starts=[start for _, start in places],
        origins=["protein"] * len(genes),
        proteins=[len(rows) for rows in pooled],
        vectors=np.stack([_mean(matrix, rows) for rows in pooled]),
        metadata={"isoforms": isoforms, "proteins": len(proteins), **(metadata or {})},
    )


def _pooled(rows: list[int], proteins: Sequence[Protein], isoforms: Isoforms) -> list[int]:
    """The rows, of those of one gene, whose vectors are averaged."""
    return [max(rows, key=lambda row: len(proteins[row].sequence))] if isoforms == "longest" else rows


def _mean(vectors: NDArray[Any], rows: list[int]) -> NDArray[np.float64]:
    return np.asarray(vectors[rows].mean(axis=0, dtype=np.float64))


def _symbol(gene: Sequence[Protein]) -> str:
    """The symbol most of the gene's proteins have, the first in the alphabet of equals."""
    counts = Counter(protein.symbol for protein in gene if protein.symbol)
    return min(counts, key=lambda symbol: (-counts[symbol], symbol), default="")


def _synonyms(gene: Sequence[Protein], key: str, symbol: str) -> str:
    names = (name for protein in gene for name in (protein.symbol, *protein.aliases))
    return "|".join(other_names(names, key, symbol))
