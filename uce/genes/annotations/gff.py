"""Rows of GTF and GFF3 files, of Ensembl, GENCODE, RefSeq and their like: genes, their places, their proteins."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

from uce.errors import InputError
from uce.files import printable
from uce.genes.annotations.gene import (
    Gene,
    chromosome_name,
    other_names,
    place_order,
    stable_id,
    stable_protein,
    symbol_or_none,
)

Facts = dict[str, list[str]]

# Rows under a transcript that say nothing more about its gene; most of a file.
_LEAVES = frozenset(
    {"exon", "five_prime_UTR", "three_prime_UTR", "UTR", "start_codon", "stop_codon", "intron", "five_prime_utr"}
    | {"three_prime_utr", "Selenocysteine", "stop_codon_redefined_as_selenocysteine"}
)
_GTF_PAIR = re.compile(r'(\w+)\s+"([^"]*)"')
_ID_PREFIX = re.compile(r"gene[:-]", flags=re.IGNORECASE)
_SYNONYMS = ("gene_synonym", "Alias", "hgnc_id", "mgi_id", "locus_tag")
_REFERENCES = ("Dbxref", "db_xref", "dbxref")
_MOST_DIGITS = 12  # of a position; the longest chromosomes have ten
_DEEPEST = 6  # rows from a coding region up to its gene


@dataclass
class Found:
    """Genes by id, as rows are read; `sequences` has the chromosomes of genes that stand on several."""

    genes: dict[str, Gene] = field(default_factory=dict)
    sequences: dict[str, set[str]] = field(default_factory=dict)

    def add(self, gene: Gene) -> None:
        """Take a gene, or another place of it: the better place wins (see `place_order`), names are joined."""
        known = self.genes.setdefault(gene.id, gene)
        if known is gene or known == gene:
            return
        if known.chromosome != gene.chromosome:
            self.sequences.setdefault(gene.id, {known.chromosome}).add(gene.chromosome)
        best, other = (gene, known) if place_order(gene.place) < place_order(known.place) else (known, gene)
        aliases = other_names((*best.aliases, other.symbol, *other.aliases), best.symbol, best.id)
        self.genes[gene.id] = replace(best, symbol=best.symbol or other.symbol, aliases=aliases)


class _Reading:
    """What the rows read so far have said."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.found = Found()  # from rows of genes
        self.implied = Found()  # from rows of transcripts, exons and coding regions, for files without rows of genes
        self.chromosomes: dict[str, str] = {}  # first column -> name
        self.above: dict[str, str] = {}  # ID of a row -> that of the row above it, or the id of its gene
        self.coding: dict[str, Sequence[str]] = {}  # protein -> names that lead to its gene, best first
        self.references: dict[str, str] = {}  # NCBI's GeneID -> id: copies of a gene (PAR, alternative loci) share it

    def take(self, line: str, number: int) -> None:
        row = _columns(line, f"{self.file}: line {number}")
        kind, text = row[2], row[8]
        is_gene = kind in ("gene", "pseudogene") or kind.endswith("_gene")
        if kind == "region":
            self._region(row[0], _facts(text))
        elif is_gene or kind == "CDS":
            facts = _facts(text)
            if kind == "CDS":
                self._coding_region(facts)
            self._gene(row, facts, number, self.found if is_gene else self.implied)
        elif not self.found.genes:
            facts = _facts(text)
            self._link(facts)
            self._gene(row, facts, number, self.implied)
        elif kind not in _LEAVES and "Parent=" in text:
            self._link(_facts(text))

    def _gene(self, row: Sequence[str], facts: Facts, number: int, found: Found) -> None:
        is_gene = found is self.found
        if not is_gene and self.found.genes:
            return
        raw = _one(facts, "ID")
        name = _one(facts, "gene_id") or (_ID_PREFIX.sub("", raw, count=1) if is_gene else _one(facts, "gene"))
        if not name:
            return
        symbol = symbol_or_none(_one(facts, "gene_name") or _one(facts, "gene") or (_label(facts) if is_gene else ""))
        gene_id = stable_id(name)
        references = _cross_references(facts)
        if ncbi := next((one for one in references if one.startswith("GeneID:")), ""):
            gene_id = self.references.setdefault(ncbi, gene_id)
        self.above |= {key: gene_id for key in (raw, name) if key and is_gene}
        synonyms = [name for key in _SYNONYMS for name in facts.get(key, ())]
        found.add(
            Gene(
                gene_id,
                symbol,
                other_names((*synonyms, *references), symbol, gene_id) if is_gene else (),
                _one(facts, "gene_biotype") or _one(facts, "gene_type") or _one(facts, "biotype"),
                self._chromosome(row[0], number),
                int(row[3]),
            )
        )

    def _chromosome(self, sequence: str, number: int) -> str:
        if (known := self.chromosomes.get(sequence)) is not None:
            return known
        name = chromosome_name(unquote(sequence))
        if name is None:
            shown = printable(sequence, limit=40)
            msg = f"{self.file}: line {number}: {shown!r} cannot name a chromosome (at most 128 letters that print)."
            raise InputError(msg)
        return self.chromosomes.setdefault(sequence, name)

    def _region(self, sequence: str, facts: Facts) -> None:
        """RefSeq names sequences by accession; the row of the whole sequence says which chromosome it is."""
        genome = _one(facts, "genome")
        called = _one(facts, "chromosome") or _one(facts, "linkage-group")
        name = "MT" if genome == "mitochondrion" else chromosome_name(called) if genome == "chromosome" else None
        if name:
            self.chromosomes.setdefault(sequence, name)

    def _link(self, facts: Facts) -> None:
        if "ID" in facts and "Parent" in facts:
            self.above[_one(facts, "ID")] = facts["Parent"][0]

    def _coding_region(self, facts: Facts) -> None:
        protein = _one(facts, "protein_id")
        if protein and protein not in self.coding:
            upwards = (_one(facts, "gene_id"), *facts.get("Parent", ()), _one(facts, "gene"))
            self.coding[protein] = tuple(filter(None, upwards))

    def proteins(self, genes: Iterable[str]) -> dict[str, str]:
        """Protein id, with and without version -> gene id."""
        known = set(genes)
        owners = {protein: self._owner(names, known) for protein, names in self.coding.items()}
        named = {protein: owner for protein, owner in owners.items() if owner}
        return {stable_protein(protein): owner for protein, owner in named.items()} | named

    def _owner(self, names: Sequence[str], genes: set[str]) -> str:
        for name in names:
            for _ in range(_DEEPEST):
                if stable_id(name) in genes:
                    return stable_id(name)
                name = self.above.get(name, "")  # noqa: PLW2901
        return ""


