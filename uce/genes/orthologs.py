"""Gene vectors without proteins: a gene takes the weighted mean of its relatives' vectors in another species' table.

The rule is that of the bundled tables (`uce.genes.bundled`): so a table made here is of the relative's kind, and works
with every model that reads that kind. Kinds are never mixed: what has no relative gets a vector of the same kind or
none.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uce.errors import InputError, ModelError
from uce.files import printable, shorten
from uce.genes.annotations.delimited import read_columns
from uce.genes.annotations.gene import Gene, stable_id
from uce.genes.annotations.overlap import check_overlap, is_coding, unplaced_gene
from uce.genes.annotations.reading import Annotation
from uce.genes.bundled import own_id_vectors, reference_vectors
from uce.genes.kinds import BUNDLED_ENCODER, plain_kind
from uce.genes.lookup import name_index
from uce.genes.names import sole_owners
from uce.genes.tables import GeneTable

FORM = "gene,human_gene[,weight]"
_SPELLINGS = {
    "gene": ("gene", "gene_id", "ensembl_gene_id", "gene_stable_id", "id"),
    "human_gene": (
        *("human_gene", "human_orthologs", "human_ortholog", "human_gene_id", "human_gene_stable_id", "human"),
        *("orthologs", "ortholog", "relative"),
    ),
    "weight": ("weight",),
    "orthology_kind": ("orthology_kind",),
}


@dataclass(frozen=True)
class Orthologs:
    """Which genes of another species a gene is related to.

    Attributes
    ----------
    relatives
        Gene -> its relatives -> their weights; ids or symbols as the list has them, without Ensembl versions.
    file
        Where the list is from, for messages.
    same_symbol
        Genes whose relatives are known by their symbol alone.
    """

    relatives: Mapping[str, Mapping[str, float]]
    file: str
    same_symbol: frozenset[str] = frozenset()


def read_orthologs(path: str | Path) -> Orthologs:
    """Read a list of orthologues: CSV or TSV, plain or gzip, with a header `gene,human_gene[,weight]`.

    A gene may stand in several rows, and a cell may hold several relatives joined by "|". Other usual names of the
    columns are understood ("gene_id", "Gene stable ID", "human_orthologs", "ortholog", ...). Rows without a relative
    are skipped; an equal pair counts once. A column `orthology_kind` that says "same_symbol" is taken over.

    Raises
    ------
    InputError
        The file is missing, damaged or empty; a column is missing, a gene empty, a weight not a positive number, or a
        pair has two weights. The message names the line.
    """
    path = Path(path)
    relatives: dict[str, dict[str, float]] = {}
    same_symbol = set()
    for line, (name, joined, weighted, kind) in read_columns(path, _SPELLINGS, needed=2, form=FORM):
        gene = stable_id(name)
        if not gene:
            msg = f"{path}: line {line}: no gene. Every row needs one; the form is {FORM}."
            raise InputError(msg)
        for relative in filter(None, (stable_id(name.strip()) for name in joined.split("|"))):
            weight = _weight(weighted, f"{path}: line {line}")
            if relatives.setdefault(gene, {}).setdefault(relative, weight) != weight:
                msg = f"{path}: line {line}: {printable(gene)} and {printable(relative)} have two weights. Keep one."
                raise InputError(msg)
            if kind == "same_symbol":
                same_symbol.add(gene)
    if not relatives:
        msg = f"{path}: no gene with a relative. Give rows of the form {FORM}."
        raise InputError(msg)
    return Orthologs(relatives, str(path), frozenset(same_symbol))


def _weight(text: str, place: str) -> float:
    try:
        weight = float(text or 1)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        msg = f"{place}: weight {printable(text)!r} is not a positive number. Leave it empty for 1."
        raise InputError(msg)
    return weight


def orthologs_by_symbol(annotation: Annotation, relative: GeneTable) -> Orthologs:
    """Every protein-coding gene beside the relative's gene of the same symbol, ignoring case, unique in both species.

    Raises
    ------
    InputError
        No symbol is shared.
    """
    ours = sole_owners((gene.symbol.lower(), gene.id) for gene in annotation.genes.values() if is_coding(gene))
    theirs = sole_owners(zip(map(str.lower, relative.symbols.tolist()), relative.ids.tolist(), strict=True))
    pairs = {gene: {theirs[symbol]: 1.0} for symbol, gene in ours.items() if symbol in theirs}
    if not pairs:
        shown = shorten([gene.symbol for gene in annotation.genes.values() if gene.symbol]) or "no symbols at all"
        msg = f"{annotation.file}: no gene has the symbol of a gene of {relative.species} ({shown}). Give --orthologs."
        raise InputError(msg)
    return Orthologs(pairs, annotation.file, frozenset(pairs))


def table_from_orthologs(
    annotation: Annotation | None,
    orthologs: Orthologs,
    relative: GeneTable,
    *,
    species: str,
    metadata: Mapping[str, str | int | float] | None = None,
) -> tuple[GeneTable, tuple[str, ...]]:
    """A table of the relative's kind of vectors, and notes for the user.

    Its genes are those of the list and the protein-coding ones of the annotation; without an annotation they have no
    place. A gene has the weighted mean of its relatives' vectors (origin "group" for one relative, "groups" for
    several, "same-symbol" where only the symbol says so). Relatives whose own vector says nothing do not count. A gene
    left without any has a vector drawn from its id (origin "own-id") where the kind is that of the bundled tables, as
    there, and is left out otherwise.

    Raises
    ------
    InputError
        Under half of the list's genes are in the annotation, or of its relatives in `relative`; or no gene has a
        relative with a vector.
    """
    genes, notes = _related(annotation, orthologs, relative)
    told = [gene for gene, rows in genes if rows]
    if not told:
        msg = f"{orthologs.file}: none of {len(genes):,} genes has a relative with a vector in {relative.species}."
        raise InputError(msg)
    drawn = [gene for gene, rows in genes if not rows and is_coding(gene)]
    vectors = [_means(relative, [rows for _, rows in genes if rows])]
    origins = [_origin(gene, len(rows), orthologs) for gene, rows in genes if rows]
    if drawn and plain_kind(relative.encoder) == BUNDLED_ENCODER:
        vectors.append(own_id_vectors(species, np.array([gene.id for gene in drawn]), relative.dim))
        origins += ["own-id"] * len(drawn)
        told += drawn
        notes += (f"{len(drawn):,} genes without a relative have vectors that say nothing of them",)
    elif drawn:
        notes += (f"{len(drawn):,} genes without a relative are left out",)
    facts = {"pooling": "weighted mean of the relatives' vectors", **_sources(relative), **(metadata or {})}
    table = GeneTable.from_rows(
        species=species,
        encoder=relative.encoder,
        vectors=np.concatenate(vectors),
        origins=origins,
        metadata=facts,
        **_columns(told),
    )
    return table, notes


def borrow(
    table: GeneTable, annotation: Annotation | None, orthologs: Orthologs, relative: GeneTable
) -> tuple[GeneTable, tuple[str, ...]]:
    """`table` with the genes that have no row in it but relatives in another table of the same kind; notes.

    A new row is the weighted mean of the relatives' vectors, has origin "ortholog" and no protein. The rows there were
    stay as they are, bit for bit.

    Raises
    ------
    ModelError
        The two tables are of different kinds of vectors.
    InputError
        The list does not fit the annotation or the relative's table.
    """
    _same_kind(table, relative)
    genes, notes = _related(annotation, orthologs, relative)
    # A table made from proteins without gene ids goes by symbols, and so may the list.
    present = {*table.ids.tolist(), *table.symbols.tolist()} - {""}
    new = [(gene, rows) for gene, rows in genes if rows and not present & {gene.id, gene.symbol}]
    notes += (f"{len(new):,} genes without a protein have the vectors of their relatives in {relative.species}",)
    if not new:
        return table, notes
    added = _columns([gene for gene, _ in new])
    added |= {"projected": np.zeros(len(new), np.bool_), "proteins": np.zeros(len(new), np.int64)}
    added |= {"origins": np.full(len(new), "ortholog"), "vectors": _means(relative, [rows for _, rows in new])}
    facts = {**table.metadata, **_sources(relative), "borrowed_genes": len(new)}
    grown = GeneTable.from_rows(
        species=table.species,
        encoder=table.encoder,
        metadata=facts,
        chromosome_vectors=table.chromosome_vectors,
        **{name: np.concatenate([getattr(table, name), values]) for name, values in added.items()},
    )
    return grown, notes


def _same_kind(table: GeneTable, relative: GeneTable) -> None:
    kinds = [f"{each.encoder}, {each.dim} wide" for each in (table, relative)]
    made = [str(each.metadata.get("encoder_sha256", "")) for each in (table, relative)]
    if all(made):
        kinds = [f"{kind}, weights {digest[:8]}" for kind, digest in zip(kinds, made, strict=True)]
    if kinds[0] != kinds[1]:
        msg = (
            f"vectors of {relative.species} ({kinds[1]}) cannot stand in a table of {table.species} ({kinds[0]}): "
            f"kinds of vectors are never mixed. Make a table of {relative.species} with {table.encoder} first."
        )
        raise ModelError(msg)


def _related(
    annotation: Annotation | None, orthologs: Orthologs, relative: GeneTable
) -> tuple[list[tuple[Gene, dict[int, float]]], tuple[str, ...]]:
    """Genes of the list and the annotation, each with rows of the relative's table that say something; notes."""
    rows, notes = _find_relatives(orthologs, relative)
    genes = {name: annotation.find(name) if annotation else None for name in orthologs.relatives}
    found: dict[str, tuple[Gene, dict[int, float]]] = {}
    if annotation is not None:
        notes += check_overlap(
            [name for name, gene in genes.items() if gene is None],
            len(genes),
            what="genes of the list of orthologues",
            file=orthologs.file,
            other=annotation.file,
            examples=annotation.genes,
        )
        found |= {gene.id: (gene, {}) for gene in annotation.genes.values() if is_coding(gene)}
    informed = relative.origins != "own-id"
    for name, relatives in orthologs.relatives.items():
        gene = genes[name] or unplaced_gene(name)
        weights = found.setdefault(gene.id, (gene, {}))[1]
        for other, weight in relatives.items():
            if other in rows and informed[rows[other]]:
                weights.setdefault(rows[other], weight)
    return list(found.values()), notes


