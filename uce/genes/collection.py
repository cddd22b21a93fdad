"""Where gene tables are kept: the user's own and the bundled ones, by species and kind of vectors. Never downloads."""

from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from uce.errors import ModelError
from uce.files import shorten, user_folder
from uce.genes.catalogue import canonical_species, species_label
from uce.genes.kinds import BUNDLED_ENCODER, how_to_make, plain_kind
from uce.genes.proteins.weights import known_encoders
from uce.genes.tables import GeneTable, read_table

_JUDGES = ("homo_sapiens", "mus_musculus", "danio_rerio")  # whose tables a new one is compared with, in this order


def load_gene_table(species: str | Path, *, encoder: str = BUNDLED_ENCODER) -> GeneTable:
    """The gene table of a species, from a file, the user's folder or the bundled ones. Never downloads.

    Parameters
    ----------
    species
        Latin or common name, taxonomy id, or the path of a table (`.h5ad`).
    encoder
        Kind of vectors; a table of another kind is refused. Not checked where `species` is a path.

    Raises
    ------
    UsageError
        No such species is known.
    ModelError
        There is no table for it; the message lists the species that have one.
    """
    if isinstance(species, Path) or str(species).endswith(".h5ad"):
        return _cached(Path(species))
    name = canonical_species(str(species))
    for kind in dict.fromkeys((encoder, plain_kind(encoder))):
        if (own := table_path(name, kind)).is_file():
            return _cached(own)
    if encoder == BUNDLED_ENCODER and name in _bundled_species():
        return _bundled(name)
    raise ModelError(why_no_table(name, encoder))


def why_no_table(species: str, encoder: str) -> str:
    """What to tell a user who needs the table of a species (Latin name) that has none of this kind of vectors."""
    others = [kind for kind in table_kinds(species) if kind != encoder]
    beside = f" There is one with vectors of {shorten(others)}; a model reads one kind alone." if others else ""
    shown = ", ".join(list_species(encoder=encoder)) or "none"
    return (
        f"no gene table of {species_label(species)} with {encoder} vectors.{beside} {how_to_make(species, encoder)}. "
        f"Tables at hand: {shown}."
    )


def table_path(species: str, encoder: str) -> Path:
    """Where the user's own table of a species (Latin name) and kind of vectors is, or would be."""
    return user_folder() / "genes" / encoder / f"{species}.h5ad"


def table_kinds(species: str) -> list[str]:
    """The kinds of vectors that a species (Latin name) has tables of, sorted."""
    own = {path.parent.name for path in (user_folder() / "genes").glob(f"*/{species}.h5ad")}
    return sorted(own | ({BUNDLED_ENCODER} if species in _bundled_species() else set()))


def all_kinds() -> list[str]:
    """Every kind of vectors that there is a table of, the bundled one first."""
    own = {path.parent.name for path in (user_folder() / "genes").glob("*/*.h5ad")}
    return [BUNDLED_ENCODER, *sorted(own - {BUNDLED_ENCODER})]


def list_species(*, encoder: str = BUNDLED_ENCODER) -> list[str]:
    """Latin names of all species with a table of this kind, the user's own included, sorted."""
    own = {path.stem for path in (user_folder() / "genes").glob("*/*.h5ad") if _serves(path.parent.name, encoder)}
    return sorted(own | set(_bundled_species() if encoder == BUNDLED_ENCODER else ()))


def _serves(kind: str, encoder: str) -> bool:
    return kind in (encoder, plain_kind(encoder))


def kind_width(encoder: str) -> int | None:
    """How wide the vectors of a kind are: as in the tables that are there, else as published; None where none tells."""
    import h5py

    if plain_kind(encoder) == BUNDLED_ENCODER:
        return _bundled(_bundled_species()[0]).dim
    for path in sorted((user_folder() / "genes").glob("*/*.h5ad")):
        if plain_kind(path.parent.name) == plain_kind(encoder):
            with h5py.File(path, "r") as file:
                return int(file["X"].shape[1])
    known = known_encoders().get(plain_kind(encoder))
    return known.architecture.dim if known else None


def comparable(table: GeneTable) -> list[GeneTable]:
    """Up to two tables of other species with the same kind of vectors, to judge `table` by."""
    there = [name for name in list_species(encoder=table.encoder) if name != table.species]
    ordered = [name for name in _JUDGES if name in there] + [name for name in there if name not in _JUDGES]
    tables = (load_gene_table(name, encoder=table.encoder) for name in ordered[:2])
    return [other for other in tables if (other.encoder, other.dim) == (table.encoder, table.dim)]


def table_names(species: str, *, encoder: str = BUNDLED_ENCODER) -> frozenset[str]:
    """The symbols of a species' table, and the ids of a user's own one; no vectors are read of bundled tables."""
    for kind in dict.fromkeys((encoder, plain_kind(encoder))):
        if (own := table_path(species, kind)).is_file():
            table = _cached(own)
            return frozenset(table.symbols.tolist()) | frozenset(table.ids.tolist())
    return _bundled_symbols(species) if species in _bundled_species() else frozenset()


@cache
def _bundled_symbols(species: str) -> frozenset[str]:
    with (
        files("uce").joinpath("data", "genes", f"{species}.npz").open("rb") as stream,
        np.load(stream, allow_pickle=False) as content,
    ):
        return frozenset(content["symbols"].tobytes().decode("utf-8").split("\n"))


def _cached(path: Path) -> GeneTable:
    if not path.is_file():
        return read_table(path)
    state = path.stat()
    return _read_once(str(path.resolve()), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=8)  # one may take half a gigabyte
def _read_once(path: str, _mtime: int, _size: int) -> GeneTable:
    return read_table(path)


def _bundled_species() -> tuple[str, ...]:
    from uce.genes.bundled import bundled_species

    return bundled_species()


@cache
def _bundled(species: str) -> GeneTable:
    from uce.genes.bundled import load_bundled

    return load_bundled(species)
