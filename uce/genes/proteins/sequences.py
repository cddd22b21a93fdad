"""Proteome files: a FASTA becomes clean proteins, each with its gene; a GTF or GFF3 gives genes their places.

Headers of Ensembl, GENCODE, UniProt, NCBI RefSeq and `>SYMBOL|GENE|ACCESSION|LIST` are told apart record by record.
"""

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from uce.errors import InputError
from uce.files import printable
from uce.genes.tables import UNPLACED

RESIDUES = frozenset("LAGVSERTIDPKQNFYMHWCXBUZO")  # those ESM2 has a token for
_NUCLEOTIDES = frozenset("ACGTUN")


@dataclass(frozen=True)
class Protein:
    """One protein of a proteome file."""

    id: str
    gene: str
    """Stable gene id without version; "" where the header names none."""
    symbol: str
    """Gene symbol; "" where the header names none."""
    sequence: str
    """Upper case, only letters of `RESIDUES`, never empty."""
    chromosome: str = UNPLACED
    start: int = 0
    """First base of the gene, 1-based; 0 where unplaced."""


@dataclass(frozen=True)
class Proteome:
    """The usable proteins of a file in its order, and how many were left out for which reason."""

    proteins: tuple[Protein, ...]
    dropped: dict[str, int]


def read_proteome(path: str | Path) -> Proteome:
    """Read a FASTA file of proteins, plain or gzip.

    Residues are made upper case, a final `*` and gaps are removed, `J` becomes `X`. Proteins with an inner stop (as in
    the published recipe of SATURN and UCE), empty ones, literal repetitions and those without a gene are left out and
    counted.

    Raises
    ------
    InputError
        Not a FASTA file, damaged, nucleotides instead of residues, a letter that is no residue, one id for two
        different proteins, or no protein that names its gene.
    """
    path = Path(path)
    proteins: dict[str, Protein] = {}
    dropped: Counter[str] = Counter()
    letters: Counter[str] = Counter()
    for number, (header, text) in enumerate(_records(path), start=1):
        letters.update(text.upper())
        protein = read_header(header)
        if problem := _foreign(text):
            if _mostly_nucleotides(letters):
                break
            place = f"record {number} ({printable(protein.id)}), position {problem[1]}"
            msg = f"{path}: {place}: {problem[0]!r} is not an amino acid. Correct the file or remove the record."
            raise InputError(msg)
        sequence = clean_residues(text)
        protein = replace(protein, sequence=sequence)
        if reason := _unusable(protein):
            dropped[reason] += 1
        elif proteins.setdefault(protein.id, protein) is not protein:
            if proteins[protein.id] != protein:
                name = printable(protein.id)
                msg = f"{path}: record {number}: id {name} stands for two different proteins. Rename one."
                raise InputError(msg)
            dropped["repeated"] += 1
    if _mostly_nucleotides(letters):
        msg = f"{path}: nucleotides (over 95 % A, C, G, T, N); proteins are needed, such as Ensembl's pep.all.fa.gz."
        raise InputError(msg)
    if not proteins:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
        msg = f"{path}: no usable protein ({reasons}). Headers must name the gene, as Ensembl's and UniProt's do."
        raise InputError(msg)
    return Proteome(tuple(_join_symbols(list(proteins.values()))), dict(dropped))


def clean_residues(text: str) -> str:
    """`text` as ESM2 can read it: upper case, `J` as `X`, without gaps and final stops; inner stops stay as `*`."""
    return re.sub(r"[\s.-]", "", text).upper().rstrip("*").replace("J", "X")


def _foreign(text: str) -> tuple[str, int] | None:
    """The first character that is no residue, gap or stop, and its place counted from 1."""
    found = re.search(r"[^LAGVSERTIDPKQNFYMHWCXBUZOJ\s.*-]", text, flags=re.IGNORECASE | re.ASCII)
    return (found[0], found.start() + 1) if found else None


def _unusable(protein: Protein) -> str:
    if not protein.sequence:
        return "empty"
    if "*" in protein.sequence:
        return "inner stop"
    return "" if protein.gene or protein.symbol else "without a gene"


def _mostly_nucleotides(letters: Counter[str]) -> bool:
    total = sum(count for letter, count in letters.items() if letter.isalpha())
    return total > 0 and sum(letters[letter] for letter in _NUCLEOTIDES) > 0.95 * total


def _join_symbols(proteins: list[Protein]) -> list[Protein]:
    """Where a protein names only its symbol and the file has one gene of that symbol, it is that gene's."""
    genes: dict[str, set[str]] = {}
    for protein in proteins:
        if protein.gene and protein.symbol:
            genes.setdefault(protein.symbol, set()).add(protein.gene)
    return [
        protein
        if protein.gene or len(genes.get(protein.symbol, ())) != 1
        else replace(protein, gene=next(iter(genes[protein.symbol])))
        for protein in proteins
    ]


# Reading


@contextmanager
def _text(path: Path, kind: str) -> Iterator[Iterator[str]]:
    """The lines of a plain or gzip file; damage is an error that names the file."""
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with (gzip.open if zipped else open)(path, "rt", encoding="utf-8", errors="replace") as stream:
            yield stream
    except FileNotFoundError as error:
        msg = f"{path}: no such file; {kind} is expected there."
        raise InputError(msg) from error
    except (EOFError, zlib.error, OSError) as error:
        msg = f"{path}: cannot be read to its end ({error}). It is damaged or not complete; get it again."
        raise InputError(msg) from error


