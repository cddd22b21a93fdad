"""Proteome files: a FASTA becomes clean proteins, each with its gene; an annotation gives the genes their places."""

import re
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from uce.errors import InputError
from uce.files import printable
from uce.genes.annotations.gene import Gene
from uce.genes.annotations.lines import read_lines
from uce.genes.annotations.overlap import check_overlap
from uce.genes.annotations.reading import Annotation
from uce.genes.catalogue import catalogue, find_species
from uce.genes.proteins.gene_map import GeneMap, in_map, mapped, renamed
from uce.genes.proteins.headers import Protein, read_assembly, read_header, read_organism
from uce.genes.tables import UNPLACED

RESIDUES = "LAGVSERTIDPKQNFYMHWCXBUZO"
"""The letters ESM2 has a token for."""
_FOREIGN = re.compile(rf"[^{RESIDUES}J\s.*-]", flags=re.IGNORECASE | re.ASCII)
_ENOUGH_LETTERS = 100_000  # to tell a genome, which may be long, from proteins
_NUCLEOTIDES = frozenset("ACGTUN")


@dataclass(frozen=True)
class Proteome:
    """The usable proteins of a file.

    Attributes
    ----------
    proteins
        In the order of the file.
    dropped
        Reason -> how many were left out.
    taxon
        NCBI taxonomy id of the organism that most headers name (of the species, where the catalogue knows it), None
        without.
    assembly
        What most headers name ("GRCz11"), "" without.
    file
        Where they are from.
    """

    proteins: tuple[Protein, ...]
    dropped: dict[str, int]
    taxon: int | None = None
    assembly: str = ""
    file: str = ""


def read_proteome(path: str | Path, *, gene_map: GeneMap | None = None) -> Proteome:
    """Read a FASTA file of proteins, plain or gzip.

    Residues are made upper case, a final `*` and gaps are removed, `J` becomes `X`. Proteins with an inner stop (as in
    the published recipe of SATURN and UCE), empty ones and literal repetitions are left out and counted. All biotypes
    are kept, as published. Proteins whose header names no gene are kept, too: `place_proteins` may find it.

    Parameters
    ----------
    gene_map
        Protein id -> (gene id, symbol or ""), which win over the headers; see `gene_map.read_gene_map`.

    Raises
    ------
    InputError
        Not a FASTA file, damaged, nucleotides instead of residues, a letter that is no residue, one id for two
        different proteins, no usable protein, or a gene map that names none of them.
    """
    with closing(_records(Path(path))) as records:
        proteome = _collect(records, gene_map or {}, str(path))
    if not proteome.proteins:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(proteome.dropped.items()))
        msg = f"{path}: no usable protein ({reasons}). Give the complete FASTA file of the proteome."
        raise InputError(msg)
    if gene_map is not None and not any(in_map(protein.id, gene_map) for protein in proteome.proteins):
        ours, theirs = printable(proteome.proteins[0].id), printable(next(iter(gene_map), "nothing"))
        msg = f"{path}: the gene map names none of the proteins ({ours} here, {theirs} there). Give one with these ids."
        raise InputError(msg)
    return proteome


def _collect(records: Iterator[tuple[str, str]], gene_map: GeneMap, file: str) -> Proteome:
    proteins: dict[str, Protein] = {}
    dropped, letters, assemblies = Counter[str](), Counter[str](), Counter[str]()
    organisms = Counter[tuple[str, str]]()
    for number, (header, text) in enumerate(records, start=1):
        letters.update(text.upper())
        if (_foreign(text) or letters.total() > _ENOUGH_LETTERS) and _mostly_nucleotides(letters):
            break
        protein = _protein(header, text, gene_map, f"{file}: record {number}")
        if any(organism := read_organism(header)):
            organisms[organism] += 1
        assemblies[read_assembly(header)] += 1
        if reason := _unusable(protein):
            dropped[reason] += 1
        elif (known := proteins.setdefault(protein.id, protein)) is not protein:
            if known != protein:
                name = printable(protein.id)
                msg = f"{file}: record {number}: id {name} stands for two different proteins. Rename one."
                raise InputError(msg)
            dropped["repeated"] += 1
    if _mostly_nucleotides(letters):
        msg = f"{file}: nucleotides (over 95 % A, C, G, T, N); proteins are needed, such as Ensembl's pep.all.fa.gz."
        raise InputError(msg)
    found = tuple(_join_symbols(list(proteins.values())))
    return Proteome(
        found,
        dict(dropped),
        _taxon(*max(organisms, key=lambda one: organisms[one], default=("", ""))),
        _most(assemblies),
        file,
    )


