"""Lists that say which gene a protein is of, for headers that do not, or say it otherwise."""

import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from uce.errors import InputError
from uce.files import printable
from uce.genes.annotations.gene import other_names, stable_id, stable_protein
from uce.genes.annotations.lines import read_lines
from uce.genes.proteins.headers import Protein

GeneMap = Mapping[str, tuple[str, str]]
"""Protein id -> (stable gene id, symbol or "")."""

_TITLE = re.compile(r"protein(?:[ _-]stable)?(?:[ _-](?:id|accession))?(?:[ _-]version)?")


def read_gene_map(path: str | Path) -> dict[str, tuple[str, str]]:
    """Protein id, with and without version -> (gene id, symbol or "").

    Its lines are `protein_id<TAB>gene_id[<TAB>symbol]`; the first may be a header ("protein_id", "Protein stable ID").

    Raises
    ------
    InputError
        The file is missing, damaged or empty; a line has other fields, or a protein two genes. The message names it.
    """
    found: dict[str, tuple[str, str]] = {}
    with closing(read_lines(path, "a list of proteins and genes")) as lines:
        for number, line in enumerate(lines, start=1):
            fields = [field.strip() for field in line.rstrip("\n").split("\t")]
            if line.isspace() or (number == 1 and _TITLE.fullmatch(fields[0].lower())):
                continue
            if len(fields) not in (2, 3) or not (fields[0] and fields[1]):
                shown = printable(line.strip(), limit=40)
                msg = f"{path}: line {number} is not protein_id<TAB>gene_id[<TAB>symbol] ({shown}). Correct it."
                raise InputError(msg)
            named = (stable_id(fields[1]), fields[2] if len(fields) == 3 else "")
            if found.setdefault(fields[0], named)[0] != named[0]:
                msg = f"{path}: line {number}: protein {printable(fields[0])} has two genes. Keep one."
                raise InputError(msg)
    if not found:
        msg = f"{path}: no rows. Lines protein_id<TAB>gene_id[<TAB>symbol] are needed."
        raise InputError(msg)
    return {stable_protein(protein): named for protein, named in found.items()} | found


def in_map(protein: str, gene_map: GeneMap) -> tuple[str, str] | None:
    """What the map says of a protein, whichever of the two has a version; None where nothing."""
    return gene_map.get(protein) or gene_map.get(stable_protein(protein))


def mapped(protein: Protein, gene_map: GeneMap) -> Protein:
    """`protein` with the gene that the map gives it, as it is where it gives none."""
    named = in_map(protein.id, gene_map)
    return renamed(protein, *named) if named else protein


def renamed(protein: Protein, gene: str, symbol: str, aliases: tuple[str, ...] = ()) -> Protein:
    """`protein` under these names, which win; those of its header become aliases."""
    symbol = symbol or protein.symbol
    others = other_names((protein.symbol, protein.gene, *protein.aliases, *aliases), gene, symbol)
    return replace(protein, gene=gene, symbol=symbol, aliases=others)
