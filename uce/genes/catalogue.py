"""The catalogue of known species: names, taxonomy id, what their gene ids look like, prefixes of mixed references."""

import csv
import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files

from uce.errors import UsageError
from uce.files import nearest, printable, user_folder

_LATIN = re.compile(r"[a-z]{3,}(_[a-z0-9]+){1,4}")  # also a strain, as Ensembl names it: mus_musculus_c57bl6nj
_SLIP = 0.85  # likeness of two names of which one is the other, mistyped: gallus_galus


@dataclass(frozen=True)
class Species:
    """One species, as listed in `uce/data/species.csv`.

    Attributes
    ----------
    name
        Latin name, lower case with underscores ("homo_sapiens").
    common
        Other names a user may give; the first is the one shown.
    taxon
        NCBI taxonomy id.
    id_pattern
        Regular expression of the stable gene ids, without version; "" where the species has none of its own.
    prefixes
        Names of assemblies that Cell Ranger puts before gene names in references of several species ("GRCh38").
    """

    name: str
    common: tuple[str, ...]
    taxon: int
    id_pattern: str
    prefixes: tuple[str, ...]

    @property
    def label(self) -> str:
        """The everyday name, for messages ("human")."""
        return self.common[0] if self.common else self.name.replace("_", " ")


@cache
def catalogue() -> dict[str, Species]:
    """All known species by Latin name. Being listed says nothing about whether a gene table exists."""
    text = files("uce").joinpath("data/species.csv").read_text(encoding="utf-8")
    return {
        row["name"]: Species(
            name=row["name"],
            common=_listed(row["common"]),
            taxon=int(row["taxon"]),
            id_pattern=row["id_pattern"],
            prefixes=_listed(row["prefixes"]),
        )
        for row in csv.DictReader(text.splitlines())
    }


def _listed(cell: str) -> tuple[str, ...]:
    return tuple(part for part in cell.split(";") if part)


@cache
def _names() -> dict[str, str]:
    names: dict[str, str] = {}
    for species in catalogue().values():
        for name in (species.name, *species.common, str(species.taxon), f"ncbitaxon_{species.taxon}"):
            names[_plain(name)] = species.name
    return names


def _plain(name: str) -> str:
    return re.sub(r"[\s_:-]+", "_", name.strip().lower())


def find_species(name: str) -> str | None:
    """Latin name of a species the catalogue knows under `name` ("human", "Homo sapiens", "NCBITaxon:9606"), or None."""
    return _names().get(_plain(name))


def species_label(species: str) -> str:
    """How messages call a species: "human (homo_sapiens)", or the Latin name alone where nothing else is known."""
    return f"{catalogue()[species].label} ({species})" if species in catalogue() else species


def canonical_species(name: str, *, new: bool = False) -> str:
    """Latin name of the species called `name`: Latin or common name in any case, or the taxonomy id.

    A name like "genus_species" that the catalogue does not know is taken as it is where a table of the user has it or
    where it is `new`; else if it is not nearly a known one, which would be a slip of the pen.

    Raises
    ------
    UsageError
        The name is neither known nor of the form "genus_species"; the message names the nearest known one.
    """
    if found := find_species(name):
        return found
    plain = _plain(name)
    known = sorted(_names())
    if _LATIN.fullmatch(plain) and (new or _has_table(plain) or not get_close_matches(plain, known, cutoff=_SLIP)):
        return plain
    ways = "Give a Latin name (homo_sapiens), a common one (human) or a taxonomy id."
    msg = f"species {printable(name)!r} is not known.{nearest(plain, known)} {ways}"
    raise UsageError(msg)


def _has_table(species: str) -> bool:
    return any((user_folder() / "genes").glob(f"*/{species}.h5ad"))
