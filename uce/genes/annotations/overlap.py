"""Where two lists of genes meet: which genes count, what a name alone says, and how many names must be known."""

from collections.abc import Collection, Sequence

from uce.errors import InputError
from uce.files import shorten
from uce.genes.annotations.gene import Gene, stable_id
from uce.genes.names import split_id

LEAST, USUAL = 0.5, 0.9
# Segments of antigen receptors are translated too; RefSeq calls them regions and segments.
_CODING = {"protein_coding", "IG_C_gene", "IG_V_gene", "TR_C_gene", "TR_V_gene", "C_region", "V_segment", ""}


def is_coding(gene: Gene) -> bool:
    """Whether a gene has a protein, as far as its annotation says; one without a biotype counts as having one."""
    return gene.biotype in _CODING


def unplaced_gene(name: str, symbol: str = "") -> Gene:
    """The gene of which nothing but a name is known; a name that is no stable id of a known form is its symbol, too."""
    owner, _ = split_id(name)
    return Gene(id=stable_id(name), symbol=symbol or ("" if owner else name))


def check_overlap(
    unknown: Sequence[str], total: int, *, what: str, file: str, other: str, examples: Collection[str]
) -> tuple[str, ...]:
    """A note for the user where under 90 % of `total` names are known to the other list; nothing where enough are.

    Parameters
    ----------
    unknown
        The names, of `total`, that the other list does not know.
    what, file, other
        What the names are, the file they are from, what they were looked up in: words for the message.
    examples
        Names of the other list.

    Raises
    ------
    InputError
        Under 50 % are known; the message shows names of both lists.
    """
    known = total - len(unknown)
    counted = f"{known:,} of {total:,} {what} are in {other}"
    if known < LEAST * total:
        shown = f"unknown are {shorten(list(unknown))}; known there are {shorten(sorted(examples)[:5])}"
        msg = f"{file}: {counted}; {shown}. Is it of another assembly or species? Give files that belong together."
        raise InputError(msg)
    return () if known >= USUAL * total else (f"{file}: {counted}; unknown are {shorten(list(unknown))}",)
