"""One gene as annotations and proteomes describe it: its stable id, its names, its place."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from uce.genes.tables import UNPLACED

# Only after an id of these forms a dot starts a version; in other names (clones, F23F1.10) it is part of the name.
_GENE = re.compile(r"(ENS[A-Z]*G\d{11}|MGP_\w+?_G\d+)(?:\.\d+)?(?:_PAR_Y)?")
ACCESSION = r"[OPQ]\d[A-Z\d]{3}\d|[A-NR-Z]\d(?:[A-Z][A-Z\d]{2}\d){1,2}"
"""Pattern of UniProt's accessions."""
_PROTEIN = re.compile(rf"(ENS[A-Z]*P\d{{11}}|[A-Z]P_\d+|[A-Z]{{3}}\d{{5,7}}|{ACCESSION})(?:[.-]\d+)?(?:_PAR_Y)?")
_CHROMOSOME = re.compile(r"chr(?!Un$)([0-9A-Z]{1,5})", flags=re.IGNORECASE)
_ALTERNATIVE = re.compile(r"(?:CHR_|HSCHR|HG\d|ALT_|N[TW]_|chrUn).*|.*_(?:alt|fix|random|PATCH)")
_MAIN_LENGTH, _LONGEST = 5, 128


@dataclass(frozen=True)
class Gene:
    """One gene of an annotation."""

    id: str
    """Stable id without Ensembl version."""
    symbol: str
    """Current symbol; "" where there is none."""
    aliases: tuple[str, ...] = ()
    """Earlier symbols, synonyms, ids in other databases."""
    biotype: str = ""
    chromosome: str = UNPLACED
    start: int = 0
    """First base, 1-based; 0 where unplaced."""

    @property
    def place(self) -> tuple[str, int]:
        """Chromosome and first base."""
        return self.chromosome, self.start


def stable_id(gene: str) -> str:
    """A gene id without the version that vertebrate Ensembl ids carry; a PAR gene's copy on Y is that on X."""
    found = _GENE.fullmatch(gene)
    return found[1] if found else gene


def stable_protein(protein: str) -> str:
    """A protein id of Ensembl, RefSeq, GenBank or UniProt without its version or number of the isoform."""
    found = _PROTEIN.fullmatch(protein)
    return found[1] if found else protein


def symbol_or_none(text: str) -> str:
    """`text`, or "" where it is an Ensembl id or a dash: what some files write for a gene without a symbol."""
    return "" if text == "-" or _GENE.fullmatch(text) else text


def other_names(names: Iterable[str], *known: str) -> tuple[str, ...]:
    """Each of `names` once, in their order, without empty ones, those in `known`, and those that hold a bar."""
    return tuple(name for name in dict.fromkeys(names) if name and name not in known and "|" not in name)


def chromosome_name(text: str) -> str | None:
    """The name of a sequence as Ensembl writes it: "chr1" is "1", "chrM" and "M" are "MT"; others stay as they are.

    Vectors of chromosomes go by their name, so all files must agree on one. None where the name cannot be used: empty,
    over 128 characters, or with some that do not print.
    """
    if not text or len(text) > _LONGEST or not text.isprintable():
        return None
    found = _CHROMOSOME.fullmatch(text)
    name = found[1] if found else text
    return "MT" if name == "M" or (found and name.upper() in ("M", "MT")) else name


def place_level(chromosome: str) -> int:
    """0 for chromosomes, whose names are short, 1 for scaffolds, 2 for alternative loci and patches, 3 for unplaced."""
    if chromosome == UNPLACED:
        return 3
    return 2 if _ALTERNATIVE.fullmatch(chromosome) else int(len(chromosome) > _MAIN_LENGTH)


def place_order(place: tuple[str, int]) -> tuple[int, int, str, int]:
    """Sorts places: chromosomes before scaffolds before alternative loci, X before Y, the first base first."""
    chromosome, start = place
    return place_level(chromosome), len(chromosome), chromosome, start