def read_gff(rows: Iterator[tuple[int, str]], file: str) -> tuple[Found, dict[str, str]]:
    """Genes, and the gene of every protein of a coding region, from numbered lines of a GTF or GFF3 file.

    Rows of genes count; where a file has none, genes begin at the first base of their transcripts, exons and coding
    regions. Memory grows with genes, transcripts and proteins, not with rows.

    Raises
    ------
    InputError
        A row has not nine columns, its coordinates are no range, or its chromosome cannot be named so.
    """
    reading = _Reading(file)
    for number, line in rows:
        if line.startswith("##FASTA"):
            break
        if not line.startswith("#") and not line.isspace():
            reading.take(line, number)
    found = reading.found if reading.found.genes else reading.implied
    return found, reading.proteins(found.genes)


def _columns(line: str, place: str) -> list[str]:
    row = line.rstrip("\n").split("\t")
    if len(row) != 9:
        bed = len(row) > 2 and row[1].isdecimal() and row[2].isdecimal()
        kind = ", a BED file by its look" if bed else ""
        shown = printable(line.strip(), limit=40)
        msg = f"{place}: {len(row)} columns instead of 9{kind} ({shown}). Give GTF, GFF3, or CSV with a column gene_id."
        raise InputError(msg)
    whole = row[3].isdecimal() and row[4].isdecimal() and len(row[4]) <= _MOST_DIGITS
    if not (whole and 1 <= int(row[3]) <= int(row[4])):
        ends = printable(f"{row[3]} to {row[4]}", limit=40)
        msg = f"{place}: {ends} is no range of bases (start and end, from 1). Give the GTF or GFF3 of the annotation."
        raise InputError(msg)
    return row


def _facts(text: str) -> Facts:
    """The ninth column: key -> values, in order."""
    facts: Facts = {}
    if pairs := _GTF_PAIR.findall(text):
        for key, value in pairs:
            facts.setdefault(key, []).append(value)
        return facts
    for part in text.split(";"):
        key, equals, values = part.strip().partition("=")
        if equals:
            facts.setdefault(key, []).extend(unquote(value) for value in values.split(","))
    return facts


def _one(facts: Facts, key: str) -> str:
    return ",".join(facts[key]) if key in facts else ""


def _label(facts: Facts) -> str:
    """GFF3's `Name`, where it is more than the id again."""
    label = _one(facts, "Name")
    return "" if label in (_one(facts, "gene_id"), _ID_PREFIX.sub("", _one(facts, "ID"), count=1)) else label


def _cross_references(facts: Facts) -> list[str]:
    """Ids of the gene in other databases: "GeneID:7157", "HGNC:11998", "WBGene00022277".

    A bare number could be anything, so NCBI's keep their word before them and those of others are left out.
    """
    found = []
    for reference in (one for key in _REFERENCES for one in facts.get(key, ())):
        database, _, name = reference.partition(":")
        if database == "GeneID":
            found.append(reference)
        elif name and not name.isdecimal():
            found.append(stable_id(name))
    return found
