"""Kinds of gene vectors by name: "orthogroups-v1" (bundled), or the protein encoder that made them, as an ESM2's name.

Vectors of two kinds must never meet in one model. `KIND+VARIANT` has the vectors of KIND and differs in something else
(places of genes); where a species has no table of its own in a variant, that of the plain kind serves.
"""

import re

from uce.errors import UsageError
from uce.files import printable
from uce.genes.catalogue import catalogue

BUNDLED_ENCODER = "orthogroups-v1"
PUBLISHED_ENCODER = "esm2_t48_15B_UR50D"
"""What the published checkpoints read: 5,120 wide, and chromosome tokens drawn by a rule of their own."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")


def plain_kind(encoder: str) -> str:
    """The kind of vectors without its variant."""
    return encoder.partition("+")[0]


def is_kind(name: str) -> bool:
    """Whether `name` can be that of a kind of vectors, and so of a folder."""
    return _NAME.fullmatch(name) is not None


def check_kind(encoder: str) -> str:
    """`encoder`, if it can be the name of a kind: it becomes the name of a folder.

    Raises
    ------
    UsageError
        It has other characters than letters, digits, '.', '_', '+' and '-', or more than 128.
    """
    if not is_kind(encoder):
        msg = f"--encoder {printable(encoder)!r}: letters, digits, '.', '_' and '-' are allowed in a kind of vectors."
        raise UsageError(msg)
    return encoder


def how_to_make(species: str, encoder: str) -> str:
    """The command that makes a table of this species and kind, with what else there is to know."""
    kind = plain_kind(encoder)
    taxon = catalogue()[species].taxon if species in catalogue() else "N"
    start = f"`uce species add --name {species} --taxon {taxon} --gtf GENES.gtf.gz"
    if kind == BUNDLED_ENCODER:
        return f"{start} --orthologs FILE.csv` makes one from human orthologues, without proteins"
    if kind == PUBLISHED_ENCODER:
        return (
            f"{start} --fasta PEP.fa.gz --encoder {kind}` makes one. Vectors of a smaller ESM2 stretched to that width "
            "are no way out: they give all cells nearly one vector (cosines around .9)"
        )
    if kind.startswith("esm2"):
        return f"{start} --fasta PEP.fa.gz --encoder {kind}` makes one from proteins"
    return f"{start} --embeddings FILE --encoder {kind}` makes one from vectors of that kind"
