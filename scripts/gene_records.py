"""Twelve species' gene lists, cleaned: which genes are in a table, their names, places and human relatives."""

import csv
import gzip
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# Segments of antigen receptors are translated too; joining and diversity segments are too short to be told apart.
CODING = {"protein_coding", "IG_C_gene", "IG_V_gene", "TR_C_gene", "TR_V_gene"}
MITOCHONDRIA = {"MT", "MtDNA", "mitochondrion_genome"}
MITOCHONDRIAL = {
    "MT-ATP6": {"ATP6", "ATPASE6"},
    "MT-ATP8": {"ATP8", "ATPASE8"},
    "MT-CO1": {"CO1", "COX1", "COI"},
    "MT-CO2": {"CO2", "COX2", "COII"},
    "MT-CO3": {"CO3", "COX3", "COIII"},
    "MT-CYB": {"CYB", "CYTB"},
    "MT-ND4L": {"ND4L"},
    **{f"MT-ND{number}": {f"ND{number}"} for number in range(1, 7)},
}
ASSEMBLIES = {
    "homo_sapiens": (9606, "GRCh38"),
    "mus_musculus": (10090, "GRCm39"),
    "rattus_norvegicus": (10116, "GRCr8"),
    "danio_rerio": (7955, "GRCz11"),
    "macaca_mulatta": (9544, "Mmul_10"),
    "macaca_fascicularis": (9541, "Macaca_fascicularis_6.0"),
    "microcebus_murinus": (30608, "Mmur_3.0"),
    "sus_scrofa": (9823, "Sscrofa11.1"),
    "xenopus_tropicalis": (8364, "UCB_Xtro_10.0"),
    "gallus_gallus": (9031, "GRCg7b"),
    "drosophila_melanogaster": (7227, "BDGP6"),
    "caenorhabditis_elegans": (6239, "WBcel235"),
}


@dataclass
class Gene:
    """One gene of a table; `human` are the anchors it may refer to, `evidence` says how they are known."""

    id: str
    symbol: str
    synonyms: list[str]
    chromosome: str
    start: int
    human: list[str]
    evidence: str
    coding: str
    curated: bool
    projected: bool = False
    other_ids: list[str] = field(default_factory=list)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a gzip CSV file, as text."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def read_species(folder: Path, species: str) -> list[Gene]:
    """Protein-coding genes of one species, sorted by id, one per locus of the primary assembly.

    Copies on alternative loci and retired ids are no genes of their own; they become synonyms of the gene that now has
    their symbol, where there is exactly one. A symbol that several genes carry stays with one of them.
    """
    rows = [row for row in read_rows(folder / f"{species}.csv.gz") if row["biotype"] in CODING]
    retired = [row for row in rows if row["source"].startswith("ensembl109")]
    current = [row for row in rows if not row["source"].startswith("ensembl109")]
    primary = [row for row in current if not _alternative(species, row["chromosome"])]
    copies = [row for row in current if _alternative(species, row["chromosome"])]
    genes = [_gene(species, row) for row in primary]
    genes += _only_on_alternative_loci(species, copies, {gene.symbol for gene in genes})
    genes.sort(key=lambda gene: gene.id)
    _one_owner_per_symbol(genes)
    _attach_ids(genes, copies + retired)
    _name_mitochondrial(species, genes)
    return genes


def add_projected_positions(genes: Iterable[Gene], folder: Path, species: str) -> None:
    """Place genes without a location where their relative in a related species lies, and flag them."""
    rows = read_rows(folder / "projected_positions.csv.gz")
    places = {row["gene_id"]: row for row in rows if row["species"] == species}
    for gene in genes:
        if gene.chromosome == "unplaced" and gene.id in places:
            gene.chromosome, gene.start = places[gene.id]["chromosome"], int(places[gene.id]["start"])
            gene.projected = True


def _alternative(species: str, chromosome: str) -> bool:
    if species == "homo_sapiens":
        return len(chromosome) > 3
    return species == "danio_rerio" and chromosome.startswith("ALT_")


def _gene(species: str, row: dict[str, str]) -> Gene:
    symbol = row["symbol"]
    # FlyBase lists every name a second time behind the name of the species.
    aliases = [alias for alias in row["aliases"].split("|") if alias and not alias.startswith("Dmel")]
    # The source writes zebrafish symbols in capitals and keeps the community's lower-case form among the aliases.
    if species == "danio_rerio" and symbol.lower() in aliases:
        symbol = symbol.lower()
    return Gene(
        id=row["gene_id"],
        symbol=symbol,
        synonyms=[alias for alias in aliases if alias != symbol],
        chromosome=row["chromosome"] or "unplaced",
        start=int(row["start"] or 0) if row["chromosome"] else 0,
        human=[human for human in row["human_orthologs"].split("|") if human],
        evidence="same-symbol" if row["orthology_kind"] == "same_symbol" else "orthology",
        coding=row["biotype"],
        curated="+" in row["source"],
    )


def _only_on_alternative_loci(species: str, copies: list[dict[str, str]], known: set[str]) -> list[Gene]:
    by_symbol = defaultdict(list)
    for row in copies:
        if row["symbol"] and row["symbol"] not in known:
            by_symbol[row["symbol"]].append(row)
    chosen = [min(rows, key=lambda row: ("+" not in row["source"], row["gene_id"])) for rows in by_symbol.values()]
    genes = [_gene(species, row) for row in chosen]
    for gene in genes:
        gene.chromosome, gene.start = "unplaced", 0
    return genes


