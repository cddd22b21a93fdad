"""Headers of FASTA files of proteins, told apart by their form: which gene a protein is of, and what else they say.

Ensembl, GENCODE, UniProt, RefSeq (proteins, and translated coding regions), and `SYMBOL|GENE|ACCESSION|LIST`.
"""

import re
from dataclasses import dataclass

from uce.genes.annotations.gene import ACCESSION, chromosome_name, other_names, stable_id, symbol_or_none
from uce.genes.tables import UNPLACED

_ACCESSION = re.compile(rf"({ACCESSION})(?:-\d+)?")
_UNIPROT = re.compile(r"(?:sp|tr)\|([A-Z0-9]+)(-\d+)?\|\S+")
_UNIPROT_GENE = re.compile(r"\sGN=(.+?)(?=\s(?:PE|SV)=|\s*$)")
_UNIPROT_ORGANISM = re.compile(r"\sOS=([^\s(=]+(?: [^\s(=]+)?)(?=[\s(]|$)")
_UNIPROT_TAXON = re.compile(r"\sOX=(\d{1,9})(?=\s|$)")
_CODING_REGION = re.compile(r"\[(gene|protein_id|locus_tag|db_xref)=([^\]]*)\]")
_ENSEMBL_FIELD = re.compile(r"(?:^|\s)(gene|gene_symbol):(\S+)")
_ENSEMBL_PLACE = re.compile(r"\s[a-z_]+:([^:\s]*):([^:\s]+):(\d{1,12}):\d+:-?[01](?=\s|$)")
_ORGANISM = re.compile(r"\[((?:\[[^\[\]]*\])?[^\[\]=]+)\]$")  # of RefSeq; names like [Candida] auris have brackets


@dataclass(frozen=True)
class Protein:
    """One protein of a proteome file."""

    id: str
    gene: str
    """Stable gene id without version; "" where none is named."""
    symbol: str
    """Gene symbol; "" where none is named."""
    sequence: str
    """Upper case, only letters of `RESIDUES`, never empty; left empty by `read_header`."""
    chromosome: str = UNPLACED
    start: int = 0
    """First base of the gene, 1-based; 0 where unplaced."""
    aliases: tuple[str, ...] = ()
    """Other names of the gene."""


def read_header(header: str) -> Protein:
    """What a FASTA header (without `>`) says of one protein; the sequence is left empty.

    Aliases are UniProt's accession (that of the first isoform), Havana's gene id, and what a translated coding region
    refers to. UniProt's entry names (`P53_HUMAN`) are none: too many are symbols or aliases of other genes (PSA is the
    entry of NPEPPS).
    """
    first = header.split(maxsplit=1)[0] if header else ""
    fields = first.split("|")
    if found := _UNIPROT.match(header):
        named = _UNIPROT_GENE.search(header)
        return Protein(found[1] + (found[2] or ""), "", named[1].strip() if named else "", "", aliases=(found[1],))
    if first.startswith("lcl|"):
        return _coding_region(first, header)
    if len(fields) == 8:
        havana = re.sub(r"\.\d+$", "", fields[3]).strip("-")
        return Protein(
            fields[0], stable_id(fields[2]), symbol_or_none(fields[6]), "", aliases=other_names([havana], fields[6])
        )
    if len(fields) == 4:
        accession = _ACCESSION.fullmatch(fields[2])
        aliases = (accession[1],) if accession else ()
        return Protein(fields[2] or fields[0], stable_id(fields[1]), fields[0], "", aliases=aliases)
    return _ensembl(first, header)


def _coding_region(first: str, header: str) -> Protein:
    """`lcl|NC_000001.11_prot_NP_001005484.2_1 [gene=OR4F5] [locus_tag=..] [db_xref=CCDS:..,GeneID:79501] ..`."""
    facts: dict[str, str] = dict(_CODING_REGION.findall(header))
    gene, symbol = facts.get("locus_tag", ""), facts.get("gene", "")
    references = [one for one in facts.get("db_xref", "").split(",") if one.startswith("GeneID:")]
    return Protein(facts.get("protein_id", first), gene, symbol, "", aliases=tuple(references))


def _ensembl(first: str, header: str) -> Protein:
    """`ID pep PLACE gene:.. gene_symbol:.. description:..`, and every form that names no gene."""
    told = header.partition(" description:")[0]
    facts: dict[str, str] = dict(_ENSEMBL_FIELD.findall(told))
    place = _ENSEMBL_PLACE.search(told)
    chromosome = chromosome_name(place[2]) if place else None
    start = int(place[3]) if place and chromosome else 0
    gene, symbol = stable_id(facts.get("gene", "")), symbol_or_none(facts.get("gene_symbol", ""))
    return Protein(first, gene, symbol, "", chromosome or UNPLACED, start)


def read_organism(header: str) -> tuple[str, str]:
    """Organism (UniProt's without the strain, RefSeq's) and taxonomy id (UniProt's), each "" where it is not named."""
    name = _UNIPROT_ORGANISM.search(header) or _ORGANISM.search(header)
    taxon = _UNIPROT_TAXON.search(header)
    return name[1] if name else "", taxon[1] if taxon else ""


def read_assembly(header: str) -> str:
    """The assembly in the place that Ensembl writes ("GRCz11"), else ""."""
    place = _ENSEMBL_PLACE.search(header.partition(" description:")[0])
    return place[1] if place else ""
