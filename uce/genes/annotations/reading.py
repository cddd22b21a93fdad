"""Annotations of genomes: the genes of a species with names and places, from GTF, GFF3 or a table of genes."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

from uce.errors import InputError
from uce.files import printable
from uce.genes.annotations.delimited import column_names, first_line, read_columns
from uce.genes.annotations.gene import Gene, chromosome_name, other_names, place_level, stable_id, stable_protein
from uce.genes.annotations.gff import Found, read_gff
from uce.genes.annotations.lines import read_lines
from uce.genes.tables import UNPLACED

_KIND = "a GTF, a GFF3 or a table of genes"
_COLUMNS = {  # each by our name, then by BioMart's
    "gene_id": ("gene_id", "gene_stable_id", "ensembl_gene_id"),
    "symbol": ("symbol", "gene_name"),
    "aliases": ("aliases", "gene_synonym"),
    "biotype": ("biotype", "gene_type"),
    "chromosome": ("chromosome", "chromosome/scaffold_name"),
    "start": ("start", "gene_start_(bp)"),
}
_FORM = "gene_id[,symbol,aliases,biotype,chromosome,start]"
_MISSING = frozenset({"", "NA", "NaN"})  # "nan" and "na" are genes of the fly
_ACCESSION = re.compile(r"N[CTW]_\d+\.\d+")


@dataclass(frozen=True)
class Annotation:
    """The genes of a file.

    Attributes
    ----------
    genes
        By id, sorted by id.
    proteins
        Protein id, with and without version -> gene id, from rows of coding regions; empty where the file has none.
    notes
        What the user should know about the file, one clause each.
    file
        Where it is from.
    """

    genes: Mapping[str, Gene]
    proteins: Mapping[str, str]
    notes: tuple[str, ...]
    file: str

    def find(self, name: str) -> Gene | None:
        """The gene of an id, else of a protein, else of a symbol, else of an alias that no other gene has.

        Of several genes with one symbol or alias, that on a chromosome is taken if the others are on scaffolds,
        alternative loci or unplaced (TNF has seven such copies), and that on X if the other is its copy on Y. An alias
        that is a gene's symbol is that gene's.
        """
        if not name:
            return None
        if known := self.genes.get(name) or self.genes.get(stable_id(name)):
            return known
        if owner := self.proteins.get(name) or self.proteins.get(stable_protein(name)):
            return self.genes[owner]
        return self._symbols[name] if name in self._symbols else self._aliases.get(name)

    @cached_property
    def _symbols(self) -> dict[str, Gene | None]:
        return _owners((gene.symbol, gene) for gene in self.genes.values() if gene.symbol)

    @cached_property
    def _aliases(self) -> dict[str, Gene | None]:
        return _owners((alias, gene) for gene in self.genes.values() for alias in gene.aliases)


def _owners(pairs: Iterable[tuple[str, Gene]]) -> dict[str, Gene | None]:
    """Name -> the one gene in the best place that has it, None where there are several."""
    ranks: dict[str, tuple[int, bool]] = {}
    owners: dict[str, Gene | None] = {}
    for name, gene in pairs:
        rank = (place_level(gene.chromosome), gene.chromosome == "Y")
        if name not in ranks or rank < ranks[name]:
            ranks[name], owners[name] = rank, gene
        elif rank == ranks[name] and owners[name] != gene:
            owners[name] = None
    return owners


def read_annotation(path: str | Path) -> Annotation:
    """Read the genes of a GTF, a GFF3 or a table with a column `gene_id`; plain or gzip, told apart by content.

    GTF and GFF3 of Ensembl, GENCODE, RefSeq and files of their form are read line by line. A table (CSV or TSV) may
    have the columns symbol, aliases (joined by "|"), biotype, chromosome and start beside gene_id; others are ignored,
    BioMart's names of columns understood.
    Chromosomes get Ensembl's names (see `chromosome_name`). A gene on several sequences has the place on the chromosome
    before those on scaffolds, alternative loci and patches; copies in the pseudoautosomal region are genes of X.

    Raises
    ------
    InputError
        The file is missing, damaged, of another kind, has no genes, or a row that is none; the message has its line.
    """
    file = str(path)
    proteins: dict[str, str] = {}
    with closing(read_lines(path, _KIND)) as lines:
        numbered = enumerate(lines, start=1)
        first = first_line(numbered)
        if first is None:
            msg = f"{file}: no rows; {_KIND} is needed."
            raise InputError(msg)
        if set(_COLUMNS["gene_id"]) & set(column_names(first[1])):
            found = _read_table(Path(path))
        else:
            found, proteins = read_gff(chain([first], numbered), file)
    if not found.genes:
        msg = f"{file}: no row describes a gene. Give the complete GTF or GFF3 file of the annotation."
        raise InputError(msg)
    genes = dict(sorted(found.genes.items()))
    return Annotation(genes, proteins, tuple(_notes(found)), file)


def _read_table(path: Path) -> Found:
    found = Found()
    for number, fields in read_columns(path, _COLUMNS, needed=1, form=_FORM):
        found.add(_table_row(fields, f"{path}: line {number}"))
    return found


def _table_row(fields: tuple[str, ...], place: str) -> Gene:
    name, *rest = fields
    symbol, aliases, biotype, sequence, start = ("" if text in _MISSING else text for text in rest)
    if name in _MISSING:
        msg = f"{place}: no gene_id. Every gene needs one."
        raise InputError(msg)
    names = other_names(aliases.split("|"), symbol, name)
    if not (sequence and start) or sequence == UNPLACED:
        return Gene(stable_id(name), symbol, names, biotype)
    chromosome = chromosome_name(sequence)
    if chromosome is None:
        msg = f"{place}: {printable(sequence, limit=40)!r} cannot name a chromosome (at most 128 letters that print)."
        raise InputError(msg)
    base = re.fullmatch(r"([1-9]\d{0,11})(?:\.0+)?", start)  # whole numbers beside missing ones are often written 12.0
    if not base:
        msg = f"{place}: start {printable(start)!r} is not a base (counted from 1). Leave it empty where unknown."
        raise InputError(msg)
    return Gene(stable_id(name), symbol, names, biotype, chromosome, int(base[1]))


def _notes(found: Found) -> Iterator[str]:
    if found.sequences:
        one, sequences = next(iter(found.sequences.items()))
        shown = f"{printable(one)} on {printable(', '.join(sorted(sequences)))}"
        yield f"genes on several sequences, placed on the main one: {len(found.sequences):,} ({shown})"
    placed = [gene for gene in found.genes.values() if gene.chromosome != UNPLACED]
    if sum(bool(_ACCESSION.fullmatch(gene.chromosome)) for gene in placed) > len(placed) / 2:
        yield (
            "chromosomes go by accession (NC_...), not by name; RefSeq's GFF3 of the same release has the names, "
            "which chromosomes of other tables go by"
        )