def _find_relatives(orthologs: Orthologs, relative: GeneTable) -> tuple[dict[str, int], tuple[str, ...]]:
    index = name_index(relative)
    names = {name: None for relatives in orthologs.relatives.values() for name in relatives}
    looked = {name: index.ids.get(name, index.symbols.get(name)) for name in names}
    rows = {name: row for name, row in looked.items() if row is not None}
    notes = check_overlap(
        [name for name in names if name not in rows],
        len(names),
        what="relatives",
        file=orthologs.file,
        other=f"the gene table of {relative.species}",
        examples=relative.ids[:5].tolist(),
    )
    return rows, notes


def _means(relative: GeneTable, related: Sequence[Mapping[int, float]]) -> NDArray[np.float32]:
    # Sorted rows: the order of the list must not change the last bits.
    pairs = [sorted(rows.items()) for rows in related]
    rows = np.array([row for gene in pairs for row, _ in gene], dtype=np.int64)
    weights = np.array([weight for gene in pairs for _, weight in gene], dtype=np.float32)
    return reference_vectors(relative.vectors, np.array([len(gene) for gene in pairs]), rows, weights)


def _origin(gene: Gene, relatives: int, orthologs: Orthologs) -> str:
    if gene.id in orthologs.same_symbol:
        return "same-symbol"
    return "group" if relatives == 1 else "groups"


def _columns(genes: Sequence[Gene]) -> dict[str, Any]:
    return {
        "ids": np.array([gene.id for gene in genes], dtype=np.str_),
        "symbols": np.array([gene.symbol for gene in genes], dtype=np.str_),
        "synonyms": np.array(["|".join(gene.aliases) for gene in genes], dtype=np.str_),
        "chromosomes": np.array([gene.chromosome for gene in genes], dtype=np.str_),
        "starts": np.array([gene.start for gene in genes], dtype=np.int64),
    }


def _sources(relative: GeneTable) -> dict[str, str | int | float]:
    return {"relative": relative.species, "relative_sha256": relative.sha256}