def _records(path: Path) -> Iterator[tuple[str, str]]:
    """(header without `>`, joined lines) of every record."""
    header: str | None = None
    lines: list[str] = []
    with _text(path, "a FASTA file of proteins") as stream:
        for line in stream:
            if line.startswith(">"):
                if header is not None:
                    yield header, "".join(lines)
                header, lines = line[1:].strip(), []
            elif header is not None:
                lines.append(line.strip())
            elif line.strip():
                msg = (
                    f"{path}: starts with {printable(line.strip(), limit=20)!r}, not with '>'; a FASTA file is needed."
                )
                raise InputError(msg)
    if header is None:
        msg = f"{path}: no records; a FASTA file of proteins is needed."
        raise InputError(msg)
    yield header, "".join(lines)


# Headers

_UNIPROT = re.compile(r"(?:sp|tr)\|([A-Z0-9]+(?:-\d+)?)\|\S+")
_REFSEQ_CDS = re.compile(r"\[(gene|protein_id|locus_tag)=([^\]]*)\]")
_ENSEMBL_FIELD = re.compile(r"(?:^|\s)(gene|gene_symbol):(\S+)")
_ENSEMBL_PLACE = re.compile(r"\s[a-z_]+:[^:\s]*:([^:\s]+):(\d+):\d+:-?[01](?=\s|$)")
_VERSIONED = re.compile(r"(ENS[A-Z]*G\d{11})(?:\.\d+)?(?:_PAR_Y)?")


def read_header(header: str) -> Protein:
    """What a FASTA header (without `>`) says; the sequence is left empty.

    Forms: Ensembl `ID pep PLACE gene:.. gene_symbol:..`, GENCODE's eight fields between bars, UniProt `sp|ACC|NAME ..
    GN=..`, RefSeq `ID text [organism]` (no gene), RefSeq's translated coding regions `lcl|.. [gene=..]`, and
    `SYMBOL|GENE|ACCESSION|LIST`.
    """
    first = header.split(maxsplit=1)[0] if header else ""
    fields = first.split("|")
    if found := _UNIPROT.match(header):
        named = re.search(r"\sGN=(\S+)", header)
        return Protein(found[1], "", named[1] if named else "", "")
    if first.startswith("lcl|"):
        facts: dict[str, str] = dict(_REFSEQ_CDS.findall(header))
        return Protein(facts.get("protein_id", first), "", facts.get("gene", facts.get("locus_tag", "")), "")
    if len(fields) == 8:
        return Protein(fields[0], stable_id(fields[2]), fields[6].strip("-"), "")
    if len(fields) == 4:
        return Protein(fields[2] or fields[0], stable_id(fields[1]), fields[0], "")
    facts = dict(_ENSEMBL_FIELD.findall(header.partition(" description:")[0]))
    place = _ENSEMBL_PLACE.search(header)
    chromosome, start = (place[1], int(place[2])) if place else (UNPLACED, 0)
    return Protein(first, stable_id(facts.get("gene", "")), facts.get("gene_symbol", ""), "", chromosome, start)


def stable_id(gene: str) -> str:
    """A gene id without the version that vertebrate Ensembl ids carry; a PAR gene's copy on Y is that on X."""
    found = _VERSIONED.fullmatch(gene)
    return found[1] if found else gene


# Positions

_GTF_ATTRIBUTE = re.compile(r'(gene_id|gene_name)\s+"([^"]*)"')
_GENE_TYPES = frozenset({"gene", "ncRNA_gene", "pseudogene"})


def read_positions(path: str | Path) -> dict[str, tuple[str, int]]:
    """Chromosome and first base (1-based) of every gene of a GTF or GFF3 file, under its id and its name.

    Only rows of genes are read. Where a gene stands on several sequences, the one with the shortest name wins
    (chromosomes before scaffolds and alternative loci), then the first in the alphabet.

    Raises
    ------
    InputError
        A row has not nine columns, or its coordinates are no range; no row describes a gene.
    """
    path = Path(path)
    places: dict[str, tuple[str, int]] = {}
    with _text(path, "a GTF or GFF3 file") as stream:
        for number, line in enumerate(stream, start=1):
            if line.startswith("##FASTA"):
                break
            if line.startswith("#") or not line.strip():
                continue
            row = line.rstrip("\r\n").split("\t")
            if len(row) != 9 or not (row[3].isdecimal() and row[4].isdecimal() and 1 <= int(row[3]) <= int(row[4])):
                msg = f"{path}: line {number} is no row of a GTF or GFF3 file ({printable(line.strip(), limit=40)})."
                raise InputError(msg)
            if row[2] in _GENE_TYPES:
                place = (row[0], int(row[3]))
                for name in _gene_names(row[8]):
                    places[name] = min(places.get(name, place), place, key=place_order)
    if not places:
        msg = f"{path}: no row of type gene. Give the complete GTF or GFF3 file of the annotation."
        raise InputError(msg)
    return places


def place_order(place: tuple[str, int]) -> tuple[int, str, int]:
    """Sorts chromosomes before scaffolds and alternative loci, whose names are longer; unplaced last."""
    return (10**6 if place[0] == UNPLACED else len(place[0]), *place)


def _gene_names(attributes: str) -> set[str]:
    found = dict(_GTF_ATTRIBUTE.findall(attributes))
    if not found:
        pairs = dict(part.strip().partition("=")[::2] for part in attributes.split(";") if "=" in part)
        found = {key: unquote(pairs[key]) for key in ("ID", "Name", "gene") if key in pairs}
        found["ID"] = re.sub(r"^gene[:-]", "", found.get("ID", ""))
    return {stable_id(name) for name in found.values() if name}
