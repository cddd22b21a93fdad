"""What a gene table is to be made from, and how: the request of a user, checked before any work."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from uce.errors import InputError, UsageError
from uce.files import sha256_file
from uce.genes.catalogue import catalogue, find_species, species_label
from uce.genes.kinds import BUNDLED_ENCODER, check_kind
from uce.genes.proteins.weights import encoder_name, find_weights

_MOST_TAXON = 10**8


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What a table is made from; exactly one of proteins, vectors, or relatives alone.

    Attributes
    ----------
    fasta
        Proteins, see `read_proteome`.
    gene_map
        Protein id to gene, for headers that name none, see `read_gene_map`.
    embeddings
        Vectors made elsewhere, see `read_vector_file`.
    orthologs, by_symbol
        Genes of the relative: a list, or those of the same symbol. Alone they make a table; beside proteins or vectors
        they serve the genes that have none.
    annotation
        GTF, GFF3 or a CSV of genes: ids, symbols, aliases, places.
    relative
        The species of the orthologues; its table must be of the same kind of vectors.
    """

    fasta: str | Path | None = None
    gene_map: str | Path | None = None
    embeddings: str | Path | None = None
    orthologs: str | Path | None = None
    by_symbol: bool = False
    annotation: str | Path | None = None
    relative: str = "homo_sapiens"

    def __post_init__(self) -> None:
        if self.fasta and self.embeddings:
            msg = "--fasta and --embeddings exclude each other: vectors come from one of them."
            raise UsageError(msg)
        if not (self.fasta or self.embeddings or self.relatives):
            msg = "nothing to make vectors from. Give --fasta, --embeddings, --orthologs or --by-symbol."
            raise UsageError(msg)
        if self.orthologs and self.by_symbol:
            msg = "--orthologs and --by-symbol exclude each other. Give one of them."
            raise UsageError(msg)
        if self.by_symbol and not self.annotation:
            msg = "--by-symbol needs --gtf: symbols of all genes, and where they lie."
            raise UsageError(msg)
        if self.gene_map and not self.fasta:
            msg = "--gene-map says which gene a protein of --fasta is of; give that, too."
            raise UsageError(msg)

    @property
    def relatives(self) -> bool:
        """Whether vectors of another species' genes are used."""
        return self.orthologs is not None or self.by_symbol

    def record(self) -> dict[str, str | int | float]:
        """Name and hash of every file, for the table."""
        given = {name: getattr(self, name) for name in ("fasta", "gene_map", "embeddings", "orthologs", "annotation")}
        files = {name: Path(path) for name, path in given.items() if path is not None}
        for name, path in files.items():
            if not path.is_file():
                what = "a folder, not a file" if path.is_dir() else "no such file"
                msg = f"{path}: {what}, given as --{'gtf' if name == 'annotation' else name.replace('_', '-')}."
                raise InputError(msg)
        named = {name: path.name for name, path in files.items()}
        return {**named, **{f"{name}_sha256": sha256_file(path) for name, path in files.items()}}


@dataclass(frozen=True, kw_only=True)
class Making:
    """How proteins become vectors.

    Attributes
    ----------
    isoforms
        "mean" of all proteins of a gene (as published), or the "longest" alone.
    long_proteins
        Beyond 1,022 residues: "truncate" (as published) or "window".
    device, precision, batch_tokens
        Where and how ESM2 runs; see `embed_proteome`.
    """

    isoforms: Literal["mean", "longest"] = "mean"
    long_proteins: Literal["truncate", "window"] = "truncate"
    device: str = "auto"
    precision: str = "auto"
    batch_tokens: int = 4096

    def __post_init__(self) -> None:
        if self.batch_tokens < 1:
            msg = f"--batch-tokens {self.batch_tokens}: a whole number above 0 is needed."
            raise UsageError(msg)


def kind_of(sources: Sources, encoder: str | None) -> str:
    """The kind of vectors that will come out.

    Raises
    ------
    UsageError
        `encoder` is needed, or cannot name one.
    """
    if sources.fasta:
        if not encoder:
            msg = "--fasta needs --encoder: the name or file of an ESM2, such as esm2_t33_650M_UR50D."
            raise UsageError(msg)
        return encoder_name(find_weights(encoder))
    if sources.embeddings and not encoder:
        msg = "--embeddings needs --encoder: what made the vectors, such as esm2_t48_15B_UR50D."
        raise UsageError(msg)
    return check_kind(encoder or BUNDLED_ENCODER)


def checked_taxon(species: str, taxon: int | None) -> int:
    """The NCBI taxonomy id of a species (Latin name): `taxon`, which must not contradict the catalogue, or from there.

    Raises
    ------
    UsageError
        It is missing or not one, or belongs to another species.
    """
    known = catalogue()[species].taxon if species in catalogue() else None
    if taxon is None and known is None:
        msg = f"--taxon is needed: the NCBI taxonomy id of {species}, a number such as 9031 for gallus_gallus."
        raise UsageError(msg)
    found = known if taxon is None else taxon
    if found is None or not 0 < found < _MOST_TAXON:
        msg = f"--taxon {found}: not an NCBI taxonomy id, a number such as 9031 for gallus_gallus."
        raise UsageError(msg)
    owner = find_species(str(found))
    if known not in (None, found) or owner not in (None, species):
        whose = f" is that of {species_label(owner)}" if owner else f": that of {species_label(species)} is {known}"
        msg = f"--taxon {found}{whose}; --name says {species}. Correct one of them."
        raise UsageError(msg)
    return found