def _one_owner_per_symbol(genes: Sequence[Gene]) -> None:
    owners: dict[str, Gene] = {}
    for gene in sorted(genes, key=lambda gene: (not gene.curated, not gene.human, gene.id)):
        if gene.symbol and owners.setdefault(gene.symbol, gene) is not gene:
            shared = {*owners[gene.symbol].synonyms}
            gene.symbol, gene.synonyms = "", [name for name in gene.synonyms if name not in shared]


def _attach_ids(genes: Sequence[Gene], leavers: list[dict[str, str]]) -> None:
    owners = {gene.symbol: gene for gene in genes if gene.symbol}
    kept = {gene.id for gene in genes}
    for row in leavers:
        owner = owners.get(row["symbol"])
        if owner is not None and row["gene_id"] not in kept:
            owner.other_ids.append(row["gene_id"])


def _name_mitochondrial(species: str, genes: Sequence[Gene]) -> None:
    """The 13 proteins of every animal's mitochondrion go by a dozen spellings: each gets the human one as a synonym."""
    for gene in genes:
        if species != "homo_sapiens" and gene.chromosome in MITOCHONDRIA:
            plain = re.sub("^MT", "", re.sub("[^A-Z0-9]", "", gene.symbol.upper()))
            human = next((name for name, spellings in MITOCHONDRIAL.items() if plain in spellings), "")
            if human and human not in (gene.symbol, *gene.synonyms):
                gene.synonyms.append(human)


def settle_synonyms(genes: Sequence[Gene], human: Sequence[Gene]) -> None:
    """A synonym that several genes claim goes to the one that plainly took it over, if there is one.

    That is the gene now named the same with a 1 (SARS, SARS1) or in the new style (SEPT2, SEPTIN2), else the one named
    like the human gene that alone has the synonym (mouse H2afy: human H2AFY is MACROH2A1). Others lose it.
    """
    heirs = _unique((name.upper(), row) for row, gene in enumerate(human) for name in gene.synonyms)
    claims = defaultdict(list)
    for gene in genes:
        for name in gene.synonyms:
            claims[name].append(gene)
    for name, claimants in claims.items():
        upper = name.upper()
        styles = {f"{upper}1", upper.replace("SEPT", "SEPTIN"), upper.replace("MARCH", "MARCHF")} - {upper}
        heir = human[heirs[upper]].symbol if upper in heirs else ""
        for wanted in (styles, {heir} - {""}):
            winners = [gene for gene in claimants if gene.symbol.upper() in wanted]
            if len(claimants) > 1 and len(winners) == 1:
                for gene in claimants:
                    if gene is not winners[0]:
                        gene.synonyms = [other for other in gene.synonyms if other != name]
                break


def lend_synonyms(genes: Sequence[Gene], human: Sequence[Gene]) -> None:
    """Give genes named like their human orthologue the human gene's synonyms, except names in use in the species.

    For species whose lists have hardly any synonyms: their symbols come from human, as did the earlier ones.
    """
    by_id = {gene.id: gene for gene in human}
    used = {name.upper() for gene in genes for name in (gene.symbol, *gene.synonyms, *gene.other_ids)}
    for gene in genes:
        twin = by_id.get(gene.human[0]) if len(gene.human) == 1 else None
        if twin is not None and twin.symbol and twin.symbol == gene.symbol.upper():
            gene.synonyms += [name for name in twin.synonyms if name.upper() not in used]


class Names:
    """From a name in a file to the rows of a species' genes: id, symbol, symbol in any case, then a unique synonym."""

    def __init__(self, genes: Sequence[Gene]) -> None:
        self._maps: list[dict[str, int]] = [
            {gene.id: row for row, gene in enumerate(genes)},
            {gene.symbol: row for row, gene in enumerate(genes) if gene.symbol},
            _unique((gene.symbol.lower(), row) for row, gene in enumerate(genes)),
            _unique((name, row) for row, gene in enumerate(genes) for name in {*gene.synonyms, *gene.other_ids}),
        ]

    def row(self, name: str) -> int:
        """The row of `name`, or -1."""
        exact, symbols, lower, synonyms = self._maps
        for candidates, key in ((exact, name), (symbols, name), (lower, name.lower()), (synonyms, name)):
            if key in candidates:
                return candidates[key]
        return -1


def _unique(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    listed = [(name, row) for name, row in pairs if name]
    counts = Counter(name for name, _ in listed)
    return {name: row for name, row in listed if counts[name] == 1}


def refer(genes: Sequence[Gene], anchors: dict[str, int], symbols: dict[str, int]) -> list[list[int]]:
    """Per gene, the groups it refers to: its human orthologues.

    Antigen receptors and mitochondrial genes without any get the human gene of the same name.
    """
    references = []
    for gene in genes:
        groups = sorted({anchors[human] for human in gene.human if human in anchors})
        if not groups and (gene.coding != "protein_coding" or gene.chromosome in MITOCHONDRIA):
            groups = [symbols[name] for name in (gene.symbol.upper(), *gene.synonyms) if name in symbols][:1]
            gene.evidence = "same-symbol"
        references.append(groups)
    return references
