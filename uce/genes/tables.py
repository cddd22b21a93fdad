"""The gene table: the genes of one species with their vectors. Its file is an AnnData `.h5ad`, so scanpy opens it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uce.errors import ModelError
from uce.files import atomic_path, printable, sha256_arrays, shorten
from uce.genes.hdf5 import refuse_traps
from uce.genes.kinds import is_kind

FORMAT = "uce-gene-table"
VERSION = 1
_PACKED_WIDTH = 1280  # the widest vectors that are written packed
UNPLACED = "unplaced"


@dataclass(frozen=True, eq=False)
class GeneTable:
    """The genes of one species with one kind of vectors, rows sorted by id.

    Attributes
    ----------
    species
        Latin name, lower case with underscores.
    encoder
        Kind of vectors ("orthogroups-v1" for the bundled ones). Vectors of two kinds must never meet in one model.
    ids
        (genes,) unique stable ids: Ensembl without version, else the symbol.
    symbols
        (genes,) current symbols, "" where there is none.
    synonyms
        (genes,) aliases and previous symbols joined by "|".
    chromosomes
        (genes,) names, "unplaced" where unknown.
    starts
        (genes,) first base, 1-based; 0 where unplaced.
    projected
        (genes,) whether the position is that of the orthologue in another species.
    origins
        (genes,) where the vector is from ("protein", "group", "own-id", ...).
    vectors
        (genes, dim) float32, finite, no row of zeros.
    metadata
        Facts about the making: taxon, assembly, release, pooling, sources.
    proteins
        (genes,) how many proteins the vector is made of; 0 where none or not known. Not part of the hash.
    chromosome_vectors
        Chromosome -> (dim,) float32, for kinds of vectors that come with a rule for them; else empty.

    Raises
    ------
    ModelError
        Lengths differ, ids repeat or are not sorted, a vector is not usable.
    """

    species: str
    encoder: str
    ids: NDArray[np.str_]
    symbols: NDArray[np.str_]
    synonyms: NDArray[np.str_]
    chromosomes: NDArray[np.str_]
    starts: NDArray[np.int64]
    projected: NDArray[np.bool_]
    origins: NDArray[np.str_]
    vectors: NDArray[np.float32]
    metadata: dict[str, str | int | float] = field(default_factory=dict)
    proteins: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    chromosome_vectors: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kind in _COLUMNS.items():
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=kind))
        object.__setattr__(self, "vectors", np.ascontiguousarray(self.vectors, dtype=np.float32))
        counted = np.asarray(self.proteins, dtype=np.int64)
        object.__setattr__(self, "proteins", counted if counted.size else np.zeros(len(self.vectors), np.int64))
        _check(self)

    @classmethod
    def from_rows(
        cls,
        *,
        species: str,
        encoder: str,
        ids: ArrayLike,
        vectors: ArrayLike,
        symbols: ArrayLike | None = None,
        synonyms: ArrayLike | None = None,
        chromosomes: ArrayLike | None = None,
        starts: ArrayLike | None = None,
        projected: ArrayLike | None = None,
        origins: ArrayLike | None = None,
        proteins: ArrayLike | None = None,
        metadata: Mapping[str, str | int | float] | None = None,
        chromosome_vectors: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> "GeneTable":
        """A table from rows in any order; columns left out are empty, unplaced, measured, "unknown", 0 proteins."""
        ids = np.asarray(ids, dtype=np.str_)
        order = np.argsort(ids, kind="stable")
        given = {
            "symbols": (symbols, ""),
            "synonyms": (synonyms, ""),
            "chromosomes": (chromosomes, UNPLACED),
            "starts": (starts, 0),
            "projected": (projected, False),
            "origins": (origins, "unknown"),
            "proteins": (proteins, 0),
        }
        columns: dict[str, Any] = {
            name: np.full(len(ids), default) if values is None else np.asarray(values)[order]
            for name, (values, default) in given.items()
        }
        rows = np.asarray(vectors, dtype=np.float32)[order]
        named = dict(chromosome_vectors or {})
        facts = dict(metadata or {})
        return cls(species, encoder, ids[order], vectors=rows, metadata=facts, chromosome_vectors=named, **columns)

    @cached_property
    def sha256(self) -> str:
        """Hash of the content (names, places, vectors; not the metadata), as hexadecimal text."""
        kind = np.array([self.species, self.encoder])
        named = sorted(self.chromosome_vectors)
        own = [np.array(named), *(self.chromosome_vectors[name] for name in named)] if named else []
        return sha256_arrays(kind, *(getattr(self, name) for name in _COLUMNS), self.vectors, *own)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self.vectors.shape[1])

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"GeneTable({self.species}, {self.encoder}, {len(self):,} genes x {self.dim})"


_COLUMNS: dict[str, Any] = {
    "ids": np.str_,
    "symbols": np.str_,
    "synonyms": np.str_,
    "chromosomes": np.str_,
    "starts": np.int64,
    "projected": np.bool_,
    "origins": np.str_,
}

# Field of the table -> column of `obs` in its file.
_OBS = {
    "symbols": "symbol",
    "synonyms": "synonyms",
    "chromosomes": "chromosome",
    "starts": "start",
    "projected": "projected",
    "origins": "origin",
    "proteins": "proteins",
}


def _check(table: GeneTable) -> None:
    if not is_kind(table.encoder) or not is_kind(table.species):
        named = f"species {printable(table.species)!r}, vectors {printable(table.encoder)!r}"
        msg = f"gene table: {named}: both become names of files; letters, digits, '.', '_', '+' and '-' are allowed."
        raise ModelError(msg)
    place = f"gene table of {table.species}"
    if table.vectors.ndim != 2 or not table.vectors.shape[1]:
        msg = f"{place}: vectors of shape {table.vectors.shape}; (genes, width) is needed."
        raise ModelError(msg)
    n_genes = len(table.vectors)
    for name in (*_COLUMNS, "proteins"):
        column = getattr(table, name)
        if column.shape != (n_genes,):
            msg = (
                f"{place}: {name} of shape {column.shape} for {n_genes} vectors; every column needs one value per gene."
            )
            raise ModelError(msg)
    if not n_genes:
        msg = f"{place}: no genes. Build it from other sources."
        raise ModelError(msg)
    _check_ids(table.ids, place)
    if bad_names := [name for name, vector in table.chromosome_vectors.items() if vector.shape != (table.dim,)]:
        msg = f"{place}: vectors of chromosomes {shorten(bad_names)} are not {table.dim} wide. Build the table again."
        raise ModelError(msg)
    # A row of zeros has no direction, and the model sees directions only.
    bad = np.flatnonzero(~np.isfinite(table.vectors).all(axis=1) | ~table.vectors.any(axis=1))
    if len(bad):
        genes = shorten(table.ids[bad].tolist())
        msg = f"{place}: the vectors of {genes} hold NaN, infinity or only zeros. Build the table again."
        raise ModelError(msg)


def _check_ids(ids: NDArray[np.str_], place: str) -> None:
    steps = ids[1:] <= ids[:-1]
    if not steps.any() and ids[0]:
        return
    repeated = sorted(set(ids[1:][ids[1:] == ids[:-1]].tolist()))
    if repeated:
        msg = f"{place}: id {shorten(repeated)} stands twice; ids must be unique."
    elif not ids[0]:
        msg = f"{place}: a gene has no id; every gene needs one."
    else:
        msg = f"{place}: ids are not sorted ({printable(ids[1:][steps][0])}); build it by GeneTable.from_rows."
    raise ModelError(msg)


def write_table(table: GeneTable, path: str | Path) -> None:
    """Write `table` as an AnnData file: genes in `obs`, vectors in `X`, facts in `uns["uce"]`. All or nothing."""
    import anndata
    import pandas as pd

    columns = {column: getattr(table, name) for name, column in _OBS.items()}
    obs = pd.DataFrame(columns, index=pd.Index(table.ids.astype(object)))
    facts = {"format": FORMAT, "version": VERSION, "species": table.species, "encoder": table.encoder}
    uns: dict[str, Any] = {"uce": {**table.metadata, **facts, "sha256": table.sha256}}
    if table.chromosome_vectors:
        names = sorted(table.chromosome_vectors)
        vectors = np.stack([table.chromosome_vectors[name] for name in names])
        uns["chromosomes"] = {"names": np.array(names, dtype=object), "vectors": vectors}
    content = anndata.AnnData(X=table.vectors, obs=obs, uns=uns)
    with atomic_path(path) as temporary:
        # Vectors of a protein model hardly become smaller by packing, and unpacking them would take the first seconds
        # of every embedding.
        content.write_h5ad(temporary, compression="gzip" if table.dim <= _PACKED_WIDTH else None)


def read_table(path: str | Path) -> GeneTable:
    """Read a gene table written by `write_table`, or made by hand in the same form.

    Only the index, `X` and `uns["uce"]` with `species` and `encoder` are required. Where a hash is recorded it is
    compared with the content.

    Raises
    ------
    ModelError
        The file is missing, not a gene table, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        msg = f"{path}: no such file; a gene table (.h5ad) is expected there."
        raise ModelError(msg)
    columns, facts = _read_parts(path)
    if facts.pop("format", FORMAT) != FORMAT or "species" not in facts or "encoder" not in facts:
        msg = f"{path}: not a gene table (no species and encoder in uns['uce']). Give a table written by uce."
        raise ModelError(msg)
    if int(facts.pop("version", VERSION)) > VERSION:
        msg = f"{path}: written by a newer uce. Update uce."
        raise ModelError(msg)
    recorded = facts.pop("sha256", None)
    try:
        table = GeneTable.from_rows(
            species=str(facts.pop("species")), encoder=str(facts.pop("encoder")), metadata=facts, **columns
        )
    except (ModelError, ValueError, TypeError) as error:
        msg = f"{path}: {error}"
        raise ModelError(msg) from error
    if recorded not in (None, table.sha256):
        hashes = f"content has hash {table.sha256[:8]}.., {str(recorded)[:8]}.. is recorded"
        msg = f"{path}: {hashes}. Copy or build the table again."
        raise ModelError(msg)
    return table