def _protein(header: str, text: str, gene_map: GeneMap, place: str) -> Protein:
    protein = mapped(read_header(header), gene_map)
    if problem := _foreign(text):
        where = f"{place} ({printable(protein.id)}), position {problem[1]}"
        msg = f"{where}: {problem[0]!r} is not an amino acid. Correct the file or remove the record."
        raise InputError(msg)
    return replace(protein, sequence=clean_residues(text))


def clean_residues(text: str) -> str:
    """`text` as ESM2 can read it: upper case, `J` as `X`, without gaps and final stops; inner stops stay as `*`."""
    return re.sub(r"[\s.-]", "", text).upper().rstrip("*").replace("J", "X")


def _records(path: Path) -> Generator[tuple[str, str], None, None]:
    """(header without `>`, joined lines) of every record."""
    header: str | None = None
    lines: list[str] = []
    with closing(read_lines(path, "a FASTA file of proteins")) as text:
        for line in text:
            if line.startswith(">"):
                if header is not None:
                    yield header, "".join(lines)
                header, lines = line[1:].strip(), []
            elif header is not None:
                lines.append(line.strip())
            elif line.strip():
                shown = printable(line.strip(), limit=20)
                msg = f"{path}: starts with {shown!r}, not with '>'; a FASTA file is needed."
                raise InputError(msg)
    if header is None:
        msg = f"{path}: no records; a FASTA file of proteins is needed."
        raise InputError(msg)
    yield header, "".join(lines)


def _foreign(text: str) -> tuple[str, int] | None:
    """The first character that is no residue, gap or stop, and its place counted from 1."""
    found = _FOREIGN.search(text)
    return (found[0], found.start() + 1) if found else None


def _unusable(protein: Protein) -> str:
    if not protein.sequence:
        return "empty"
    return "inner stop" if "*" in protein.sequence else ""


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


def _most(counts: Counter[str]) -> str:
    """What most records say, the first in the alphabet of equals; "" where none says anything."""
    return min((word for word in counts if word), key=lambda word: (-counts[word], word), default="")


def _taxon(organism: str, taxon: str) -> int | None:
    """Of the species, where the catalogue knows it: strains have taxonomy ids of their own."""
    if species := find_species(organism):
        return catalogue()[species].taxon
    return int(taxon) if taxon else None


# Genes of proteins


def place_proteins(proteome: Proteome, annotation: Annotation | None) -> tuple[Proteome, tuple[str, ...]]:
    """Give proteins the ids, names and places of their genes in the annotation; leave out those without a gene.

    Genes are found by their id, else by one of their proteins, else by symbol or alias. Names of the annotation win
    where it has them, and those of the header become aliases; its places win. Genes that it does not know stay as the
    headers have them.

    Parameters
    ----------
    annotation
        None where there is none: then the headers must name the genes.

    Returns
    -------
    The proteins that have a gene (others counted in `dropped`), and notes for the user.

    Raises
    ------
    InputError
        The annotation knows fewer than half of the genes; or no protein names its gene and there is no annotation.
    """
    notes: tuple[str, ...] = ()
    proteins = list(proteome.proteins)
    if annotation:
        genes = _genes(proteins, annotation)
        unknown = sorted(key for key, gene in genes.items() if gene is None)
        named = any(protein.gene or protein.symbol for protein in proteins)
        notes = check_overlap(
            unknown,
            len(genes),
            what="genes" if named else "proteins",
            file=proteome.file,
            other=annotation.file,
            examples=annotation.genes if named else annotation.proteins or annotation.genes,
        )
        proteins = [_placed(protein, genes[_key(protein)]) for protein in proteins]
    usable = tuple(protein for protein in proteins if protein.gene or protein.symbol)
    if not usable:
        way = "Give the GFF3 or GTF of the same release, or a list of proteins and genes by --gene-map"
        msg = f"{proteome.file}: no header names a gene (those of RefSeq's protein.faa never do). {way}."
        raise InputError(msg)
    dropped = {"without a gene": n} if (n := len(proteins) - len(usable)) else {}
    return replace(proteome, proteins=usable, dropped={**proteome.dropped, **dropped}), notes


def _key(protein: Protein) -> str:
    return protein.gene or protein.symbol or protein.id


def _genes(proteins: list[Protein], annotation: Annotation) -> dict[str, Gene | None]:
    """What the headers call a gene -> the gene of the annotation that it, or the first of its proteins, leads to."""
    genes: dict[str, Gene | None] = {}
    for protein in sorted(proteins, key=lambda protein: protein.id):
        key = _key(protein)
        if genes.get(key) is None:
            names = (protein.gene, protein.id, protein.symbol)
            genes[key] = next((found for name in names if (found := annotation.find(name))), None)
    return genes


def _placed(protein: Protein, gene: Gene | None) -> Protein:
    if gene is None:
        return protein
    named = renamed(protein, gene.id, gene.symbol, gene.aliases)
    return named if gene.chromosome == UNPLACED else replace(named, chromosome=gene.chromosome, start=gene.start)