def read_facts(path: Path) -> dict[str, Any]:
    """What the file of a gene table says of its making; no vectors are read.

    Raises
    ------
    ModelError
        The file cannot be read as a gene table.
    """
    import h5py
    from anndata.io import read_elem

    try:
        with h5py.File(path, "r") as file:
            refuse_traps(path, file)
            return {key: _scalar(value) for key, value in read_elem(file["uns/uce"]).items()}
    except ModelError:
        raise
    except Exception as error:  # whatever anndata raises on a damaged file, with classes of its own among it
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ModelError:
    reason = printable(str(error), limit=120)
    return ModelError(f"{path}: cannot be read as a gene table ({reason}). Copy or build it again.")


def _read_parts(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of `GeneTable.from_rows`, and what `uns["uce"]` says."""
    import h5py
    from anndata.io import read_elem

    try:
        with h5py.File(path, "r") as file:
            refuse_traps(path, file)
            frame = read_elem(file["obs"])
            vectors = np.asarray(read_elem(file["X"]))
            uns = read_elem(file["uns"])
            facts = {key: _scalar(value) for key, value in uns["uce"].items()}
            own = uns.get("chromosomes", {"names": (), "vectors": ()})
            named = {str(name): np.float32(row) for name, row in zip(own["names"], own["vectors"], strict=True)}
    except ModelError:  # it is a ValueError too, and has said what is wrong
        raise
    except Exception as error:  # whatever anndata raises on a damaged file, with classes of its own among it
        raise _damaged(path, error) from error
    columns = {name: _column(frame[column]) for name, column in _OBS.items() if column in frame}
    ids = frame.index.to_numpy(dtype=np.str_)
    return {**columns, "ids": ids, "vectors": vectors, "chromosome_vectors": named}, facts


def _column(values: Any) -> NDArray[Any]:
    if values.dtype.kind in "iufb":
        return np.asarray(values)
    return values.astype(object).where(values.notna(), "").to_numpy(dtype=np.str_)  # type: ignore[no-any-return]


def _scalar(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def table_record(table: GeneTable) -> dict[str, str | int]:
    """What a model records of a table it was trained or imported with: a line of its genes.json."""
    record: dict[str, str | int] = {
        "species": table.species,
        "encoder": table.encoder,
        "dim": table.dim,
        "genes": len(table),
        "sha256": table.sha256,
    }
    if "encoder_sha256" in table.metadata:
        record["encoder_sha256"] = str(table.metadata["encoder_sha256"])
    return record
